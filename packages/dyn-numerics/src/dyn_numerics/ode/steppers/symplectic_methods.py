"""The symplectic methods that have names, each a composition."""

from __future__ import annotations

from dyn_numerics.ode.steppers.symplectic import Symplectic
from dyn_numerics.ode.tableaus.splitting import VERLET, YOSHIDA4

__all__ = ["Verlet", "Yoshida4"]


class Verlet(Symplectic):
    """Verlet's method, also Störmer's or leapfrog: symplectic, order 2, fixed steps, on a `SplitField`.

    A step evaluates each part once: `b`, the force, at its end, which is where the next one starts, and `a` in its middle.

    Example:
        >>> import torch
        >>> from dyn_numerics import SplitField, odeint
        >>> kepler = SplitField(lambda t, p: p, lambda t, q: -q / q.norm() ** 3)
        >>> start = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        >>> t, (q, p) = odeint(kepler, start, [0.0, 6.2832], solver="verlet", step_size=0.01)
        >>> round(q[-1, 0].item(), 3)
        1.0

    References:
        - L. Verlet: Computer experiments on classical fluids I, Phys. Rev. 159 (1967), 98-103.
        - Hairer, Lubich, Wanner: Geometric numerical integration illustrated by the Störmer-Verlet method, Acta Numerica
          12 (2003), 399-450.
    """

    def __init__(self) -> None:
        super().__init__(VERLET)


class Yoshida4(Symplectic):
    """Yoshida's method: symplectic, order 4, fixed steps, on a `SplitField`.

    A step evaluates each part three times. It is Verlet's method in three steps of 1.35, -1.70 and 1.35 times the length:
    `b`, the force, is evaluated within the step alone, and `a`, if it depends on time, at times up to 0.36 of a step
    before its start and after its end, outside of `t_span` too; at times of `StopAt` only `b` may jump.

    Example:
        >>> import torch
        >>> from dyn_numerics import SplitField, odeint
        >>> driven = SplitField(lambda t, p: p, lambda t, q: torch.cos(t) - 4 * q)
        >>> start = torch.tensor([0.0]), torch.tensor([0.0])
        >>> t, (q, p) = odeint(driven, start, [0.0, 1.0], solver="yoshida4", step_size=0.1)
        >>> round(q[-1].item(), 4)  # (cos t - cos 2 t) / 3
        0.3188

    References:
        H. Yoshida: Construction of higher order symplectic integrators, Phys. Lett. A 150 (1990), 262-268.
    """

    def __init__(self) -> None:
        super().__init__(YOSHIDA4)
