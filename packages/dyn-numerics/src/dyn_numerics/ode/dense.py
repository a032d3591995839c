"""The solution as a function of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.autocast import without_autocast
from dyn_numerics.ode.interpolants.polynomial import evaluate, evaluate_derivative
from dyn_numerics.pytree_state import StateLayout

__all__ = ["DenseSolution"]


class DenseSolution:
    """A piecewise polynomial through the accepted steps, of the method's own dense order.

    Attributes:
        t: The ends of the accepted steps, `[n + 1]`, in the dtype of times; monotone in the direction of the solve.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> dense = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], rtol=1e-6, save="dense").dense
        >>> dense(torch.tensor([0.25, 0.5])).shape, round(dense.derivative(0.5).item(), 4)
        (torch.Size([2, 1]), -0.6065)
    """

    def __init__(self, t: Tensor, coefficients: Tensor, layout: StateLayout) -> None:
        self.t = t
        self._coefficients = coefficients  # [n, p + 1, N]
        self._layout = layout

    def __call__(self, t: Tensor | Sequence[float] | float) -> Any:
        """The state at any times of the solved span.

        Args:
            t: Times, any shape. Times that only rounding in their own dtype puts outside the solved span count as inside.

        Returns:
            The state, with the shape of `t` in front of that of `x0`.

        Raises:
            ValueError: If a time is outside the solved span.
        """
        with without_autocast(self.t.device.type):
            piece, theta, _ = self._locate(t)
            return self._state(evaluate(self._coefficients[piece], theta), t)

    def derivative(self, t: Tensor | Sequence[float] | float) -> Any:
        """The time derivative of the interpolated state, in state units per time unit; as `__call__`."""
        with without_autocast(self.t.device.type):
            piece, theta, dt = self._locate(t)
            return self._state(evaluate_derivative(self._coefficients[piece], theta) / dt, t)

    def _locate(self, t: Tensor | Sequence[float] | float) -> tuple[Tensor, Tensor, Tensor]:
        """The steps `[m]` that hold the times, the positions `[m, 1]` in them and their sizes `[m, 1, 1]`."""
        times = torch.as_tensor(t, dtype=self.t.dtype, device=self.t.device).reshape(-1)
        with torch.no_grad():
            low, high = self.t.aminmax()
            given = t.dtype if isinstance(t, Tensor) and t.is_floating_point() else times.dtype
            rounding = torch.finfo(given).eps * torch.maximum(low.abs(), high.abs())
            if not bool(((times >= low - rounding) & (times <= high + rounding)).all()):
                raise ValueError(f"t: got times outside the solved span, expected [{low.item()}, {high.item()}]")
            direction = 1 if self.t[-1] >= self.t[0] else -1
            piece = torch.searchsorted(direction * self.t[1:-1], direction * times)
        dt = self.t.diff()[piece]
        theta = (times - self.t[piece]) / dt
        return piece, theta.unsqueeze(1), dt[:, None, None]

    def _state(self, vectors: Tensor, t: Tensor | Sequence[float] | float) -> Any:
        """Vectors `[m, 1, N]` as states that lead with the shape of `t`."""
        shape = torch.as_tensor(t).shape
        return self._layout.unflatten(vectors.reshape(*shape, self._layout.size).to(self._layout.dtype))
