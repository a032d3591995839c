"""The solution over one step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.interpolants.polynomial import evaluate, evaluate_derivative
from dyn_numerics.ode.scalar import Scalar, over_state, where
from dyn_numerics.ode.times import time_dtype
from dyn_numerics.substitutes import substituted

__all__ = ["Piece"]


class Piece:
    """The solution over one step, at positions `theta` from 0 at its start to 1 at its end.

    Args:
        t0: Start of the step, a host number or `[*lead]`.
        t1: End of the step.
        x1: State there, `[*lead, N]`.
        interpolant: Makes the coefficients, `[*lead, p + 1, N]`; not called for the end alone.
    """

    def __init__(self, t0: Scalar, t1: Scalar, x1: Tensor, interpolant: Callable[[], Tensor]) -> None:
        self.t0, self.t1, self.x1 = t0, t1, x1
        self._interpolant = interpolant

    @classmethod
    def point(cls, t: Scalar, x: Tensor) -> Piece:
        """A step of no length.

        Args:
            t: Its time, a host number or `[*lead]`.
            x: State there, `[*lead, N]`.
        """
        return cls(t, t, x, lambda: torch.stack([x, torch.zeros_like(x)], dim=-2))

    @property
    def coefficients(self) -> Tensor:
        """The coefficients, `[*lead, p + 1, N]`."""
        return self._interpolant()

    @property
    def is_differentiable(self) -> bool:
        """Whether the step depends on anything that wants a gradient."""
        parts = (self.t0, self.t1, self.x1, self.coefficients)
        return any(isinstance(part, Tensor) and part.requires_grad for part in parts)

    def detach(self) -> Piece:
        """The same without gradient."""
        t0, t1 = (t.detach() if isinstance(t, Tensor) else t for t in (self.t0, self.t1))
        return Piece(t0, t1, self.x1.detach(), lambda: self._interpolant().detach())

    def lent(self, places: Tensor) -> Piece:
        """The same with some problems in the places of others, see `dyn_numerics.substitutes`."""
        t0, t1, x1, coefficients = substituted(places, (self.t0, self.t1, self.x1, self._interpolant()))
        return Piece(t0, t1, x1, lambda: coefficients)

    def time(self, theta: Scalar) -> Scalar:
        """The time at a position."""
        t = self.t0 + theta * (self.t1 - self.t0)
        return where(theta == 1, self.t1, t)

    def position(self, t: Scalar) -> Scalar:
        """The position of a time; 1 in a step of no length."""
        length = self.t1 - self.t0
        standing = length == 0
        return where(standing, 1.0 + 0 * length, (t - self.t0) / where(standing, 1.0 + 0 * length, length))

    def state(self, theta: Scalar) -> Tensor:
        """The state at a position, `[*lead, N]`."""
        if isinstance(theta, float) and theta == 1:
            return self.x1
        theta = _as_tensor(theta, self.x1)
        return evaluate(self.coefficients, theta).to(self.x1.dtype)

    def slope(self, theta: Scalar) -> Tensor:
        """The time derivative of the state at a position, `[*lead, N]`."""
        slope = evaluate_derivative(self.coefficients, _as_tensor(theta, self.x1))
        return (slope / over_state(self.t1 - self.t0, slope)).to(self.x1.dtype)

    def until(self, theta: Scalar) -> Tensor:
        """Coefficients `[*lead, p + 1, N]` of the part before a position, in positions of its own from 0 to 1."""
        coefficients = self.coefficients
        ratio = _as_tensor(theta, self.x1).to(real_dtype(coefficients.dtype))
        powers = torch.stack([ratio**k for k in range(coefficients.shape[-2])], dim=-1)  # [*lead, p + 1]
        return coefficients * powers.unsqueeze(-1)


def _as_tensor(theta: Scalar, like: Tensor) -> Tensor:
    if isinstance(theta, Tensor):
        return theta
    return torch.full((), theta, dtype=time_dtype(like.device), device=like.device)
