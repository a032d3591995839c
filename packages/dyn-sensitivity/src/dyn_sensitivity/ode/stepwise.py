"""Exact gradients of a solve whose steps are taken again one by one, from the last to the first.

The solve itself runs without gradient. Its steps are a chain of pure functions from link to link; to pull a gradient back
through one of them takes the link before it, and nothing of the others. Algorithms differ in where they have it from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from dyn_numerics import Stepper
from dyn_numerics.autocast import autocast_of_caller
from dyn_numerics.ode.attempt import Problem
from dyn_numerics.ode.posed import Posed, pose
from dyn_numerics.ode.repetition import Chain
from dyn_numerics.per_sample import bare_arguments
from dyn_sensitivity.captured_tensors import captured_buffers, refuse_undeclared
from dyn_sensitivity.ode.held_tensors import event_functions, held_tensors
from dyn_sensitivity.ode.repeating_algorithm import RepeatingAlgorithm, TakenSteps, TakeSteps
from dyn_sensitivity.ode.step_randomness import StepRandomness
from dyn_sensitivity.ode.stepwise_solve import StepwiseSolve
from dyn_sensitivity.ode.tensor_tree import TensorTree
from dyn_sensitivity.ode.trail import Trail

__all__ = ["StepwiseAlgorithm"]


class StepwiseAlgorithm(RepeatingAlgorithm):
    """An algorithm that pulls back single steps. Subclasses say where the states before them come from."""

    @abstractmethod
    def trail(self, chain: Chain) -> Trail:
        """What remembers the chain."""

    def refuse(self, solver: Stepper) -> None:
        """Refuses a method whose steps it cannot go back.

        Raises:
            ValueError: If it is one.
        """

    def refuse_random(self) -> None:
        """Refuses a field that draws random numbers, if the algorithm cannot make it draw them again.

        Raises:
            ValueError: If it cannot.
        """

    def refuse_problem(self, posed: Posed) -> None:
        self.refuse(posed.problem.stepper)

    def steps_of(
        self,
        f: Callable[..., Any],
        posed: Posed,
        posing: dict[str, Any],
        args: tuple[Any, ...],
        params: tuple[Tensor, ...],
    ) -> TakeSteps | None:
        layout, autocast = posed.layout, autocast_of_caller(posed.layout.device.type)
        arguments, wanted = TensorTree.of(args, lambda tensor: tensor.requires_grad)
        n_placed = 2 + len(wanted)
        inputs = [posed.times, posed.start, *wanted, *held_tensors(f, posed, posing["events"], params)]
        if not any(tensor.requires_grad for tensor in inputs):
            return None
        leaves = tree_leaves(bare_arguments(args))
        constants = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not leaf.requires_grad]
        others = event_functions(posing["events"], posed.problem.controller)

        def problem_of(times: Tensor, start: Tensor, *tensors: Tensor) -> Problem:
            with autocast():
                return pose(f, layout.unflatten(start), times, args=arguments.put(tensors), **posing).problem

        def take_steps(chain: Chain, start: Tensor, observed: Sequence[bool], randomness: StepRandomness) -> TakenSteps:
            if randomness:
                self.refuse_random()
            return StepwiseSolve(
                name=self.name,
                device=layout.device,
                chain=chain,
                observed=observed,
                randomness=randomness,
                problem_of=problem_of,
                n_placed=n_placed,
                constants=[*constants, *captured_buffers(f)],
                trail_of=self.trail,
                refuse_undeclared=partial(refuse_undeclared, f, others=others),
            ).taken(inputs)

        return take_steps
