"""The Jacobian of a field, known by its products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from dyn_numerics.arguments import kind_of, positive
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.linear.function_operator import FunctionOperator
from dyn_numerics.linear.gmres import GMRES
from dyn_numerics.linear.linear_solver import LinearSolver
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.ode.jacobians.field_jacobian import FieldJacobian, Linearisation, Solved
from dyn_numerics.ode.jacobians.forward_products import forward_products
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.stepper import FlatField, in_loop
from dyn_numerics.transforms import under_differentiation
from dyn_numerics.user_function import check_signature

__all__ = ["KrylovFactors", "KrylovJacobian", "Point"]

LARGEST_RTOL = 0.1  # lest a Newton iteration that has all but converged stands still


class Point(NamedTuple):
    """Where a field is differentiated.

    Attributes:
        t: Time, `[*lead]`.
        x: State, `[*lead, N]`.
    """

    t: Tensor
    x: Tensor


class KrylovFactors(NamedTuple):
    """A matrix `W = I - shift J` that nobody has made.

    Attributes:
        point: Where `J` is the field's Jacobian.
        shift: `[*lead]` in the real dtype of the state.
        singular: Whether the point or the shift is not finite, `[*lead]`; the rest is found out in a solve.
    """

    point: Point
    shift: Tensor
    singular: Tensor


class KrylovJacobian(FieldJacobian):
    """No matrix, but its products: linear systems are solved by iteration, for large states and neural fields.

    Every step of the linear solver calls the field once, to differentiate it in forward mode along one direction; a complex
    field must be holomorphic. Memory is that of the linear solver, linear in N. Systems are solved in units of the solve's
    tolerance: elements are scaled by `atol + rtol |x|`, and a solve ends once the root mean square of its residual is at
    most `accuracy`, or a tenth of the right-hand side's where this is less. Newton's iteration and a Rosenbrock method then
    err by about so many tolerances more. A system that the linear solver does not solve counts as singular, so that a
    method tries a shorter step, with which the matrix is nearer to one.

    Gradients by plain autograd are exact to the accuracy of the solves: each is one more solve, with the adjoint, to the
    linear solver's own `rtol`. There are no second derivatives, and none inside of `torch.func` and `torch.compile`.

    Args:
        linear_solver: What solves the linear systems; `GMRES()` when None. Its own `rtol` is for gradients, and its own
            preconditioner, if it has one, sees scaled vectors.
        accuracy: Largest residual, in units of the tolerance.
        preconditioner: A function `(t, x, shift) -> precondition` of time `[*lead]`, state `[*lead, N]` and a real tensor
            `[*lead]` in time units. What it returns maps vectors `v`, `[*lead, N]`, linearly to about what solves
            `z - shift J z = v`. All are flat, and it is asked once a linear solve.

    Raises:
        TypeError: If an argument has the wrong type; in a solve, if the preconditioner returns no function, or that one
            no tensor.
        ValueError: If `accuracy` is not positive; in a solve, if vectors change their shape in the preconditioner, or the
            solve would have to be differentiated in a way that it cannot.

    Example:
        >>> import torch
        >>> from dyn_numerics import KrylovJacobian, SolveContext
        >>> KrylovJacobian(accuracy=1e-3)
        KrylovJacobian(
          accuracy=0.001
          (linear_solver): GMRES(restart=20, rtol=1e-05)
        )

    References:
        - P. N. Brown, A. C. Hindmarsh: Reduced storage matrix methods in stiff ODE systems (1989): the scaling, and why the
          accuracy is a fraction of the tolerance.
        - R. S. Dembo, S. C. Eisenstat, T. Steihaug: Inexact Newton methods (1982).
    """

    def __init__(
        self,
        linear_solver: LinearSolver | None = None,
        accuracy: float = 0.01,
        preconditioner: Callable[[Tensor, Tensor, Tensor], Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        super().__init__()
        linear_solver = GMRES() if linear_solver is None else linear_solver
        if not isinstance(linear_solver, LinearSolver):
            raise TypeError(f"linear_solver: got {kind_of(linear_solver)}, expected a LinearSolver; try GMRES()")
        if preconditioner is not None and not callable(preconditioner):
            raise TypeError(
                f"preconditioner: got {kind_of(preconditioner)}, expected a function (t, x, shift) that returns a function "
                f"of vectors"
            )
        if preconditioner is not None:
            check_signature(preconditioner, 0, "preconditioner", "function", "t, x, shift")
        self.linear_solver = linear_solver
        self.accuracy = positive("accuracy", accuracy, "a positive number of tolerances; try 0.01")
        self.preconditioner = preconditioner
        self._norm: ErrorNorm | None = None

    def extra_repr(self) -> str:
        return f"accuracy={self.accuracy:g}"

    def on(self, context: SolveContext) -> Self:
        twin = type(self).__new__(type(self))  # copy.copy, as far as torch.compile can trace it
        twin.__dict__.update(self.__dict__)
        twin._norm = context.norm
        return twin

    def linearise(self, f: FlatField, t: Tensor, x: Tensor, with_rate: bool = False) -> Linearisation:
        slope, rate, _ = forward_products(f, t, x, x.new_zeros(0, x.shape[-1]), with_rate)
        return Linearisation(slope, rate, Point(t, x))

    def factorise(self, jacobian: Point, shift: Scalar) -> KrylovFactors:
        lead, dtype = jacobian.x.shape[:-1], real_dtype(jacobian.x.dtype)
        shift = torch.as_tensor(shift, dtype=dtype, device=jacobian.x.device).expand(lead)
        finite = torch.isfinite(jacobian.x).all(-1) & torch.isfinite(shift)
        return KrylovFactors(jacobian, shift, ~finite)

    def solve(self, f: FlatField, factors: KrylovFactors, b: Tensor) -> Solved:
        if self._norm is None:
            raise ValueError(
                "jac: got a KrylovJacobian outside of a solve, expected a tolerance; try on(context) first"
            )
        field = in_loop(f)
        (t, x), shift = factors.point, factors.shift.unsqueeze(-1)
        unit = self._norm.tolerance(x.detach())
        precondition = self._precondition(t, x, factors.shift)

        def spread(v: Tensor) -> Tensor:
            return precondition(unit * v)

        def product(v: Tensor) -> Tensor:
            moved: Tensor = torch.func.jvp(lambda x: field(t, x), (x,), (v,))[1]
            return v - shift * moved

        operator = FunctionOperator(lambda v: product(spread(v)) / unit, like=b)
        with torch.no_grad():
            scaled = torch.where(factors.singular.unsqueeze(-1), 0, b / unit)  # zero is solved without a product
            size = torch.linalg.vector_norm(scaled, dim=-1)
            rtol = (self.accuracy * b.shape[-1] ** 0.5 / size).clamp(4 * torch.finfo(size.dtype).eps, LARGEST_RTOL)
            found = self.linear_solver.solve(operator, scaled, rtol=rtol)
            solved = found.converged & ~factors.singular
            solution = torch.where(solved.unsqueeze(-1), spread(found.x), torch.nan)
        n_evals = found.n_products if isinstance(found.n_products, Tensor) else 0
        if not torch.is_grad_enabled():
            return Solved(solution, n_evals)
        if torch.compiler.is_compiling() or under_differentiation():
            raise ValueError(
                "jac: got a KrylovJacobian whose solves torch.func or a compiled program would have to differentiate, "
                "expected plain autograd; try DenseJacobian(), or a sensitivity that solves an adjoint equation"
            )
        residual = b - product(solution)
        if residual.requires_grad:

            def pull_back(gradient: Tensor) -> Tensor:
                if torch.is_grad_enabled():
                    raise ValueError(
                        "jac: got a KrylovJacobian to differentiate twice, expected first derivatives; try DenseJacobian()"
                    )
                right = FunctionOperator(spread, like=b).adjoint()(gradient)
                found = self.linear_solver.solve(operator.adjoint(), right)
                return torch.where(found.converged.unsqueeze(-1), found.x / unit, torch.nan)

            residual.register_hook(pull_back)  # type: ignore[no-untyped-call]
            solution = solution + (residual - residual.detach())
        return Solved(solution, n_evals)

    def _precondition(self, t: Tensor, x: Tensor, shift: Tensor) -> Callable[[Tensor], Tensor]:
        """What the user's preconditioner makes of vectors, `[*lead, N]`, near a point; without one, nothing."""
        if self.preconditioner is None:
            return lambda v: v
        precondition: Any = self.preconditioner(t, x, shift)
        if not callable(precondition):
            raise TypeError(
                f"preconditioner: returned {kind_of(precondition)}, expected a function of vectors [*lead, N]"
            )

        def checked(v: Tensor) -> Tensor:
            found: Any = precondition(v)
            if not isinstance(found, Tensor):
                raise TypeError(f"preconditioner: made {kind_of(found)} of a vector, expected a tensor {list(v.shape)}")
            if found.shape != v.shape:
                raise ValueError(
                    f"preconditioner: made {list(found.shape)} of a vector {list(v.shape)}, expected its shape"
                )
            return found

        return checked
