"""The interface of an iterative method: from one iterate to the next.

A stepper works on flat iterates `[batch, N]`, is handed whatever it wants to remember as `carry`, and never learns whether
a line search shortens its steps, when the iteration ends or who differentiates it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from dyn_numerics.pytree_state import StateLayout

__all__ = ["Context", "FlatFunction", "Proposal", "RootStepper"]

FlatFunction = Callable[[Tensor], Tensor]
"""A residual `f(z)` on flat iterates: `[batch, N]` to `[batch, N]`."""


class Context(NamedTuple):
    """What is known of an iterate.

    Attributes:
        value: The residual there, `f(z)`, `[batch, N]`.
        norm: Its root mean square, `[batch]`.
        n_steps: Steps that led there, an integer, or inside of `torch.compile` a tensor `[]`. Samples that have ended
            earlier are not counted apart.
        args: The extra arguments of the user's function, as it receives them.
        layout: How the user's state lies in the vectors.
        running: Which samples have not ended, `[batch]`; what is proposed for the others does not matter.
    """

    value: Tensor
    norm: Tensor
    n_steps: int | Tensor
    args: tuple[Any, ...]
    layout: StateLayout
    running: Tensor


class Proposal(NamedTuple):
    """Where a method wants to go.

    Attributes:
        z: The next iterate, `[batch, N]`. A line search may stop on the way there.
        carry: What the next step wants to know.
        value: The residual there, if the method has evaluated it.
        status: Code of a `RootStatus` where the method cannot go on, `[batch]`, 0 elsewhere; such a sample stays where
            it is.
        n_evals: Calls of `f` that the step made. Compiled programs add these up; elsewhere they are counted.
        internals: What a training may want to see of the step, a pytree of tensors that lead with the batch; `unroll` keeps
            it, a search does not.
    """

    z: Tensor
    carry: Any
    value: Tensor | None = None
    status: Tensor | None = None
    n_evals: int | Tensor = 0
    internals: Any = ()


class RootStepper(nn.Module, ABC):
    """An iterative method for `f(z) = 0`, every sample a problem of its own. Subclass it to plug in your own, neural or not.

    For a fixed point of `h` the residual is `f(z) = h(z) - z`.

    `carry` is a pytree whose tensors lead with the batch; what is no tensor in it stays as it is. It is handed on once, so
    that under `torch.no_grad()` a step may write into it. What else a method may do and may not, `RootStepperContract` of
    `dyn_numerics.contracts` tests.

    Attributes:
        searches: Whether a line search may shorten its steps.
        differentiable: Whether gradients flow through its steps.
        takes_complex: Whether iterates may be complex.
        closes_in: Whether the method comes nearer to a root whatever the residual does; a sample then has only stagnated
            once its iterate stays where it is.
    """

    searches: bool = True
    differentiable: bool = True
    takes_complex: bool = True
    closes_in: bool = False

    def start(self, z: Any, *args: Any) -> Any:
        """Returns where to start; the given start, unless the method knows better, as a learned one may.

        Args:
            z: Start, in the user's structure.
            *args: The extra arguments of the user's function.
        """
        return z

    def init(self, z: Tensor, context: Context) -> Any:
        """Makes the first `carry`; by default there is none.

        Args:
            z: Start, `[batch, N]`.
            context: What is known of it.
        """
        return None

    @abstractmethod
    def step(self, f: FlatFunction, z: Tensor, carry: Any, context: Context) -> Proposal:
        """Proposes the next iterate.

        Args:
            f: Residual of flat iterates.
            z: Iterate, `[batch, N]`.
            carry: What the last step handed on, or `init`.
            context: What is known of the iterate.
        """
