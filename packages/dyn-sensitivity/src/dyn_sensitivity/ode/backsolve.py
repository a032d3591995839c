"""The continuous adjoint, solved backwards together with the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from dyn_numerics import Seminorm, Solution, Stepper
from dyn_numerics.constant_numbers import with_constant_numbers
from dyn_sensitivity.ode import compiled_backsolve
from dyn_sensitivity.ode.continuous_adjoint import BackwardNorm, ContinuousAdjoint

__all__ = ["Backsolve"]


class Backsolve(ContinuousAdjoint):
    """Solves the adjoint equation backwards in time (optimise, then discretise).

    With the loss's derivative `a = dL/dx`, it solves `dx/dt = f`, `da/dt = -a df/dx` and `dg/dt = -a df/dtheta` from
    the last output time to the first. Where it passes an output it adds the loss's derivative with respect to that, and puts
    the state back to that of the forward solve; it is one solve, which keeps its step size there, and begins with one as long
    as those of the forward solve unless it has a method or tolerances of its own.
    The gradient is *approximate*: it converges with the tolerances. Memory does not grow with the number of steps: it is
    that of the outputs and checkpoints. It needs a state that can be solved backwards, which a strongly contracting or
    chaotic one cannot: an adaptive backward solve warns of a state that ends a thousand tolerances from that of the forward
    solve, or further. Then take more checkpoints, or `Interpolating`.
    Where events happen or the state jumps it starts anew on the other side; what conditions and jumps depend on gets its
    gradient as anywhere in PyTorch.

    Gradients reach `x0`, `t_span`, the tensors in `args` and `params`, and the parameters of modules that `f` holds.
    They can't be differentiated again. The backward solve calls `f` again, under autocast and random state of the forward solve; it
    refuses one that depends on other differentiable tensors by then, or has another value where the forward solve
    started. Forward-mode derivatives are refused. Inside `torch.compile` it has a first-order gradient, and no warning.

    Args:
        norm: Norm of the backward error, a function of the tuple (leaves of the state, leaves of the adjoint, parameter
            gradients) to a tensor `[]`, or a seminorm over parts of it. `Seminorm(0, 1)` when None, which leaves the parameter
            gradients out: they are quadratures.
        solver: Method of the backward solve; that of the forward solve when None. It steps on the forward solve's grid
            if that has fixed steps and it has no error estimate of its own. An implicit method, `"auto"` and one that knows
            the structure of the state do not step the adjoint: after such a forward solve name another, such as `"dopri5"`.
        rtol: Relative tolerance of the backward solve; that of the forward solve when None.
        atol: Absolute tolerance of the backward solve; that of the forward solve when None.
        checkpoints: Number of states between the first and the last output that the forward solve keeps besides, evenly in
            time, and to which the state is put back.
        quadrature: Whether parameter gradients are integrated by Gauss's rule over each accepted step, as `GaussQuadrature`
            does. The tuple that the norm sees is then (leaves of the state, leaves of the adjoint). It takes half as many evaluations
            again, and memory for one copy of the parameters instead of one for each stage of the method: for large models.

    Raises:
        TypeError: If the solver is no name or `Stepper`, a tolerance no number, or `checkpoints` or `quadrature` of another
            type than said.
        ValueError: If there is no solver of that name, a tolerance is not positive, or `checkpoints` is negative.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import odeint
        >>> net = torch.nn.Linear(2, 2)
        >>> sol = odeint(lambda t, x: net(x), torch.ones(5, 2), [0.0, 1.0], sensitivity="adjoint")
        >>> sol.x[-1].sum().backward()
        >>> net.weight.grad.shape
        torch.Size([2, 2])

    References:
        - L. S. Pontryagin et al.: The Mathematical Theory of Optimal Processes (1962).
        - R. T. Q. Chen et al.: Neural Ordinary Differential Equations, NeurIPS 2018, appendix B.
        - P. Kidger, R. T. Q. Chen, T. Lyons: "Hey, that's not an ODE": Faster ODE adjoints via seminorms, ICML 2021.
        - R. Serban, A. C. Hindmarsh: CVODES, the sensitivity-enabled ODE solver in SUNDIALS, IDETC 2005, of checkpoints.
    """

    name = "adjoint"
    recalls_state = False

    def __init__(
        self,
        *,
        norm: BackwardNorm | None = None,
        solver: str | Stepper | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        checkpoints: int = 0,
        quadrature: bool = False,
    ) -> None:
        if isinstance(checkpoints, bool) or not isinstance(checkpoints, int):
            raise TypeError(f"checkpoints: got a {type(checkpoints).__name__}, expected a number of states")
        if checkpoints < 0:
            raise ValueError(f"checkpoints: got {checkpoints}, expected 0 or more")
        if not isinstance(quadrature, bool):
            raise TypeError(f"quadrature: got a {type(quadrature).__name__}, expected a truth value")
        norm = Seminorm(0, 1) if norm is None else norm
        super().__init__(norm, solver, rtol, atol, quadrature, checkpoints)

    def solve_compiled(
        self,
        f: Callable[..., Any],
        x0: Any,
        t_span: Tensor | Sequence[float],
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Solution:
        if self.checkpoints or self.quadrature:
            raise ValueError(
                "sensitivity: got Backsolve with checkpoints or quadrature inside torch.compile, which has neither; give "
                "t_span more times, or solve outside of it"
            )
        backward = self.backward(options)
        return with_constant_numbers(
            lambda: compiled_backsolve.solve(f, x0, t_span, args, options, backward, self.begins_alike)
        )
