"""Continuous normalising flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log, pi
from typing import Any, cast

import torch
from torch import Tensor, nn

from dyn_models import NeuralODE
from dyn_numerics import Stepper
from dyn_sensitivity import SensitivityAlgorithm
from dyn_zoo.flows.exact_trace import ExactTrace

__all__ = ["CNF"]


class CNF(nn.Module):
    """A density model: a differential equation that carries data to a standard normal distribution, and back.

    With `x(t0)` a point of the data space and `z = x(t1)`, `log p(x) = log N(z; 0, I) + ∫ tr(df/dx) dt`, the trace taken
    exactly.

    Args:
        vector_field: A module or function `f(t, x)` or `f(x)` on `[batch, dim]` that treats rows independently.
        dim: Dimension of the data.
        solver: Name of a method or a `Stepper`.
        sensitivity: How the gradient is computed.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in the data's units.
        t_span: Times of the data and of the normal distribution.
        step_size: Magnitude of fixed steps, in time units; None for the method's own way.

    Raises:
        TypeError: If `vector_field` cannot be called as said, `dim` is no integer, or as `NeuralODE`.
        ValueError: If `dim` is not positive, `t_span` is not a pair of different times, or as `NeuralODE`.

    Example:
        >>> import torch
        >>> from dyn_zoo import CNF
        >>> flow = CNF(torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)), dim=2)
        >>> flow.log_prob(torch.zeros(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))

    References:
        - R. T. Q. Chen et al.: Neural Ordinary Differential Equations, NeurIPS 2018, section 4.
        - W. Grathwohl et al.: FFJORD: Free-form continuous dynamics for scalable reversible generative models, ICLR 2019.
    """

    def __init__(
        self,
        vector_field: Callable[..., Any],
        dim: int,
        *,
        solver: str | Stepper = "tsit5",
        sensitivity: str | SensitivityAlgorithm = "autograd",
        rtol: float = 1e-3,
        atol: float = 1e-6,
        t_span: Sequence[float] = (0.0, 1.0),
        step_size: float | None = None,
    ) -> None:
        super().__init__()
        if isinstance(dim, bool) or not isinstance(dim, int):
            raise TypeError(f"dim: got a {type(dim).__name__}, expected an integer")
        if dim < 1:
            raise ValueError(f"dim: got {dim}, expected a positive dimension")
        self.dim = dim
        self.flow = NeuralODE(
            ExactTrace(vector_field),
            solver=solver,
            sensitivity=sensitivity,
            rtol=rtol,
            atol=atol,
            t_span=t_span,
            step_size=step_size,
        )
        if len(t_span) != 2 or t_span[0] == t_span[1]:
            raise ValueError(f"t_span: got {t_span}, expected the time of the data and that of the normal distribution")
        self.t_span = (float(t_span[0]), float(t_span[1]))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, t_span={self.t_span}"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Carries data to the normal distribution.

        Args:
            x: Points `[batch, dim]`.

        Returns:
            Their images `z` `[batch, dim]`, and `log |det dz/dx|` `[batch]`.

        Raises:
            TypeError: If `x` is not a tensor.
            ValueError: If `x` is not `[batch, dim]`.
        """
        z, change = self._carry(x, self.t_span)
        return z, -change

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Carries points of the normal distribution to the data space; shapes and errors as in `forward`.

        Returns:
            Their images `x` `[batch, dim]`, and `log |det dx/dz|` `[batch]`.
        """
        x, change = self._carry(z, (self.t_span[1], self.t_span[0]))
        return x, -change

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of the model, in nats.

        Args:
            x: Points `[batch, dim]`.

        Returns:
            `[batch]`.

        Raises:
            TypeError: If `x` is not a tensor.
            ValueError: If `x` is not `[batch, dim]`.
        """
        z, change = self._carry(x, self.t_span)
        return -0.5 * (z.square().sum(-1) + self.dim * log(2 * pi)) - change

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws from the model.

        Args:
            n: Number of points.
            generator: Source of randomness, on the model's device; the global one when None.

        Returns:
            `[n, dim]`, in the dtype and on the device of the field's parameters.
        """
        flow, dynamics = self.flow, cast(ExactTrace, self.flow.vector_field)
        like = next(dynamics.parameters(), torch.empty(0))
        z = torch.randn(n, self.dim, generator=generator, dtype=like.dtype, device=like.device)
        without_trace = NeuralODE(
            dynamics.slope,
            solver=flow.solver,
            sensitivity=flow.sensitivity,
            rtol=flow.rtol,
            atol=flow.atol,
            step_size=flow.step_size,
        )
        x: Tensor = without_trace.trajectory(z, (self.t_span[1], self.t_span[0]))[-1]
        return x

    def _carry(self, x: Tensor, t_span: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """The state at the end of `t_span`, and how much its log-density changed."""
        if not isinstance(x, Tensor):
            raise TypeError(f"x: got a {type(x).__name__}, expected a tensor [batch, {self.dim}]")
        if x.dim() != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x: got shape {list(x.shape)}, expected [batch, {self.dim}]")
        points, change = self.flow.trajectory((x, x.new_zeros(len(x))), t_span)
        return points[-1], change[-1]
