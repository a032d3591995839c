"""What a solve is told to keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

__all__ = ["Form", "Save"]

Form = Literal["t_span", "steps", "dense"]
"""A form in which a solution is kept."""

_FORMS = ("t_span", "steps", "dense")


@dataclass(frozen=True)
class Save:
    """What a solve keeps, as `odeint(..., save=Save(...))`.

    Args:
        states: `"t_span"`: the states at the output times; `"steps"`: those at the ends of the accepted steps, as
            `Solution.steps`; `"dense"`: those at the output times, and the solution as a function of time, as
            `Solution.dense`; or a tuple of these names. `Solution.t` and `Solution.x` are at the output times, unless
            `"steps"` is all there is: then they are at the steps.
        internals: Whether to keep every accepted step's size, error estimate and estimate of stiffness as
            `Solution.internals`, differentiable, for use as regularisers.
        fn: What to keep of a state instead of the state itself: a function `fn(t, x)`, which receives time and state as
            the field does and returns a floating or complex tensor or a pytree of such, always of the same shapes. Per
            sample they lead with the batch. Only what it returns is kept, step by step. `Solution.dense` stays a function
            for the whole state.

    Raises:
        TypeError: If `internals` is no truth value, or `fn` no function.
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
        >>> norm = Save(("t_span", "steps"), fn=lambda t, x: x.norm())
        >>> sol = odeint(lambda t, x: -x, torch.ones(1000), torch.linspace(0, 1, 5), save=norm)
        >>> sol.x.shape, sol.steps.x.shape == sol.steps.t.shape
        (torch.Size([5]), True)
    """

    states: Form | tuple[Form, ...] = "t_span"
    internals: bool = False
    fn: Callable[[Tensor, Any], Any] | None = None

    def __post_init__(self) -> None:
        forms = self.states if isinstance(self.states, tuple) else (self.states,)
        if not forms or any(form not in _FORMS for form in forms):
            raise ValueError(
                f"save: got {self.states!r}, expected 't_span', 'steps', 'dense' or a Save(...) of one, or of a tuple of them"
            )
        if not isinstance(self.internals, bool):
            raise TypeError(f"internals: got a {type(self.internals).__name__}, expected a truth value")
        if not (self.fn is None or callable(self.fn)):
            raise TypeError(f"fn: got a {type(self.fn).__name__}, expected a function fn(t, x) of time and state")
        # In one order, so that what keeps the same is equal.
        object.__setattr__(self, "states", tuple(form for form in _FORMS if form in forms))

    def keeps(self, form: Form) -> bool:
        """Whether the solution is kept in that form."""
        return form in self.states

    @property
    def outputs(self) -> bool:
        """Whether anything is kept at the output times; otherwise at the steps alone."""
        return self.states != ("steps",)

    @property
    def every_step(self) -> bool:
        """Whether something is kept of every step."""
        return self.states != ("t_span",) or self.internals

    @property
    def only_outputs(self) -> bool:
        """Whether nothing is kept but the states at the output times."""
        return not self.every_step and self.fn is None

    @classmethod
    def of(cls, save: Form | Save) -> Save:
        """What a user asks for, by a name or as it is."""
        if isinstance(save, tuple):
            raise ValueError(f"save: got {save!r}, expected a name or a Save(...); try Save({save!r})")
        return save if isinstance(save, Save) else cls(save)
