"""The size of an error in units of the tolerance."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from dyn_numerics.dtypes import real_dtype, wide_dtype
from dyn_numerics.norms import rms_norm
from dyn_numerics.ode.controllers.controller import Norm
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.times import time_dtype
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.seminorm import Seminorm

__all__ = ["ErrorNorm"]


class ErrorNorm:
    """Measures vectors against `atol + rtol * |x|`, one problem at a time.

    Args:
        rtol: Relative tolerance, a number or flat `[*lead, N]`.
        atol: Absolute tolerance in state units, as `rtol`.
        layout: Layout of the state.
        norm: A norm of its own, on the structure of the state, or a seminorm over some of its parts; None for the root
            mean square of all elements.
        on_host: Whether norms are host numbers, each one host read; otherwise they are tensors `[*lead]`.
        differentiable: Whether norms have gradients, for a controller that learns from them.
    """

    def __init__(
        self,
        rtol: float | Tensor,
        atol: float | Tensor,
        layout: StateLayout,
        norm: Norm | Seminorm | None,
        on_host: bool = True,
        differentiable: bool = False,
    ) -> None:
        self.rtol, self.atol = rtol, atol
        self.layout = layout
        self.norm = norm
        self._columns = norm.columns(layout) if isinstance(norm, Seminorm) else []
        self.on_host, self.differentiable = on_host, differentiable
        # As a tensor: then one pass scales and adds.
        real = real_dtype(wide_dtype(layout.dtype))
        self._least = None if isinstance(atol, Tensor) else torch.full((), atol, dtype=real, device=layout.device)

    def of_step(self, error: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Norm of a step's error estimate, `[*lead]`; not finite if the attempt was not.

        Args:
            error: Error estimate, `[*lead, N]`.
            x0: State before the step, `[*lead, N]`.
            x1: State after it, `[*lead, N]`; an overflow here counts even where the estimate did not notice it.
        """
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            dtype = wide_dtype(x0.dtype)
            x0, x1 = x0.to(dtype), x1.to(dtype)
            return self._measure(error.to(dtype), torch.maximum(x0.abs(), x1.abs()), must_be_finite=True)

    def at(self, x: Tensor, vector: Tensor) -> Scalar:
        """Norm of a vector `[*lead, N]` in units of the tolerance at the state `x`; without gradient."""
        with torch.no_grad():
            found = self.read(self._measure(vector.to(wide_dtype(vector.dtype)), x.to(wide_dtype(x.dtype)).abs()))
        return found.detach() if isinstance(found, Tensor) else found

    def tolerance(self, x: Tensor) -> Tensor:
        """The tolerance of every element of a state, `[*lead, N]` in its units and real dtype."""
        return x.abs() * self.rtol + self.atol

    def read(self, norm: Tensor) -> Scalar:
        """A norm as the solve computes with it, infinity if it is not finite: the one host read of a joint step."""
        if self.on_host:
            value: float = norm.item()
            return value if value == value else inf
        norm = norm.to(time_dtype(norm.device))
        if norm.requires_grad and not self.differentiable:
            norm = norm.detach()
        return norm.nan_to_num(nan=inf, posinf=inf)

    @property
    def of_half_the_state(self) -> Scalar:
        """About what a change of half the state measures, where the state is well above the absolute tolerance."""
        rtol = self.rtol
        return 0.5 / (rtol.amax(dim=-1) if isinstance(rtol, Tensor) and rtol.dim() else rtol)

    def take(self, samples: Tensor) -> ErrorNorm:
        """The norm of some of the samples, whose indices are `[m]`."""

        def cut(tolerance: float | Tensor) -> float | Tensor:
            return tolerance[samples] if isinstance(tolerance, Tensor) and tolerance.dim() > 1 else tolerance

        return ErrorNorm(cut(self.rtol), cut(self.atol), self.layout, self.norm, self.on_host, self.differentiable)

    def _measure(self, vector: Tensor, magnitude: Tensor, must_be_finite: bool = False) -> Tensor:
        """Norm of a vector against magnitudes; not finite if it is not, or these are not but have to be."""
        if self._least is not None and isinstance(self.rtol, float):
            scaled = vector / torch.add(self._least, magnitude, alpha=self.rtol)
        else:
            scaled = vector / (magnitude * self.rtol + self.atol)
        dim = None if self.on_host else -1
        if self.norm is None:
            norm = rms_norm(scaled, dim)
        else:  # which may look away from what is not finite
            norm = self._own_norm(self.norm, scaled) + 0 * scaled.abs().sum(-1)
        if must_be_finite and magnitude.numel():
            largest = magnitude.amax() if dim is None else magnitude.amax(dim)
            norm = torch.add(norm, largest, alpha=0)  # 0 * inf is NaN
        return norm

    def _own_norm(self, norm: Norm | Seminorm, scaled: Tensor) -> Tensor:
        if isinstance(norm, Seminorm):
            return rms_norm(torch.cat([scaled[..., part] for part in self._columns], dim=-1), dim=-1)
        found = norm(self.layout.unflatten(scaled, cast=False))
        lead = scaled.shape[:-1]
        if not isinstance(found, Tensor) or found.is_complex() or found.numel() != lead.numel():
            got = f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            wanted = "one element for each sample" if lead else "one element"
            raise TypeError(f"norm: returned {got}, expected a real tensor of {wanted}")
        return found.reshape(lead)
