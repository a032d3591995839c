"""The size of an error in units of the tolerance."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from dyn_numerics.norms import rms_norm
from dyn_numerics.ode.controllers.controller import Norm
from dyn_numerics.pytree_state import StateLayout

__all__ = ["ErrorNorm"]


class ErrorNorm:
    """Measures vectors against `atol + rtol * |x|`.

    Args:
        rtol: Relative tolerance, a number or flat `[N]`.
        atol: Absolute tolerance in state units, a number or flat `[N]`.
        layout: Layout of the state.
        norm: A norm of its own, on the structure of the state; None for the root mean square of all elements.
    """

    def __init__(self, rtol: float | Tensor, atol: float | Tensor, layout: StateLayout, norm: Norm | None) -> None:
        self.rtol, self.atol = rtol, atol
        self.layout = layout
        self.norm = norm

    @torch.no_grad()
    def of_step(self, error: Tensor, x0: Tensor, x1: Tensor) -> float:
        """Norm of a step's error estimate, as a host number; infinity if the attempt was not finite.

        Args:
            error: Error estimate, `[N]`.
            x0: State before the step, `[N]`.
            x1: State after it, `[N]`; an overflow here counts even where the estimate did not notice it.
        """
        x0, x1 = _at_least_float32(x0), _at_least_float32(x1)
        error = torch.add(_at_least_float32(error), x1, alpha=0)  # 0 * inf is NaN
        return self._measure(error, torch.maximum(x0.abs(), x1.abs()))

    @torch.no_grad()
    def at(self, x: Tensor, vector: Tensor) -> float:
        """Norm of a vector `[N]` in units of the tolerance at the state `x`, as a host number."""
        return self._measure(_at_least_float32(vector), _at_least_float32(x).abs())

    def _measure(self, vector: Tensor, magnitude: Tensor) -> float:
        scaled = vector / (magnitude * self.rtol + self.atol)
        norm = rms_norm(scaled) if self.norm is None else self._own_norm(self.norm, scaled)
        value = norm.item()  # the one host read of a step
        return value if value == value else inf

    def _own_norm(self, norm: Norm, scaled: Tensor) -> Tensor:
        found = norm(self.layout.unflatten(scaled, cast=False))
        if not isinstance(found, Tensor) or found.numel() != 1 or found.is_complex():
            got = f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise TypeError(f"norm: returned {got}, expected a real tensor of one element")
        return found + (0 * scaled).abs().sum()  # a seminorm may look away from what is not finite


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
