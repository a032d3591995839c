"""Exact gradients of a solve whose accepted steps are taken again, after it has run without gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

import dyn_numerics
from dyn_numerics import Solution
from dyn_numerics.ode.observer import AttemptedStep
from dyn_numerics.ode.odeint import solve_repeating
from dyn_numerics.ode.posed import Posed, pose
from dyn_numerics.ode.repetition import Chain, replay
from dyn_numerics.ode.save import Save
from dyn_numerics.ode.saver import Saver
from dyn_numerics.transforms import in_forward_mode, under_transform
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.random_state import RandomState
from dyn_sensitivity.ode.step_randomness import StepRandomness
from dyn_sensitivity.ode.tensor_tree import TensorTree

__all__ = ["RepeatingAlgorithm", "TakenSteps"]


class TakenSteps(NamedTuple):
    """What comes of steps that were taken again.

    Attributes:
        outputs: The last link and a list of what is looked at, `SeenStep`s, without their tensors.
        tensors: These.
        steps: What observers see of the steps that are looked at, without these tensors.
        n_evals: Calls of `f`.
    """

    outputs: TensorTree
    tensors: Sequence[Tensor]
    steps: Sequence[AttemptedStep]
    n_evals: int


TakeSteps = Callable[[Chain, Tensor, Sequence[bool], StepRandomness], TakenSteps]
"""Takes the steps of a chain from a start `[*lead, N]`, told which of them are looked at, and what they draw."""


class RepeatingAlgorithm(SensitivityAlgorithm):
    """An algorithm that takes the accepted steps again. Subclasses say how these get their gradient.

    Attributes:
        name: As users call it.
    """

    exact: ClassVar[bool] = True
    name: ClassVar[str]

    @abstractmethod
    def steps_of(
        self,
        f: Callable[..., Any],
        posed: Posed,
        posing: dict[str, Any],
        args: tuple[Any, ...],
        params: tuple[Tensor, ...],
    ) -> TakeSteps | None:
        """What takes the steps again; None where nothing wants a gradient.

        Args:
            f: The user's field.
            posed: The problem.
            posing: Arguments of `pose` beside `f`, state, times and args.
            args: Further arguments of `f`.
            params: Tensors that `f` captures and that want gradients.
        """

    @abstractmethod
    def solve_compiled(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Solution:
        """As `solve`, inside of torch.compile with gradients enabled."""

    def refuse_options(self, options: dict[str, Any]) -> None:
        """Refuses what the algorithm does not go with.

        Args:
            options: Arguments of `dyn_numerics.odeint` beside `f`, state, times and args.

        Raises:
            ValueError: If there is some.
        """
        if Save.of(options["save"]).internals:
            raise ValueError(
                f"save: got internals=True with sensitivity={self.name!r}, which keeps no estimates of single steps; use "
                f"sensitivity='autograd'"
            )
        if options["compact"]:
            raise ValueError(
                f"compact: got True with sensitivity={self.name!r}, which repeats the steps of the whole batch; leave it out, "
                f"or use sensitivity='autograd'"
            )

    def refuse_problem(self, posed: Posed) -> None:
        """Refuses a problem that the algorithm does not go with.

        Args:
            posed: The problem.

        Raises:
            ValueError: If it is one.
        """

    def solve(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        *,
        args: tuple[Any, ...],
        params: tuple[Tensor, ...],
        **options: Any,
    ) -> Solution:
        """As `SensitivityAlgorithm.solve`.

        Raises:
            ValueError: If gradients are wanted and the algorithm does not go with the problem, estimates of the solver are to
                be kept, samples are to leave the batch, or `f` captures a differentiable tensor that it does not know.
        """
        if not torch.is_grad_enabled():
            return dyn_numerics.odeint(f, x0, t_span, args=args, **options)
        if torch.compiler.is_compiling():
            return self.solve_compiled(f, x0, t_span, args, options)
        handed = {name: options[name] for name in ("progress", "callbacks", "throw")}
        posing = {name: option for name, option in options.items() if name not in (*handed, "compact")}
        self.refuse_options(options)
        posed = pose(f, x0, t_span, args=args, **posing)
        self.refuse_problem(posed)
        # Transforms and forward mode differentiate the plain solve, which has the same gradient.
        transformed = under_transform() or in_forward_mode()
        take_steps = None if transformed else self.steps_of(f, posed, posing, args, params)
        if take_steps is None:
            return dyn_numerics.odeint(f, x0, t_span, args=args, **options)
        before = RandomState(posed.layout.device)

        def repeat(chain: Chain, start: Tensor, saver: Saver, observed: Sequence[bool]) -> tuple[Tensor, Any, int]:
            if not len(chain):
                return replay(chain, start, [saver])
            taken = take_steps(chain, start, observed, StepRandomness(before))
            last, seen = taken.outputs.put(taken.tensors)
            for attempted, values in zip(taken.steps, seen, strict=True):
                saver.observe(values.shown(attempted))
            return last.x, last.carry, taken.n_evals

        return solve_repeating(repeat, posed, **handed)
