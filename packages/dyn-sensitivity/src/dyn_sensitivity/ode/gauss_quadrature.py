"""The continuous adjoint along the solution, with parameter gradients as integrals over its steps."""

from __future__ import annotations

from dyn_numerics import Stepper
from dyn_sensitivity.ode.continuous_adjoint import BackwardNorm, ContinuousAdjoint

__all__ = ["GaussQuadrature"]


class GaussQuadrature(ContinuousAdjoint):
    """Solves the adjoint backwards along the dense forward solution, and integrates parameter gradients over each step.

    As `Interpolating`, but for the gradients of args and parameters, `g = int a df/dtheta dt`, which are no part of what is
    solved: after every accepted step of the backward solve Gauss's rule adds the integral over it, with as many nodes as the
    interpolant of the step deserves. So stages differentiate `f` by the state alone, rejected steps cost no parameter gradient,
    and there is one copy of the parameters instead of one for each stage: it suits models with many parameters and few states.
    The gradient is *approximate*: it converges with the tolerances of both solves. Memory grows with the number of accepted
    steps, by `(p + 1)` states each where `p` is the degree of the interpolant, whatever `f` saves.

    What gradients reach, and what is refused, is as in `Backsolve`; inside `torch.compile` it is refused.

    Args:
        norm: Norm of the backward error, a function of the tuple (leaves of the adjoint,) to a tensor `[]`. The root mean
            square of all of them when None.
        solver: Method of the backward solve, as in `Backsolve`.
        rtol: Relative tolerance of the backward solve; that of the forward solve when None.
        atol: Absolute tolerance of the backward solve; that of the forward solve when None.

    Raises:
        TypeError: If the solver is no name or `Stepper`, or a tolerance no number.
        ValueError: If there is no solver of that name, or a tolerance is not positive.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import odeint
        >>> rate = torch.tensor(0.5, requires_grad=True)
        >>> sol = odeint(lambda t, x, a: -a * x, torch.ones(1), [0.0, 1.0], args=(rate,), sensitivity="gauss")
        >>> sol.x[-1].sum().backward()
        >>> round(rate.grad.item(), 3)
        -0.607

    References:
        A. C. Norcliffe, M. P. Deisenroth: Faster Training of Neural ODEs Using Gauss-Legendre Quadrature, TMLR 2023.
    """

    name = "gauss"
    recalls_state = True

    def __init__(
        self,
        *,
        norm: BackwardNorm | None = None,
        solver: str | Stepper | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> None:
        super().__init__(norm, solver, rtol, atol, quadrature=True)
