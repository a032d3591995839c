"""The user's vector field as the numerics see it: on flat states, and checked."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dyn_numerics.ode.stepper import FlatField
from dyn_numerics.ode.times import is_differentiable
from dyn_numerics.transforms import transform_depth, without_transforms
from dyn_numerics.user_function import UserFunction

__all__ = ["Counter", "SampledField", "UserField", "WatchedField"]


class SampledField(Protocol):
    """A vector field on flat states `[*lead, N]`."""

    def __call__(self, t: Tensor, x: Tensor) -> Tensor: ...

    def take(self, samples: Tensor | None) -> SampledField:
        """The field of some of the samples, whose indices are `[m]`; with None that of all, for another solve."""


class UserField(UserFunction):
    """A field `f(t, x, *args)` as a function of flat states, under the autocast of whoever makes this.

    Args:
        f: The user's field.
        args: Its extra arguments.
        layout: Layout of the state.
        name: What it is called in messages.
    """

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """Evaluates the field.

        Args:
            t: Time, `[*lead]`.
            x: State, `[*lead, N]`.

        Raises:
            TypeError: If it returns another structure or dtype than the state's.
            ValueError: If it returns another shape or device, or writes into the state or into what it returned before.
        """
        layout, shape, lead = self._layout, self._shape, x.shape[:-1]
        slope = self.value(t, x)
        if (
            shape is not None
            and isinstance(slope, Tensor)
            and slope.shape == (*lead, *shape)
            and slope.dtype == layout.dtype
            and slope.device == layout.device
        ):
            flat = slope if len(shape) == 1 else slope.reshape_as(x)
        else:
            try:
                layout.check("f", slope, lead)
            except ValueError as error:
                if lead != layout.lead:
                    error.add_note(
                        "With compact=True the batch shrinks: pass what belongs to samples as PerSample in args."
                    )
                raise
            flat = layout.flatten(slope)
        self._refuse_overwritten(flat)
        return flat


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
    def differentiable(self) -> bool:
        """Whether any value so far could be differentiated, of this field or of one that was taken from it."""
        return self._noticed["differentiable"]

    def take(self, samples: Tensor | None) -> WatchedField:
        """The field of some of the samples, whose indices are `[m]`; with None that of all."""
        twin = WatchedField(self._f.take(samples), self.differentiable)
        twin._noticed = self._noticed
        return twin

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """Evaluates the field; with gradient only until it is known to have one."""
        if transform_depth() > self._depth:  # the method differentiates it: a detached value has the derivative zero
            slope = self._f(t, x)
            self._noticed["differentiable"] = self.differentiable or without_transforms(slope).requires_grad
            return slope
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.differentiable):
            slope = self._f(t, x)
            self._noticed["differentiable"] = self.differentiable or is_differentiable(slope)
        return slope.detach()


class Counter:
    """Counts the calls of a field.

    Attributes:
        calls: Number of calls so far.
    """

    def __init__(self, f: FlatField) -> None:
        self._f = f
        self.calls = 0

    @property
    def uncounted(self) -> FlatField:
        """The field itself."""
        return self._f

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self._f(t, x)
