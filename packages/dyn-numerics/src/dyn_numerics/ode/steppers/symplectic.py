"""The engine that steps every symmetric composition on a split field."""

from __future__ import annotations

from torch import Tensor

from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.scalar import Scalar, over_state
from dyn_numerics.ode.stepper import FlatField, Step, Stepper
from dyn_numerics.ode.tableaus.symmetric_composition import SymmetricComposition
from dyn_numerics.ode.times import state_time

__all__ = ["Symplectic"]


class Symplectic(Stepper):
    """Steps a symmetric composition: explicit, symplectic, time-reversible, in fixed steps.

    It steps a `SplitField(a, b)` on a state `(q, p)`, with `dq/dt = a(t, p)` and `dp/dt = b(t, q)`. Where these are
    derivatives of an energy `H = T(t, p) + V(t, q)`, a step preserves the symplectic form, so that an energy that does not
    depend on time stays within a bound over exponentially long times. Both parts may depend on time, at full order: one
    is evaluated at the nodes where the other has been stepped to.

    The outer part is evaluated once less than there are substeps, since the last of a step is the next one's first. Dense
    output is a cubic through the slopes at both ends, of which it evaluates the inner parts: steps without an output do
    without.

    Args:
        composition: The method.

    Attributes:
        composition: The composition.
        order: Its order.

    Example:
        >>> import torch
        >>> from dyn_numerics import SplitField, odeint
        >>> from dyn_numerics.ode.steppers.symplectic import Symplectic
        >>> from dyn_numerics.ode.tableaus.splitting import VERLET
        >>> oscillator = SplitField(lambda t, p: p, lambda t, q: -q)
        >>> start = torch.tensor(1.0), torch.tensor(0.0)
        >>> t, (q, p) = odeint(oscillator, start, [0.0, 3.141593], solver=Symplectic(VERLET), step_size=0.01)
        >>> round(q[-1].item(), 3)
        -1.0

    References:
        Hairer, Lubich, Wanner: Geometric Numerical Integration, 2nd ed. (2006), sections II.5, V.3 and IX.8.
    """

    split = "partitioned"
    dense_evals = 2

    def __init__(self, composition: SymmetricComposition) -> None:
        super().__init__()
        self.composition = composition
        self.order = composition.order
        self._lengths = [float(length) for length in composition.lengths]
        self._outer_lengths = [float(length) for length in composition.outer_lengths]
        self._outer_before_end = [float(1 - node) for node in composition.outer_nodes[1:]]
        self._inner_before_end = [float(1 - node) for node in composition.inner_nodes]

    def extra_repr(self) -> str:
        return f"{self.composition.name}, order={self.order}"

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> Tensor:
        return f(t, x, self.composition.outer)

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Tensor) -> Step:
        outer, inner, dt = self.composition.outer, self.composition.inner, t1 - t0
        narrow, wide = x.dtype, wide_dtype(x.dtype)

        def slope(before_end: float, part: str) -> Tensor:
            return f(state_time(t1 - before_end * dt, x), at.to(narrow), part).to(wide)

        first, *others = (over_state(length * dt, x.to(wide)) for length in self._outer_lengths)
        at = x.to(wide) + first * carry.to(wide)
        for length, node, end, outer_length in zip(
            self._lengths, self._inner_before_end, self._outer_before_end, others, strict=True
        ):
            at = at + over_state(length * dt, at) * slope(node, inner)
            last = slope(end, outer)
            at = at + outer_length * last
        return Step(at.to(narrow), None, last.to(narrow), carry, carry)

    def inverse_step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """Undoes `step`: a symmetric method does so by a step back in time.

        Args:
            f: Vector field, as in `step`.
            t0: Start of the step that is undone.
            t1: Its end.
            x: State at `t1`, `[*lead, N]`.
            carry: What the step handed on.

        Returns:
            State and carry at `t0`, up to rounding.
        """
        step = self.step(f, t1, t0, x, carry)
        return step.x, step.carry

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return step

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        dtype, inner = self.dense_dtype(x0), self.composition.inner
        start, end = x0.to(dtype), step.x.to(dtype)
        first = step.stages.to(dtype) + f(state_time(t0, x0), x0, inner).to(dtype)
        last = step.carry.to(dtype) + f(state_time(t1, x0), step.x, inner).to(dtype)
        return cubic_hermite(start, end, first, last, over_state(t1 - t0, start))
