"""Hypersolvers: a base method, and a network for what it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor

from dyn_numerics.arguments import kind_of
from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.scalar import Scalar, over_state
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.stepper import FlatField, Step, Stepper
from dyn_numerics.ode.steppers.explicit_runge_kutta import ExplicitRungeKutta
from dyn_numerics.ode.times import state_time
from dyn_numerics.pytree_state import StateLayout

__all__ = ["HyperStepper"]


class HyperStepper(Stepper):
    """Adds to each step of a base method of order p what a network makes of its start: `dt^(p+1) net(t, x, f(t, x))`.

    A network that knows the leading term of the base's local error raises the order by one; whatever it says, the order
    of the base remains. With an estimate of the base's error, the difference to its embedded solution, steps are
    adaptive: the correction counts in it, so that a network that is wrong makes steps shorter. The field is evaluated
    again at the corrected state, also where the base would reuse its last stage, and dense output is a cubic through
    the slopes at both ends.

    Args:
        base: An explicit Runge-Kutta method, trainable or not.
        net: Module or function `net(t, x, f)` of the time, the state and the slope at the start of the step, each as a
            field receives them: in the structure and shapes of the user's state, `t` as `[]`, or per sample as
            `[batch, 1, ...]` (`[batch]` for a pytree). It returns a correction in structure, shapes and dtypes of the
            state, in state units per time unit to the power p + 1. It computes outside of autocast. Steps in reversed
            time have a negative `dt`.

    Attributes:
        base: The base method.
        net: The network.
        order: Order of the base.
        error_order: Order of its error estimate, None without one.

    Raises:
        TypeError: If the base is no explicit Runge-Kutta method, or the net can't be called; in a solve, if the net
            returns another structure or dtype than the state's.
        ValueError: In a solve, if the net returns another shape or device than the state's.

    Example:
        >>> import torch
        >>> from dyn_numerics import Euler, HyperStepper, odeint
        >>> solver = HyperStepper(Euler(), lambda t, x, f: -f / 2)  # x'' / 2 where x' = -x
        >>> t, x = odeint(lambda t, x: -x, torch.ones(1), torch.linspace(0, 1, 11), solver=solver)
        >>> round(x[-1].item(), 3), round(0.9**10, 3)
        (0.369, 0.349)

    References:
        M. Poli, S. Massaroli, A. Yamashita, H. Asama, J. Park: Hypersolvers: Toward Fast Continuous-Depth Models,
        NeurIPS 2020, equation (5).
    """

    structured = True

    def __init__(self, base: ExplicitRungeKutta, net: Callable[[Tensor, Any, Any], Any]) -> None:
        super().__init__()
        if not isinstance(base, ExplicitRungeKutta):
            raise TypeError(f"base: got {kind_of(base)}, expected an explicit Runge-Kutta method; try Euler()")
        if not callable(net) or isinstance(net, type):
            raise TypeError(f"net: got {kind_of(net)}, expected a module or function net(t, x, f)")
        self.base = base
        self.net = net
        self.order = base.order
        self.error_order = base.error_order
        self._layout: StateLayout | None = None

    def on(self, context: SolveContext) -> Self:
        twin = type(self).__new__(type(self))  # copy.copy, as far as torch.compile can trace it
        twin.__dict__.update(self.__dict__)
        twin._layout = context.layout
        return twin

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> Tensor | None:
        return slope

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Tensor | None) -> Step:
        start = f(state_time(t0, x), x) if carry is None else carry
        step = self.base.step(f, t0, t1, x, start)
        wide = wide_dtype(x.dtype)
        scale = over_state((t1 - t0) ** (self.order + 1), x.to(wide))
        correction = scale * self._corrections(state_time(t0, x), x, start).to(wide)
        error = None if step.error is None else step.error + correction
        return step._replace(x=(step.x + correction).to(x.dtype), error=error, carry=None, retry=start)

    def _corrections(self, t: Tensor, x: Tensor, slope: Tensor) -> Tensor:
        """What the network says, `[*lead, N]`, of states and slopes `[*lead, N]`."""
        layout = StateLayout(x, "x", x.dim() > 1) if self._layout is None else self._layout
        own = x.clone(), slope.clone()  # which the network may write into
        said = self.net(layout.spread(t), *(layout.unflatten(vector) for vector in own))
        layout.check("net", said, x.shape[:-1])
        return layout.flatten(said)

    def measure_error(self, step: Step, norm: Callable[[Tensor], Tensor]) -> Tensor:
        return self.base.measure_error(step, norm)

    def stiffness(self, step: Step) -> Tensor | None:
        return self.base.stiffness(step)

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return self.base.complete(f, t1, step)

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        slope = step.stages[0]
        start, end, last = (value.to(slope.dtype) for value in (x0, step.x, step.carry))
        return cubic_hermite(start, end, slope, last, over_state(t1 - t0, start))
