"""The interface of a numerical method: one step from t0 to t1.

A stepper is pure. It works on flat states `[*lead, N]`, where `lead` is `[]` for one problem and `[batch]` for one in
every row, is handed whatever it wants to remember as `carry`, and never learns why the step is taken, whether it will be
accepted or who differentiates it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from dyn_numerics.arguments import kind_of
from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.ode.scalar import Flag, Scalar
from dyn_numerics.ode.split_field import Split

if TYPE_CHECKING:
    from dyn_numerics.ode.solve_context import SolveContext

__all__ = ["FlatField", "Step", "Stepper", "Work", "in_loop"]

FlatField = Callable[..., Tensor]
"""A vector field `f(t, x)` on flat states `[*lead, N]`; `t` is `[*lead]` in the real dtype of the state.

A split one is also `f(t, x, part)`: what the function `"a"` or `"b"` of the `SplitField` adds to the slope of the state,
`[*lead, N]`; on a state `(q, p)` it is zero where the function says nothing.
"""


def in_loop(f: FlatField) -> FlatField:
    """The field for a loop within a step: inside of a compiled program nobody can count its calls there (`Step.n_evals`)."""
    return getattr(f, "uncounted", f) if torch.compiler.is_compiling() else f


class Work(NamedTuple):
    """What an implicit step took, of every problem: numbers or int64 tensors `[*lead]`.

    Attributes:
        n_jacobians: Jacobians.
        n_factorisations: Factorisations of a matrix made of one.
        n_iterations: Newton iterations.
    """

    n_jacobians: Any
    n_factorisations: Any
    n_iterations: Any

    def plus(self, running: Flag, more: Work | None) -> Work:
        """The sum with that of another step, where a problem is running."""
        return self if more is None else Work(*(a + running * b for a, b in zip(self, more, strict=True)))


class Step(NamedTuple):
    """What one step found.

    Attributes:
        x: State at `t1`, `[*lead, N]`.
        error: Estimate of the local error of `x`, `[*lead, N]` in state units, or None when the method has none.
        carry: What the next step wants to know when this one is accepted.
        retry: What a shorter step from the same start wants to know when this one is rejected.
        stages: What `interpolant` and `stiffness` want to know of the step; the method's own.
        failed: Why the step found no solution, as one of a method that `may_fail`: the code of a `Status`, a number or
            `[*lead]`, and 0 where it did. It is rejected then, and if shorter steps fail as well, that is how the solve ends.
            None of a method that always finds one.
        work: What an implicit step took; None of others.
        n_evals: Calls of `f` in loops inside of a compiled program, which nobody else sees: a number or `[]`.
    """

    x: Tensor
    error: Tensor | None
    carry: Any
    retry: Any
    stages: Any
    failed: Any = None
    work: Work | None = None
    n_evals: Any = 0


class Stepper(nn.Module, ABC):
    """A method that takes steps. Subclass it to plug in your own, neural or not.

    `carry` and `retry` are a tensor, None or a tuple of such. Tensors whose first dimensions are `lead` belong to the
    problems; a loop that selects picks `carry` or `retry` for each of them, so both have the same structure where times are
    tensors.

    Attributes:
        order: Order of convergence of the solution.
        error_order: Order of the error estimate's lower solution, so that the estimate is O(dt^(error_order + 1));
            None when the method has no estimate and steps on a fixed grid.
        dense_degree: Degree of the polynomial that `interpolant` returns; 3 unless a method sets another.
        dense_evals: Calls of `f` that `interpolant` makes.
        one_step: Whether a step follows from the state at its start, so that it can be taken again from there; False where
            the `carry` knows more of the steps before than the field there.
        implicit: Whether steps are found by solving equations: each then says what `work` it took.
        may_fail: Whether a step may find no solution, as those of implicit methods may: each then says whether it `failed`.
        loops: Whether steps are found by loops, which a compiled program has no gradients through.
        structured: Whether the method wants to know how the user's state lies in its vectors (see `on`). It then steps no
            other states along with that one, such as the continuous adjoint's.
        split: What the method makes of a `SplitField`, which it then steps and nothing else: `"partitioned"`, the slopes of
            the halves of a state `(q, p)`, or `"additive"`, two terms; None for a method that steps any other field.
    """

    order: int
    error_order: int | None = None
    dense_degree: int = 3
    dense_evals: int = 0
    one_step: bool = True
    implicit: bool = False
    may_fail: bool = False
    loops: bool = False
    structured: bool = False
    split: Split | None = None

    def on(self, context: SolveContext) -> Self:
        """Returns the method for such a solve: itself, unless tolerances or the structure of the state matter to it.

        A solve whose samples leave the batch asks what this returned for the method of those that stay.

        Args:
            context: The layout of the state, the extra arguments and the norm of errors.
        """
        return self

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> Any:
        """Makes the first `carry`; evaluates `f` only if the method wants its value and nobody has it.

        Args:
            f: Vector field `f(t, x)` on flat states.
            t: Start time, `[*lead]` in the state's real dtype.
            x: Start state, `[*lead, N]`.
            slope: `f(t, x)`, `[*lead, N]`, if it has been evaluated already.
        """
        return None

    @abstractmethod
    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Any) -> Step:
        """Takes one step.

        Args:
            f: Vector field `f(t, x)` on flat states; `t` is `[*lead]` in the state's real dtype.
            t0: Start of the step, a host number or a float64 tensor `[*lead]`.
            t1: End of the step; earlier than `t0` in reversed time. `f` is not evaluated outside `[t0, t1]`.
            x: State at `t0`, `[*lead, N]`.
            carry: From `init`, or from the step before.
        """

    def dense_dtype(self, x: Tensor) -> torch.dtype:
        """Dtype of the coefficients that `interpolant` returns for states like `x`: theirs or a wider one."""
        return wide_dtype(x.dtype)

    def inverse_step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """Undoes `step` exactly: returns state and carry at `t0` from those at `t1`.

        Raises:
            TypeError: If the method is not reversible.
        """
        raise TypeError(f"solver: got {kind_of(self)}, which has no exact inverse step, expected a reversible method")

    def measure_error(self, step: Step, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """Size of the step's error in units of the tolerance, `[*lead]`; a method with several estimates combines them.

        Args:
            step: The step; its `error` is not None.
            norm: Measures an estimate `[*lead, N]` in units of the tolerance, `[*lead]`; not finite where the step is not.
        """
        return norm(step.error)  # type: ignore[arg-type]

    def stiffness(self, step: Step) -> Tensor | None:
        """Estimates the largest magnitude of an eigenvalue of the field's Jacobian, `[*lead]` per time unit, if it can.

        Args:
            step: The step, completed.
        """
        return None

    @abstractmethod
    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        """Adds to a step what `interpolant` needs (for example `f` at its end) and a step does without.

        An evaluation made here must be reused by the next step, through `carry`.
        """

    @abstractmethod
    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        """Coefficients `[*lead, dense_degree + 1, N]` of a completed step, as a polynomial in (t - t0) / (t1 - t0).

        They are in `dense_dtype`. A method of high order may evaluate `f` for them, within
        `[t0, t1]`; the solve asks for them in steps that hold an output, if it can tell.

        Args:
            f: Vector field, as in `step`.
            t0: Start of the step, as in `step`.
            t1: End of the step.
            x0: State at `t0`, `[*lead, N]`.
            step: What `complete` returned.
        """
