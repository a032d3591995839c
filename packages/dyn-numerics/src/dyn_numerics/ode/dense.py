"""The solution as a function of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.autocast import without_autocast
from dyn_numerics.ode.interpolants.polynomial import evaluate, evaluate_derivative
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import under_vmap

__all__ = ["DenseSolution"]


class DenseSolution:
    """A piecewise polynomial through the accepted steps, of the method's own dense order.

    Attributes:
        t: The ends of the accepted steps, `[n + 1]`, in the dtype of times; monotone in the direction of the solve. Under
            `stepping="per_sample"` it is `[n + 1, batch]`, every column filled up with its last time.
        coefficients: The polynomials in the position in a step, from 0 to 1, lowest power first, `[n, *lead, p + 1, N]`.

    Example:
        >>> import torch
        >>> from dyn_numerics import odeint
        >>> dense = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], rtol=1e-6, save="dense").dense
        >>> dense(torch.tensor([0.25, 0.5])).shape, round(dense.derivative(0.5).item(), 4)
        (torch.Size([2, 1]), -0.6065)
    """

    def __init__(self, t: Tensor, coefficients: Tensor, layout: StateLayout) -> None:
        self.t = t
        self.coefficients = coefficients
        self._layout = layout

    def __call__(self, t: Tensor | Sequence[float] | float) -> Any:
        """The state at any times of the solved span.

        Args:
            t: Times, any shape; under `stepping="per_sample"` one that broadcasts against `[batch]`, which is its last
                dimension. Times that only rounding in their own dtype puts outside the solved span count as inside.

        Returns:
            The state, with the shape of `t` in front of that of `x0`; per sample, `t`'s dimension of samples is `x0`'s.

        Raises:
            ValueError: If a time is outside the solved span; under `torch.func.vmap`, where nobody can read it, the state
                is NaN there.
        """
        with without_autocast(self.t.device.type):
            piece, theta, _ = self._locate(t)
            return self._layout.unflatten(evaluate(piece, theta).to(self._layout.dtype))

    def derivative(self, t: Tensor | Sequence[float] | float) -> Any:
        """The time derivative of the interpolated state, in state units per time unit; as `__call__`."""
        with without_autocast(self.t.device.type):
            piece, theta, dt = self._locate(t)
            slope = evaluate_derivative(piece, theta) / dt.to(theta.dtype).unsqueeze(-1)
            return self._layout.unflatten(slope.to(self._layout.dtype))

    def without(self, lost: Tensor) -> DenseSolution:
        """The same, NaN where there is no solution.

        Args:
            lost: Which problems have none, `[]`, or `[batch]` under `stepping="per_sample"`.
        """
        return DenseSolution(self.t, torch.where(lost[..., None, None], torch.nan, self.coefficients), self._layout)

    def _locate(self, t: Tensor | Sequence[float] | float) -> tuple[Tensor, Tensor, Tensor]:
        """The polynomials `[..., p + 1, N]` that hold the times, the positions `[...]` in them, and their lengths."""
        lead = self.t.shape[1:]
        times = torch.as_tensor(t, dtype=self.t.dtype, device=self.t.device)
        given = t.dtype if isinstance(t, Tensor) and t.is_floating_point() else times.dtype
        if lead:
            if times.dim() and times.shape[-1] not in (1, *lead):
                raise ValueError(
                    f"t: got shape {list(times.shape)}, expected one that broadcasts against the batch {list(lead)}; "
                    f"try t[:, None] for the same times for every sample"
                )
            times = times.expand(torch.broadcast_shapes(times.shape, lead))  # type: ignore[no-untyped-call]
        with torch.no_grad():
            low, high = self.t.aminmax(dim=0)
            rounding = torch.finfo(given).eps * torch.maximum(low.abs(), high.abs())
            inside = (times >= low - rounding) & (times <= high + rounding)
            if not under_vmap() and not bool(inside.all()):
                spans = f"[{low.tolist()}, {high.tolist()}]" if not lead else "the columns of .t"
                raise ValueError(f"t: got times outside the solved span, expected {spans}")
            direction = torch.where(self.t[-1] >= self.t[0], 1, -1)
            ends = (self.t[1:] * direction).movedim(0, -1).contiguous()  # [*lead, n]
            ahead = (times * direction).reshape(-1, *lead).movedim(0, -1).contiguous()  # [*lead, m]
            at = torch.searchsorted(ends, ahead).movedim(-1, 0).clamp(max=len(self.t) - 2)  # [m, *lead]
        start, end = (t.gather(0, at).reshape(times.shape) for t in (self.t[:-1], self.t[1:]))
        piece = self.coefficients[(at, *(torch.arange(n, device=at.device) for n in lead))]
        piece = piece.reshape(*times.shape, *piece.shape[-2:])
        dt = torch.where(end == start, 1, end - start)
        return piece, torch.where(inside, (times - start) / dt, torch.nan), dt
