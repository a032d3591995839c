"""What a solve is told to keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Save"]

_STATES = ("t_span", "steps", "dense")


@dataclass(frozen=True)
class Save:
    """What a solve keeps, as `odeint(..., save=Save(...))`.

    Args:
        states: `"t_span"`: the states at the output times; `"steps"`: those at the ends of the accepted steps; or
            `"dense"`: those at the output times, and the solution as a function of time.
        internals: Whether to keep every accepted step's size, error estimate and estimate of stiffness as
            `Solution.internals`, differentiable, for use as regularisers.

    Raises:
        TypeError: If `internals` is no truth value.
        ValueError: If `states` is none of these.

    Example:
        >>> import torch
        >>> from dyn_numerics import Save, odeint
        >>> rate = torch.tensor(3.0, requires_grad=True)
        >>> sol = odeint(lambda t, x: -rate * x, torch.ones(1), [0.0, 1.0], save=Save(internals=True))
        >>> cost = sol.x[-1].sum() + 1e-3 * (sol.internals.error * sol.internals.dt).sum()
        >>> cost.backward()
        >>> round(rate.grad.item(), 3)
        -0.05
    """

    states: Literal["t_span", "steps", "dense"] = "t_span"
    internals: bool = False

    def __post_init__(self) -> None:
        if self.states not in _STATES:
            raise ValueError(f"save: got {self.states!r}, expected 't_span', 'steps', 'dense' or a Save(...)")
        if not isinstance(self.internals, bool):
            raise TypeError(f"internals: got a {type(self.internals).__name__}, expected a truth value")

    @property
    def only_outputs(self) -> bool:
        """Whether nothing is kept but the states at the output times."""
        return self.states == "t_span" and not self.internals

    @classmethod
    def of(cls, save: str | Save) -> Save:
        """What a user asks for, by a name or as it is."""
        return save if isinstance(save, Save) else cls(save)  # type: ignore[arg-type]
