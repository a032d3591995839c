"""Broyden's quasi-Newton method with limited memory."""

from __future__ import annotations

from math import isfinite
from numbers import Real
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.arguments import positive_integer
from dyn_numerics.linear.jacobian_operator import JacobianOperator
from dyn_numerics.loop import when
from dyn_numerics.root.history import combination, products, write
from dyn_numerics.root.newton import newton_step
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper

__all__ = ["Broyden"]

LARGEST_EXACT = 64


class Updates(NamedTuple):
    """The inverse Jacobian as Broyden's method remembers it: `H = H0 + sum of u v^H`.

    Attributes:
        u: `[batch, memory - 1, N]`.
        v: `[batch, memory - 1, N]`.
        last_z: The last iterate, `[batch, N]`.
        last_value: The residual there, `[batch, N]`.
        inverse: `H0`, `[batch, N, N]`; for a multiple of the identity `[batch, 1, 1]`, or a number that all share.
    """

    u: Tensor
    v: Tensor
    last_z: Tensor
    last_value: Tensor
    inverse: Tensor | float

    def product(self, vector: Tensor, count: int | Tensor) -> Tensor:
        """The inverse Jacobian times a vector, both `[batch, N]`.

        Args:
            vector: The vector.
            count: Number of updates that the memory holds; those in its first places.
        """
        return _product(self.inverse, *_learned(self, count), vector)


class Broyden(RootStepper):
    """Broyden's method: a Jacobian that learns from every step, kept as an inverse of low rank.

    Each step corrects the inverse so that it explains the last change of the residual, and changes it as little as possible:
    the Jacobian with `update="good"`, the inverse itself with `"bad"`. Converges superlinearly near a root with a regular
    Jacobian. One evaluation a step.

    The memory holds the last iterate and its residual, and `memory - 1` updates of two vectors: `2 * memory * batch * N`
    numbers in all. When it is full, all updates are forgotten, and the method starts again where it is, with a Jacobian from
    there: to forget single updates would spoil the others, which were made for an inverse that holds them.

    Args:
        memory: Pairs of vectors that are kept.
        update: `"good"` (Broyden's first method) or `"bad"` (his second).
        jacobian: The Jacobian at the start. A number stands for that multiple of the identity; -1 is right for `h(z) - z`
            where `h` hardly depends on `z`. `"exact"` is differentiated there and inverted, which takes `batch * N * N`
            numbers more, and `"scaled"` is the multiple of the identity that fits the residual's own direction; each is one
            call of the function. `"auto"` is exact for up to 64 unknowns, and scaled beyond.

    Raises:
        TypeError: If `jacobian` is neither a number nor a name.
        ValueError: If an argument is out of its range.

    Example:
        >>> import torch
        >>> from dyn_numerics import Broyden, fixed_point
        >>> z, stats = fixed_point(torch.cos, torch.ones(1, 1).double(), solver=Broyden(memory=4), rtol=1e-10, atol=1e-10)
        >>> round(z.item(), 10)
        0.7390851332

    References:
        C. G. Broyden: A class of methods for solving nonlinear simultaneous equations, Math. Comp. 19 (1965) 577-593.
        C. T. Kelley: Iterative Methods for Linear and Nonlinear Equations, SIAM 1995, chapter 7.
    """

    def __init__(
        self,
        memory: int = 16,
        update: Literal["good", "bad"] = "good",
        jacobian: float | Literal["exact", "scaled", "auto"] = "auto",
    ) -> None:
        super().__init__()
        self.memory = positive_integer("memory", memory)
        if self.memory < 2:
            raise ValueError(f"memory: got {memory}, expected at least 2: the last iterate and one update")
        if update not in ("good", "bad"):
            raise ValueError(f"update: got {update!r}, expected 'good' or 'bad'")
        expected = "expected a number other than 0, 'exact', 'scaled' or 'auto'"
        if isinstance(jacobian, str):
            if jacobian not in ("exact", "scaled", "auto"):
                raise ValueError(f"jacobian: got {jacobian!r}, {expected}")
        elif isinstance(jacobian, bool) or not isinstance(jacobian, Real):
            raise TypeError(f"jacobian: got a {type(jacobian).__name__}, {expected}")
        elif not (jacobian and isfinite(jacobian)):
            raise ValueError(f"jacobian: got {jacobian}, {expected}")
        self.update = update
        self.jacobian = jacobian

    def extra_repr(self) -> str:
        return f"memory={self.memory}, update={self.update!r}, jacobian={self.jacobian!r}"

    def init(self, z: Tensor, context: Context) -> Updates:
        batch, size = z.shape
        u, v = (z.new_zeros(batch, self.memory - 1, size) for _ in range(2))
        inverse: Tensor | float
        if isinstance(self.jacobian, str):
            inverse = z.new_zeros(batch, size, size) if self._is_exact(size) else z.new_zeros(batch, 1, 1)
        else:
            inverse = 1 / self.jacobian
        return Updates(u, v, z, context.value, inverse)

    def step(self, f: FlatFunction, z: Tensor, carry: Updates, context: Context) -> Proposal:
        value, inverse = context.value, carry.inverse
        renews, n_evals = isinstance(self.jacobian, str), 0
        age = context.n_steps % (self.memory - 1)  # steps since the memory was empty
        if renews:
            inverse, n_evals = when(age == 0, lambda: (self._inverse(f, z, value), 1), lambda: (carry.inverse, 0))
        u, v = _learned(carry, age)
        step, change = z - carry.last_z, value - carry.last_value
        direction, changed = _product(inverse, u, v, value), _product(inverse, u, v, change)
        right = change
        if self.update == "good":
            right = _product(inverse.mH if isinstance(inverse, Tensor) else inverse, v, u, step)
        curvature = (right.conj() * change).sum(dim=-1, keepdim=True)
        learns = curvature != 0  # nothing is to be learned from a step that was not taken,
        if renews:
            learns = learns & (age > 0)  # or beside a Jacobian that has just been made
        left = torch.where(learns, (step - changed) / torch.where(learns, curvature, 1), 0)
        direction = direction + left * (right.conj() * value).sum(dim=-1, keepdim=True)
        updates = Updates(write(carry.u, age, left), write(carry.v, age, right), z, value, inverse)
        return newton_step(z, direction, updates, n_evals)

    def _is_exact(self, size: int) -> bool:
        return self.jacobian == "exact" or (self.jacobian == "auto" and size <= LARGEST_EXACT)

    def _inverse(self, f: FlatFunction, z: Tensor, value: Tensor) -> Tensor:
        """The inverse Jacobian at the start, `[batch, N, N]`, or its multiple of the identity, `[batch, 1, 1]`."""
        jacobian = JacobianOperator(f, z)
        if self._is_exact(z.shape[-1]):
            inverse, info = torch.linalg.inv_ex(jacobian.matrix())
            return torch.where((info == 0).reshape(-1, 1, 1), inverse, torch.nan)
        product = jacobian(value)
        fit: Tensor = (product.conj() * value).sum(dim=-1) / (product.conj() * product).sum(dim=-1)
        return fit.reshape(-1, 1, 1)


def _learned(updates: Updates, count: int | Tensor) -> tuple[Tensor, Tensor]:
    """The vectors of the first updates in the memory."""
    if isinstance(count, int):
        return updates.u[:, :count], updates.v[:, :count]
    valid = (torch.arange(updates.u.shape[1], device=updates.u.device) < count).unsqueeze(-1)
    return torch.where(valid, updates.u, 0), torch.where(valid, updates.v, 0)


def _product(inverse: Tensor | float, u: Tensor, v: Tensor, vector: Tensor) -> Tensor:
    """The product of `H0 + sum of u v^H` with a vector, `[batch, N]`."""
    learned = combination(products(v, vector), u)
    if not isinstance(inverse, Tensor):
        return vector * inverse + learned
    if inverse.shape[-1] == 1:
        return vector * inverse.squeeze(-1) + learned
    return (inverse * vector.unsqueeze(1)).sum(dim=-1) + learned
