"""The continuous adjoint along the solution as a function of time."""

from __future__ import annotations

from dyn_numerics import Stepper
from dyn_sensitivity.ode.continuous_adjoint import BackwardNorm, ContinuousAdjoint

__all__ = ["Interpolating"]


class Interpolating(ContinuousAdjoint):
    """Solves the adjoint equation backwards along the dense forward solution.

    As `Backsolve`, but for the state, which is not solved back: it is read from the interpolants of the forward steps. So it
    suits dissipative problems, which cannot be solved backwards, and stiff ones that an explicit backward method can still step.
    The gradient is *approximate*: it converges with the tolerances of both solves. Memory grows with the number of accepted
    steps, by `(p + 1)` states each where `p` is the degree of the interpolant, whatever `f` saves.

    What gradients reach, and what is refused, is as in `Backsolve`; inside `torch.compile` it is refused.

    Args:
        norm: Norm of the backward error, a function of the tuple (leaves of the adjoint, parameter gradients) to a tensor `[]`,
            or a seminorm over parts of it, such as `Seminorm(0)`. The root mean square of all of them when None.
        solver: Method of the backward solve, as in `Backsolve`.
        rtol: Relative tolerance of the backward solve; that of the forward solve when None.
        atol: Absolute tolerance of the backward solve; that of the forward solve when None.

    Raises:
        TypeError: If the solver is no name or `Stepper`, or a tolerance no number.
        ValueError: If there is no solver of that name, or a tolerance is not positive.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import Interpolating, odeint
        >>> rate = torch.tensor(30.0, requires_grad=True)  # solved backwards, the state would grow by exp(60)
        >>> sol = odeint(lambda t, x, a: a * (1 - x), torch.zeros(1), [0.0, 2.0], args=(rate,), sensitivity=Interpolating())
        >>> sol.x[-1].sum().backward()
        >>> abs(rate.grad.item()) < 1e-3
        True

    References:
        - C. Rackauckas et al.: A Comparison of Automatic Differentiation and Continuous Sensitivity Analysis for Derivatives
          of Differential Equation Solutions, HPEC 2021.
        - A. C. Hindmarsh et al.: SUNDIALS, ACM Transactions on Mathematical Software 31 (2005), section 4.
    """

    name = "interpolated_adjoint"
    recalls_state = True

    def __init__(
        self,
        *,
        norm: BackwardNorm | None = None,
        solver: str | Stepper | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> None:
        super().__init__(norm, solver, rtol, atol, quadrature=False)
