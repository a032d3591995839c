"""Gradients through the accepted steps, with memory for a given number of states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import comb
from typing import Any, ClassVar

from torch import Tensor

from dyn_numerics import Solution
from dyn_numerics.arguments import positive_integer
from dyn_numerics.ode.observer import AttemptedStep
from dyn_numerics.ode.repetition import Chain
from dyn_sensitivity.ode.stepwise import StepwiseAlgorithm
from dyn_sensitivity.ode.trail import Trail, Walk

__all__ = ["RecursiveCheckpoint", "steps_to_checkpoint"]


class RecursiveCheckpoint(StepwiseAlgorithm):
    """Backpropagates through the accepted steps from states that are stored at some of them (binomial checkpointing).

    The gradient is *exact*: that of the computed numbers with the accepted step sizes held fixed, as `Autograd` has it, for
    every solver, stepping and controller. Memory holds `budget` states with what the method carries from step to step, the
    graph of one step, and what the outputs are made of. From the state before it every other step is taken again; with
    `budget` states, `comb(budget + r, r)` steps need at most `r` repetitions of each: of 32 states, 1 up to 33 steps, 2 up to
    561, 3 up to 6545. The number of steps need not be known: the solve is done first, without gradient, and its steps once more to store states.

    Gradients reach `x0`, `t_span`, the tensors in `args` and `params`, the parameters of modules that `f` and events hold, and
    a trainable solver or controller; `f` is refused if it depends on other differentiable tensors. A field that draws random
    numbers draws the same ones again. Second derivatives, forward mode and `torch.func` are those of `Autograd`, with its
    memory. Not inside of `torch.compile`.

    Args:
        budget: Number of states that are stored.

    Raises:
        ValueError: If the budget is not a positive integer.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import RecursiveCheckpoint, odeint
        >>> x0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
        >>> sol = odeint(lambda t, x: -x, x0, [0.0, 1.0], sensitivity=RecursiveCheckpoint(4), rtol=1e-9, atol=1e-9)
        >>> sol.x[-1].sum().backward()
        >>> round(x0.grad.item(), 6)
        0.367879

    References:
        - A. Griewank, A. Walther: Algorithm 799: Revolve, ACM Transactions on Mathematical Software 26 (2000).
        - P. Stumm, A. Walther: New algorithms for optimal online checkpointing, SIAM J. Sci. Comput. 32 (2010).
    """

    name: ClassVar[str] = "checkpoint"

    def __init__(self, budget: int = 32) -> None:
        positive_integer("budget", budget, "a positive number of states; try 32")
        self.budget = budget

    def __repr__(self) -> str:
        return f"RecursiveCheckpoint({self.budget})"

    def trail(self, chain: Chain) -> Trail:
        return _Checkpoints(len(chain), self.budget)

    def solve_compiled(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Solution:
        raise ValueError(
            "sensitivity: got 'checkpoint' inside torch.compile, where a loop cannot go over its own steps again; use "
            "'autograd', which there stores one state for each step and computes the rest again, or 'adjoint'"
        )


def steps_to_checkpoint(n: int, states: int) -> int:
    """How many of `n` steps to go before the next state is stored, so that the fewest steps are taken again.

    Args:
        n: Number of steps that are to be gone back, more than one.
        states: Number of states that may be stored, the one at the start of these steps included; more than one.
    """
    repetitions = 1
    while comb(states + repetitions, states) < n:
        repetitions += 1
    behind = comb(states - 1 + repetitions, states - 1)  # most steps that the other states go back as often
    fewest = comb(states + repetitions - 2, states) if repetitions > 1 else 1
    return max(n - behind, fewest, 1)


class _Checkpoints:
    """Stored links, the first not among them: it is known anyway.

    Args:
        n: Number of steps.
        budget: Number of states that may be stored.
    """

    def __init__(self, n: int, budget: int) -> None:
        self._n, self._budget = n, budget
        self.kept: Any = {}
        self._next = self._after(0, n, budget)

    def passed(self, i: int, link: Any, attempted: AttemptedStep) -> None:
        """Stores the link before a step where one is to be stored."""
        if i == self._next:
            self.kept[i] = link
            self._next = self._after(i, self._n, self._budget - len(self.kept))

    def arrived(self, link: Any) -> None:
        """The last states are nothing to go back from."""

    def back(self, walk: Walk, kept: Any) -> Iterator[tuple[int, Any]]:
        """Takes the steps again from the last stored link before each, and stores others on the way as there is room."""
        stored = {0: None, **kept}
        for i in reversed(range(1, self._n)):
            at = max(stored)
            link, place = stored[at], self._after(at, i + 1, self._budget - len(stored) + 1)
            while at < i:
                link, at = walk.forth(at, link), at + 1
                if at == place:
                    stored[at] = link
                    place = self._after(at, i + 1, self._budget - len(stored) + 1)
            stored.pop(i, None)
            yield i, link

    def _after(self, at: int, end: int, states: int) -> int | None:
        """Where to store the next link after one that is stored, to go back from `end`; None if there is no room."""
        return at + steps_to_checkpoint(end - at, states) if states > 1 and end - at > 1 else None
