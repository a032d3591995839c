"""The user's vector field as the numerics see it: on flat states, and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from dyn_numerics.dtypes import cast
from dyn_numerics.ode.split_field import Part, Split
from dyn_numerics.ode.times import is_differentiable
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.transforms import transform_depth, without_transforms
from dyn_numerics.user_function import UserFunction

__all__ = ["Counter", "HalfField", "SampledField", "SplitUserField", "UserField", "WatchedField", "flat_field"]


class SampledField(Protocol):
    """A vector field on flat states `[*lead, N]`."""

    @property
    def n_parts(self) -> int:
        """How many of the user's functions make one value."""

    def __call__(self, *args: Any, **options: Any) -> Tensor:
        """Its value at `(t, x)`; of a split field also what one part says there, at `(t, x, part)`."""

    def take(self, samples: Tensor | None) -> SampledField:
        """The field of some of the samples, whose indices are `[m]`; with None that of all, for another solve."""


class UserField(UserFunction):
    """A field `f(t, x, *args)` as a function of flat states, under the autocast of whoever makes this.

    Args:
        f: The user's field.
        args: Its extra arguments.
        layout: Layout of the state.
        name: What it is called in messages.
        slopes: Layout of the slope, if it is another.
    """

    n_parts = 1

    def __init__(
        self,
        f: Callable[..., Any],
        args: Sequence[Any],
        layout: StateLayout,
        name: str = "f",
        slopes: StateLayout | None = None,
    ) -> None:
        super().__init__(f, args, layout, name)
        self._slopes = layout if slopes is None else slopes
        self._slope_shape = self._slopes.shapes[0] if self._slopes.is_single_tensor else None

    def take(self, samples: Tensor | None) -> Self:
        twin = super().take(samples)
        twin._slopes, twin._slope_shape = self._slopes, self._slope_shape
        return twin

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """Evaluates the field.

        Args:
            t: Time, `[*lead]`.
            x: State, `[*lead, N]`.

        Raises:
            TypeError: If it returns another structure or dtype than the state's.
            ValueError: If it returns another shape or device, or writes into the state or into what it returned before.
        """
        layout, shape, lead = self._slopes, self._slope_shape, x.shape[:-1]
        slope = self.value(t, x)
        if (
            shape is not None
            and isinstance(slope, Tensor)
            and slope.shape == (*lead, *shape)
            and slope.dtype == layout.dtype
            and slope.device == layout.device
        ):
            flat = slope if len(shape) == 1 else slope.reshape(*lead, layout.size)
        else:
            try:
                layout.check(self._name, slope, lead)
            except ValueError as error:
                if lead != layout.lead:
                    error.add_note(
                        "With compact=True the batch shrinks: pass what belongs to samples as PerSample in args."
                    )
                raise
            flat = layout.flatten(slope)
        self._refuse_overwritten(flat)
        return flat


class HalfField:
    """A function of one half of the state that is the slope of the other, as a field on the whole state.

    Args:
        f: The function on flat halves.
        dtype: Dtype of the half that it takes.
        n_q: Number of elements of the first half.
        of_q: Whether it takes that one and returns the slope of the other.
    """

    n_parts = 1

    def __init__(self, f: UserField, dtype: torch.dtype, n_q: int, of_q: bool) -> None:
        self._f, self._dtype, self._n_q, self._of_q = f, dtype, n_q, of_q

    def take(self, samples: Tensor | None) -> HalfField:
        """The field of some of the samples, whose indices are `[m]`; with None that of all, for another solve."""
        return HalfField(self._f.take(samples), self._dtype, self._n_q, self._of_q)

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """Evaluates the function; as `UserField`, with zero where it says nothing."""
        n_q, n_p = self._n_q, x.shape[-1] - self._n_q
        half = x[..., :n_q] if self._of_q else x[..., n_q:]
        slope = self._f(t, cast(half, self._dtype)).to(x.dtype)
        return pad(slope, (n_q, 0) if self._of_q else (0, n_p))


class SplitUserField:
    """A split field as functions of flat states: of all, `f(t, x)`, or of a part, `f(t, x, part)`.

    A part says what it adds to the slope of the state: the whole is the sum of both.

    Args:
        a: One part.
        b: The other.
    """

    n_parts = 2

    def __init__(self, a: SampledField, b: SampledField) -> None:
        self._parts: dict[Part, SampledField] = {"a": a, "b": b}

    def take(self, samples: Tensor | None) -> SplitUserField:
        """The field of some of the samples, whose indices are `[m]`; with None that of all, for another solve."""
        return SplitUserField(*(part.take(samples) for part in self._parts.values()))

    def __call__(self, t: Tensor, x: Tensor, *part: Part) -> Tensor:
        """Evaluates the field, or one part of it; as `UserField`."""
        first, *others = (self._parts[name](t, x) for name in part or self._parts)
        return sum(others, first)


def flat_field(
    f: Callable[..., Any], args: Sequence[Any], layout: StateLayout, split: Split | None
) -> UserField | SplitUserField:
    """A user's field on flat states.

    Args:
        f: The field; a `SplitField` if it is split.
        args: Its extra arguments.
        layout: Layout of the state.
        split: How the method wants it.

    Raises:
        TypeError: If the state is no pair where one is wanted.
        ValueError: If a half of it has no leaf.
    """
    if split is None:
        return UserField(f, args, layout)
    a, b = f.a, f.b  # type: ignore[attr-defined]
    if split == "additive":
        return SplitUserField(UserField(a, args, layout, "f.a"), UserField(b, args, layout, "f.b"))
    q, p = layout.pair()
    return SplitUserField(
        HalfField(UserField(a, args, p, "f.a", slopes=q), p.dtype, q.size, of_q=False),
        HalfField(UserField(b, args, q, "f.b", slopes=p), q.dtype, q.size, of_q=True),
    )


class WatchedField:
    """A field without gradient that notices whether it has one: then the solve has to be repeated with it.

    Args:
        f: The field.
        differentiable: Whether that is known already.
    """

    def __init__(self, f: SampledField, differentiable: bool) -> None:
        self._f = f
        self._noticed = {"differentiable": differentiable}
        self._depth = transform_depth()

    @property
    def n_parts(self) -> int:
        """How many of the user's functions make one value."""
        return self._f.n_parts

    @property
    def differentiable(self) -> bool:
        """Whether any value so far could be differentiated, of this field or of one that was taken from it."""
        return self._noticed["differentiable"]

    def take(self, samples: Tensor | None) -> WatchedField:
        """The field of some of the samples, whose indices are `[m]`; with None that of all."""
        twin = WatchedField(self._f.take(samples), self.differentiable)
        twin._noticed = self._noticed
        return twin

    def __call__(self, t: Tensor, x: Tensor, *part: Part) -> Tensor:
        """Evaluates the field; with gradient only until it is known to have one."""
        if transform_depth() > self._depth:  # the method differentiates it: a detached value has the derivative zero
            slope = self._f(t, x, *part)
            self._noticed["differentiable"] = self.differentiable or without_transforms(slope).requires_grad
            return slope
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.differentiable):
            slope = self._f(t, x, *part)
            self._noticed["differentiable"] = self.differentiable or is_differentiable(slope)
        return slope.detach()


class Counter:
    """Counts the calls of a field, or of the functions of a split one.

    Attributes:
        calls: Number of calls so far.
    """

    def __init__(self, f: SampledField) -> None:
        self._f = f
        self.calls = 0

    @property
    def uncounted(self) -> SampledField:
        """The field itself."""
        return self._f

    def __call__(self, t: Tensor, x: Tensor, *part: Part) -> Tensor:
        self.calls += len(part) or self._f.n_parts
        return self._f(t, x, *part)
