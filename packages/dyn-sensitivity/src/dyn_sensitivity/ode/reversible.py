"""Gradients through the steps of a reversible method, which are undone on the way back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from math import inf, isfinite, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from dyn_numerics import Solution, Stepper
from dyn_numerics.constant_numbers import with_constant_numbers
from dyn_numerics.ode.arguments import refuse_compiled
from dyn_numerics.ode.observer import AttemptedStep
from dyn_numerics.ode.repetition import Chain
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_sensitivity.ode import compiled_reversible
from dyn_sensitivity.ode.stepwise import StepwiseAlgorithm
from dyn_sensitivity.ode.trail import Trail, Walk

__all__ = ["Reversible"]


class Reversible(StepwiseAlgorithm):
    """Backpropagates through the accepted steps of a reversible method, and finds the states before them by undoing these.

    The gradient is *exact*: that of the computed numbers with the accepted step sizes held fixed, but for what rounding makes
    of a step that is undone. Memory holds one state, the ends of the steps, the graph of one step, and what the outputs are
    made of; also the states before events and before jumps of the field, which have no inverse. A step costs another
    on the way there, after a solve without gradient, and an inverse one on the way back, beside what it costs `Autograd`. Steps that contract strongly are undone badly: if the start is not found again, a warning
    says by how much.

    Gradients reach what they reach with `RecursiveCheckpoint`. Second derivatives, forward mode and `torch.func` are those of
    `Autograd`, with its memory. Inside of `torch.compile` there is a first-order gradient and no such warning; stops at
    which the field jumps are refused there.

    The solver is `"reversible_heun"`, `"alf"` or a `ReversibleRungeKutta`, or one of the symplectic methods, whose steps have
    an inverse as well.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import odeint
        >>> x0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
        >>> options = {"solver": "reversible_heun", "sensitivity": "reversible", "rtol": 1e-6, "atol": 1e-6}
        >>> odeint(lambda t, x: -x, x0, [0.0, 1.0], **options).x[-1].sum().backward()
        >>> round(x0.grad.item(), 4)
        0.3679

    References:
        - J. Zhuang et al.: MALI: A memory efficient and reverse accurate integrator for Neural ODEs, ICLR 2021.
        - P. Kidger, J. Foster, X. Li, T. Lyons: Efficient and Accurate Gradients for Neural SDEs, NeurIPS 2021.
        - S. McCallum, J. Foster: Efficient, Accurate and Stable Gradients for Neural ODEs (2024), arXiv:2410.11648.
    """

    name: ClassVar[str] = "reversible"

    def __repr__(self) -> str:
        return "Reversible()"

    def refuse(self, solver: Stepper) -> None:
        if type(solver).inverse_step is Stepper.inverse_step:
            raise ValueError(
                f"solver: got {type(solver).__name__} with sensitivity='reversible', which has no exact inverse step; use "
                f"'reversible_heun', 'alf' or ReversibleRungeKutta(...), or sensitivity='checkpoint' with this one"
            )

    def refuse_random(self) -> None:
        raise ValueError(
            "f: draws random numbers, such as a dropout in training mode, with sensitivity='reversible', whose inverse steps "
            "would draw others; use sensitivity='checkpoint', or eval()"
        )

    def trail(self, chain: Chain) -> Trail:
        return _Steps(chain)

    def solve_compiled(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Solution:
        refuse_compiled(**{name: options[name] for name in ("save", "events", "compact", "progress", "callbacks")})
        self.refuse(stepper(options["solver"]))
        return with_constant_numbers(lambda: compiled_reversible.solve(f, x0, t_span, args, options))


class _Steps:
    """What it takes to undo the steps of a chain."""

    def __init__(self, chain: Chain) -> None:
        self.kept: Any = []
        self._to_undo = chain.to_undo

    def passed(self, i: int, link: Any, attempted: AttemptedStep) -> None:
        """Keeps what the chain wants to know of a step."""
        self.kept.append(self._to_undo(link, attempted) if i else None)

    def arrived(self, link: Any) -> None:
        """Keeps the link to begin from."""
        self.kept.append(link)

    def back(self, walk: Walk, kept: Any) -> Iterator[tuple[int, Any]]:
        """Undoes the steps from the last one on."""
        *kept, end = kept
        link = end
        for i in reversed(range(1, len(walk))):
            link = walk.back(i, link, kept[i])
            yield i, link
        if len(walk) > 1:
            _check_drift(link.x, walk.forth(0, None).x, end.x, len(walk))


def _check_drift(found: Tensor, known: Tensor, end: Tensor, n: int) -> None:
    """Compares the state behind the first step, as it was found by undoing all others, with what it is, in every problem.

    Args:
        found: The state as it was found, `[*lead, N]`.
        known: What it is.
        end: The last one, whose size counts where that of the first is small.
        n: Number of steps.

    Raises:
        RuntimeError: If it is not finite.
    """
    size = torch.maximum(known.abs(), end.abs()).sum(-1)
    away = (found - known).abs().sum(-1)
    drift = torch.where(away == 0, 0, away / size).nan_to_num(inf).amax().item() if found.numel() else 0.0
    remedy = "use sensitivity='checkpoint', shorter steps, or a ReversibleRungeKutta with a coupling nearer to 1"
    if not isfinite(drift):
        raise RuntimeError(
            f"sensitivity='reversible': undoing {n} steps led to states that are not finite, where the forward solve had some; "
            f"{remedy}"
        )
    if drift > 10 * sqrt(torch.finfo(known.dtype).eps):
        warnings.warn(
            f"sensitivity='reversible': undoing {n} steps led {drift:.1e} of the state's size away from where the forward solve "
            f"came from, so that the gradient is not exact; {remedy}",
            stacklevel=2,
        )
