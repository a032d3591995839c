"""How far to go along a step: the interface of line searches, and backtracking after Armijo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dyn_numerics.arguments import kind_of, positive, positive_integer
from dyn_numerics.loop import count_from_zero, repeat
from dyn_numerics.norms import rms_norm_at_any_scale
from dyn_numerics.root.root_stepper import Context, FlatFunction
from dyn_numerics.transforms import in_forward_mode

__all__ = ["Armijo", "LineSearch", "Searched", "line_search_by_name"]


class Searched(NamedTuple):
    """Where a line search ended.

    Attributes:
        z: The iterate, `[batch, N]`; where it was before for a sample whose residual falls nowhere along its step.
        value: The residual there, `[batch, N]`.
        n_evals: Calls of the function.
    """

    z: Tensor
    value: Tensor
    n_evals: int | Tensor


class LineSearch(nn.Module, ABC):
    """Shortens steps until the residual falls: `z + length * direction`, with a length for each sample.

    Every trial is one evaluation for all samples; those that have found their length wait. A length is only accepted if the
    residual is finite and smaller than before, whatever the search says. Subclass it to plug in your own, learned or not.

    Args:
        max_trials: How many lengths are tried at most.

    Raises:
        ValueError: If `max_trials` is not a positive integer.
    """

    def __init__(self, max_trials: int = 30) -> None:
        super().__init__()
        self.max_trials = positive_integer("max_trials", max_trials)

    def first_length(self, direction: Tensor, context: Context) -> Tensor:
        """The length that is tried first, `[batch]`; 1 unless a search knows better.

        Args:
            direction: The step that the method proposes, `[batch, N]`.
            context: What is known of the iterate.
        """
        return torch.ones_like(context.norm)

    @abstractmethod
    def accepts(self, length: Tensor, norm: Tensor, context: Context) -> Tensor:
        """Whether to accept lengths, `[batch]`.

        Args:
            length: Lengths that were tried, `[batch]`.
            norm: Norms of the residuals there, `[batch]`.
            context: What is known of the iterate.
        """

    @abstractmethod
    def next_length(self, length: Tensor, norm: Tensor, context: Context) -> Tensor:
        """The lengths to try next, `[batch]`, of samples whose last ones were not accepted.

        Args:
            length: Lengths that were tried, `[batch]`.
            norm: Norms of the residuals there, `[batch]`; maybe not finite.
            context: What is known of the iterate.
        """

    def search(self, f: FlatFunction, z: Tensor, direction: Tensor, context: Context) -> Searched:
        """Goes along a direction as far as the residual falls.

        Lengths are found without gradient, but for the first, and so is the residual.

        Args:
            f: Residual of flat iterates.
            z: Iterate, `[batch, N]`.
            direction: Where the method wants to go, `[batch, N]`.
            context: What is known of the iterate.
        """
        size = rms_norm_at_any_scale(direction.detach())
        stands = ~((size > 0) & (size < torch.inf))  # there is nowhere to go
        # What is not finite is not shown to a search that learns: its parameters, which all samples share, would be NaN.
        direction = torch.where(stands.unsqueeze(-1), 0, direction)
        first = self.first_length(direction, context)
        with torch.no_grad():
            length, value, n_trials = self._backtrack(f, z, direction, torch.where(stands, 0, first), stands, context)
        length = length.detach()  # forward-mode derivatives know of no torch.no_grad()
        if torch.is_grad_enabled() or in_forward_mode():
            length = torch.where(length > 0, length / first.detach(), 0) * first
        return Searched(_along(z, length, direction), value, n_trials)

    def _backtrack(
        self, f: FlatFunction, z: Tensor, direction: Tensor, first: Tensor, stands: Tensor, context: Context
    ) -> tuple[Tensor, Tensor, int | Tensor]:
        """The lengths, `[batch]`, 0 where none was found, the residuals there, and the calls of `f`."""

        def going(i: int | Tensor, length: Tensor, value: Tensor, done: Tensor) -> Tensor:
            return ~done & (i < self.max_trials)

        def tried(length: Tensor) -> tuple[Tensor, Tensor]:
            value = f(_along(z, length, direction))
            norm = rms_norm_at_any_scale(value)
            return value, (norm < context.norm) & self.accepts(length, norm, context)

        def shorten(
            i: int | Tensor, length: Tensor, value: Tensor, done: Tensor
        ) -> tuple[int | Tensor, Tensor, Tensor, Tensor]:
            shorter = self.next_length(length, rms_norm_at_any_scale(value), context)
            length = torch.where(done, length, shorter)
            value, accepted = tried(length)
            return i + 1, length, value, accepted | done

        value, accepted = tried(first)
        n_trials = count_from_zero(z) + 1
        i, length, value, done = repeat(going, shorten, (n_trials, first, value, accepted | stands))
        value = torch.where(done.unsqueeze(-1), value, context.value)
        return torch.where(done, length, 0), value, i


def _along(z: Tensor, length: Tensor, direction: Tensor) -> Tensor:
    """The point at a length along a direction that need not be finite where the length is zero."""
    length = length.unsqueeze(-1)
    return torch.where(length > 0, z + length * direction, z)


class Armijo(LineSearch):
    """Backtracking until the residual has fallen by a fraction of what a Newton step promises.

    A length `s` is accepted if `|f(z + s d)| <= (1 - decrease * s) |f(z)|`. The next one is where the parabola through the
    squared residuals and the slope of a Newton step is least, between a tenth and a half of the last one.

    Args:
        decrease: The fraction.
        max_trials: How many lengths are tried at most.

    Raises:
        TypeError: If `decrease` is not a number.
        ValueError: If `decrease` is not between 0 and 1, or `max_trials` not a positive integer.

    Example:
        >>> import torch
        >>> from dyn_numerics import Armijo, root_find
        >>> far = torch.full((1, 1), 3.0)  # where Newton's method alone diverges
        >>> z, stats = root_find(torch.atan, far, solver="newton", line_search=Armijo())
        >>> bool(z.abs() < 1e-3)
        True

    References:
        L. Armijo: Minimization of functions having Lipschitz continuous first partial derivatives, Pacific J. Math. 16
        (1966) 1-3. C. T. Kelley: Iterative Methods for Linear and Nonlinear Equations, SIAM 1995, section 8.3.1.
    """

    def __init__(self, decrease: float = 1e-4, max_trials: int = 30) -> None:
        super().__init__(max_trials)
        self.decrease = positive("decrease", decrease, "a number between 0 and 1")
        if self.decrease >= 1:
            raise ValueError(f"decrease: got {decrease}, expected a number between 0 and 1")

    def accepts(self, length: Tensor, norm: Tensor, context: Context) -> Tensor:
        return norm <= (1 - self.decrease * length) * context.norm

    def next_length(self, length: Tensor, norm: Tensor, context: Context) -> Tensor:
        growth = (norm / context.norm) ** 2 - 1  # of the squared residual, relative
        least = length / (growth / length + 2)
        best = torch.minimum(torch.maximum(least, 0.1 * length), 0.5 * length)
        return torch.where(torch.isfinite(growth), best, 0.1 * length)


def line_search_by_name(line_search: str | LineSearch | None) -> LineSearch | None:
    """Returns the line search of that name, or itself.

    Args:
        line_search: `"armijo"`, a line search, or None.

    Raises:
        ValueError: If there is no such name.
        TypeError: If it is none of these.
    """
    if line_search is None or isinstance(line_search, LineSearch):
        return line_search
    if not isinstance(line_search, str):
        raise TypeError(
            f"line_search: got {kind_of(line_search)}, expected 'armijo', a dyn_numerics.LineSearch or None"
        )
    if line_search != "armijo":
        raise ValueError(f"line_search: got {line_search!r}, expected 'armijo', a dyn_numerics.LineSearch or None")
    return Armijo()
