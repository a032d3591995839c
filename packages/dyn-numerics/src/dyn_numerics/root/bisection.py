"""Bisection."""

from __future__ import annotations

from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from dyn_numerics.loop import count_from_zero, repeat, when
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.root.root_status import RootStatus
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper

__all__ = ["Bisection"]

MOST_DOUBLINGS = 64


class Bracket(NamedTuple):
    """Between which numbers a root lies, for every element; all tensors are `[batch, N]`.

    Attributes:
        lower: The lower end.
        upper: The upper end.
        at_lower: The residual at the lower end.
        at_upper: The residual at the upper end.
    """

    lower: Tensor
    upper: Tensor
    at_lower: Tensor
    at_upper: Tensor

    @property
    def holds_root(self) -> Tensor:
        """Whether the residual changes its sign, or is zero at an end."""
        rises = (self.at_lower <= 0) & (self.at_upper >= 0)
        return rises | ((self.at_lower >= 0) & (self.at_upper <= 0))

    def cut(self, z: Tensor, value: Tensor) -> Bracket:
        """The part that holds the root, of a bracket that does and is cut at a point inside of it.

        Args:
            z: Where to cut, `[batch, N]`.
            value: The residual there, `[batch, N]`.
        """
        inside = (self.lower < z) & (z < self.upper) & self.holds_root
        same = value.sign() == self.at_lower.sign()
        raises, lowers = inside & same, inside & ~same
        return Bracket(
            torch.where(raises, z, self.lower),
            torch.where(lowers, z, self.upper),
            torch.where(raises, value, self.at_lower),
            torch.where(lowers, value, self.at_upper),
        )

    def unless(self, replaced: Tensor, other: Bracket) -> Bracket:
        """The bracket, or another where it is replaced, `[batch, N]`."""
        return Bracket(*(torch.where(replaced, new, old) for new, old in zip(other, self, strict=True)))

    def middle(self) -> Tensor:
        """Where to cut it; the end with the smaller residual where that is zero, or where there is no number inside."""
        middle = 0.5 * self.lower + 0.5 * self.upper  # the sum of the ends may not be a number
        at_lower, at_upper = self.at_lower.abs(), self.at_upper.abs()
        inside = (self.lower < middle) & (middle < self.upper) & (torch.minimum(at_lower, at_upper) > 0)
        return torch.where(inside, middle, torch.where(at_lower <= at_upper, self.lower, self.upper))


class Bisection(RootStepper):
    """Bisection: halves a bracket at whose ends the signs differ, until there is no number inside.

    For functions whose elements depend on one unknown each, `g(z)[i] = g_i(z[i])`: every element has a bracket of its own.
    Converges linearly at the rate 1/2, whatever the function, with one evaluation a step and two for the ends; its jumps and
    poles count as sign changes, and end as stagnation at the last digit. A sample without a sign change in each of its
    elements ends with `RootStatus.NO_SIGN_CHANGE`.

    The start `z0` is evaluated first, and is the first cut if it is inside of the bracket. Without a bracket one is looked
    for around it, at distances that are doubled until the sign differs from that at the start, which takes two evaluations
    each; of two sides at the same distance the upper one is taken.

    Args:
        lower: Lower ends of the brackets, a number, or a tensor that broadcasts against `z0`, which then must be a tensor.
        upper: Upper ends.

    Raises:
        TypeError: If an end is neither a number nor a tensor of real numbers; in a search, if it is a tensor and the state
            a pytree.
        ValueError: If there is only one end, if one is not finite, or the lower not below the upper; in a search, if it does
            not broadcast.

    Example:
        >>> import torch
        >>> from dyn_numerics import Bisection, root_find
        >>> target = torch.tensor([[2.0], [3.0]], dtype=torch.float64)
        >>> z, stats = root_find(lambda z: z**2 - target, torch.ones(2, 1).double(), solver=Bisection(0.0, target))
        >>> [round(v, 6) for v in z.squeeze(1).tolist()]
        [1.414214, 1.732051]

    References:
        R. P. Brent: Algorithms for Minimization without Derivatives, Prentice-Hall 1973, chapter 4, for what can be known of
        a root by signs.
    """

    searches = False
    differentiable = False
    takes_complex = False
    closes_in = True

    def __init__(self, lower: float | Tensor | None = None, upper: float | Tensor | None = None) -> None:
        super().__init__()
        if (lower is None) != (upper is None):
            raise ValueError(
                f"{'upper' if upper is None else 'lower'}: got None, expected both ends of the bracket, or neither for one "
                f"that is looked for around z0"
            )
        if lower is not None and upper is not None:
            _check_bracket(lower, upper)
        self.lower = lower
        self.upper = upper

    def extra_repr(self) -> str:
        ends = {"lower": self.lower, "upper": self.upper}
        return ", ".join(f"{name}={_words(end)}" for name, end in ends.items() if end is not None)

    def init(self, z: Tensor, context: Context) -> Bracket:
        if self.lower is None or self.upper is None:
            return Bracket(z, z, context.value, context.value)
        none = torch.zeros_like(z)
        return Bracket(
            _spread("lower", self.lower, z, context.layout), _spread("upper", self.upper, z, context.layout), none, none
        )

    def step(self, f: FlatFunction, z: Tensor, carry: Bracket, context: Context) -> Proposal:
        bracket, n_evals = when(
            context.n_steps == 0, lambda: self._first(f, carry, context.running), lambda: (carry, 0)
        )
        bracket = bracket.cut(z, context.value)
        status = torch.where(bracket.holds_root.all(dim=-1), 0, RootStatus.NO_SIGN_CHANGE.code)
        unknown = (torch.isnan(bracket.at_lower) | torch.isnan(bracket.at_upper)).any(dim=-1)
        status = torch.where(unknown, RootStatus.NON_FINITE.code, status)
        return Proposal(bracket.middle(), bracket, status=status, n_evals=n_evals)

    def _first(self, f: FlatFunction, bracket: Bracket, running: Tensor) -> tuple[Bracket, int | Tensor]:
        """The bracket with the residual at its ends, and the calls of it."""
        if self.lower is None:
            return _around(f, bracket, running)
        return bracket._replace(at_lower=f(bracket.lower), at_upper=f(bracket.upper)), 2


def _around(f: FlatFunction, start: Bracket, running: Tensor) -> tuple[Bracket, int | Tensor]:
    """Brackets with the start at one end, of the elements that have any, and the calls of the residual."""
    z, value = start.lower, start.at_lower

    def searching(n_evals: int | Tensor, distance: Tensor, bracket: Bracket) -> Tensor:
        return running.unsqueeze(-1) & ~bracket.holds_root & (n_evals < 2 * MOST_DOUBLINGS)

    def farther(n_evals: int | Tensor, distance: Tensor, bracket: Bracket) -> tuple[int | Tensor, Tensor, Bracket]:
        below, above = z - distance, z + distance
        for side in (Bracket(z, above, value, f(above)), Bracket(below, z, f(below), value)):
            bracket = bracket.unless(side.holds_root & ~bracket.holds_root, side)
        return n_evals + 2, 2 * distance, bracket

    n_evals, _, bracket = repeat(searching, farther, (count_from_zero(z), 0.1 * z.abs().clamp(min=1), start))
    return bracket, n_evals


def _spread(name: str, end: float | Tensor, z: Tensor, layout: StateLayout) -> Tensor:
    """An end of the brackets of all elements, `[batch, N]`; what is too large for the dtype is its largest number."""
    numbers = _as_tensor(end).detach()
    if numbers.dim() and not layout.is_single_tensor:
        raise TypeError(f"{name}: got a tensor with a z0 that is a pytree, expected a number")
    shape = (len(z), *layout.shapes[0]) if layout.is_single_tensor else tuple(z.shape)
    if numbers.dim() > len(shape) or any(
        n not in (1, m) for n, m in zip(reversed(numbers.shape), reversed(shape), strict=False)
    ):
        raise ValueError(
            f"{name}: got shape {list(numbers.shape)}, expected one that broadcasts against z0, {list(shape)}"
        )
    return torch.nan_to_num(numbers.to(z).expand(shape).reshape(z.shape))


def _check_bracket(lower: float | Tensor, upper: float | Tensor) -> None:
    for name, end in (("lower", lower), ("upper", upper)):
        if isinstance(end, Tensor):
            if not end.is_floating_point():
                raise TypeError(f"{name}: got a tensor of {end.dtype}, expected a number or a floating tensor")
        elif isinstance(end, bool) or not isinstance(end, Real):
            raise TypeError(f"{name}: got a {type(end).__name__}, expected a number or a floating tensor")
    if torch.compiler.is_compiling():
        return  # their values cannot be read
    for name, end in (("lower", lower), ("upper", upper)):
        if not bool(torch.isfinite(_as_tensor(end)).all()):
            raise ValueError(f"{name}: got {_words(end)}, expected finite numbers")
    try:
        below = _as_tensor(lower) < _as_tensor(upper)
    except RuntimeError:
        raise ValueError(
            f"lower: got {_words(lower)}, expected what broadcasts against upper, {_words(upper)}"
        ) from None
    if not bool(below.all()):
        raise ValueError(f"lower: got {_words(lower)}, expected less than upper, {_words(upper)}")


def _as_tensor(end: float | Tensor) -> Tensor:
    return end if isinstance(end, Tensor) else torch.tensor(end, dtype=torch.float64)


def _words(end: float | Tensor) -> str:
    """A number itself, or what kind of tensor it is."""
    if isinstance(end, Tensor) and end.numel() > 1:
        return f"a tensor of shape {list(end.shape)}"
    return f"{float(end):g}"
