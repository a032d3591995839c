"""The neural ordinary differential equation as a plain module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from dyn_models.fields.signature import takes_time
from dyn_numerics import Controller, Solution, SplitField, Stepper
from dyn_numerics.arguments import kind_of
from dyn_numerics.ode.arguments import (
    check_tolerance,
    choose_controller,
    step_limit,
    time_span,
)
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.pytree_state import StateLayout
from dyn_sensitivity import SensitivityAlgorithm, odeint
from dyn_sensitivity.ode.odeint import algorithm

__all__ = ["NeuralODE"]


class NeuralODE(nn.Module):
    """Solves `dx/dt = vector_field(t, x, *args)` from a batch of initial states.

    Args:
        vector_field: A module or function `f(t, x, *args)` or `f(x)` (any `nn.Sequential`); its signature is read once.
            `t` arrives as `[]`, the state as it was passed. A solver that steps two parts of a field takes a `SplitField`,
            both parts of which take the time: `"verlet"`, say, on states `(q, p)`.
        solver: Name of a method or a `Stepper`; kept as the submodule `solver`, so that a trainable one is trained with
            the model.
        sensitivity: How the gradient is computed: `"autograd"`, `"adjoint"`, or an algorithm of dyn-sensitivity.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in state units.
        t_span: Output times when a call names none.
        integral_loss: A function or module `l(t, x)` of shape `[batch]`, say, whose integral along the trajectory is
            returned as `integral`, with gradients to `l`'s own parameters; it shares the error control. Not with a
            `SplitField`.
        step_size: Magnitude of fixed steps, in time units; None for the method's own way.
        controller: Step-size control; None for the method's own.
        max_steps: Greatest number of attempted steps. Inside `torch.compile`, `"autograd"` reserves memory for a state at
            each of them, by default 4096.

    Raises:
        TypeError: If `vector_field` or `integral_loss` cannot be called as said, or another argument is of a wrong type.
        ValueError: If there is no solver or sensitivity of that name, a tolerance or `step_size` is not positive,
            `t_span` is not strictly monotone, or the controller or an integral loss does not go with the solver.

    Example:
        >>> import torch
        >>> from dyn_models import NeuralODE
        >>> field = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
        >>> system = NeuralODE(field, solver="tsit5", sensitivity="adjoint")
        >>> t_eval, sol = system(torch.randn(8, 2), torch.linspace(0, 1, 10))
        >>> sol.shape
        torch.Size([10, 8, 2])

    References:
        - R. T. Q. Chen et al.: Neural Ordinary Differential Equations, NeurIPS 2018.
        - M. Poli et al.: TorchDyn: Implicit Models and Neural Numerical Methods in PyTorch (2021).
    """

    def __init__(
        self,
        vector_field: Callable[..., Any],
        *,
        solver: str | Stepper = "tsit5",
        sensitivity: str | SensitivityAlgorithm = "autograd",
        rtol: float | Tensor = 1e-3,
        atol: float | Tensor = 1e-6,
        t_span: Tensor | Sequence[float] = (0.0, 1.0),
        integral_loss: Callable[..., Tensor] | None = None,
        step_size: float | None = None,
        controller: Controller | None = None,
        max_steps: int | None = None,
    ) -> None:
        super().__init__()
        for name, tolerance in (("rtol", rtol), ("atol", atol)):
            check_tolerance(name, tolerance)
        method = stepper(solver)
        choose_controller(controller, method, step_size)
        step_limit(max_steps, adaptive=True)
        time_span(t_span, StateLayout(torch.empty(0), "x"))
        self._is_split = isinstance(vector_field, SplitField)
        if self._is_split != (method.split is not None):
            expected = "a field f(t, x, *args) or f(x)" if self._is_split else "a SplitField(a, b)"
            raise TypeError(
                f"vector_field: got {kind_of(vector_field)}, expected {expected} for {type(method).__name__}"
            )
        if self._is_split and integral_loss is not None:
            raise ValueError(
                "integral_loss: got one beside a SplitField, whose parts it is none of, expected None; try one field and "
                "solver='tsit5'"
            )
        self._takes_time = self._is_split or takes_time(vector_field)
        self._loss_takes_time = integral_loss is None or takes_time(integral_loss, "integral_loss")
        self.vector_field = vector_field
        self.solver = method
        self.sensitivity = algorithm(sensitivity)
        self.rtol = rtol
        self.atol = atol
        self.t_span = t_span
        self.integral_loss = integral_loss
        self.step_size = step_size
        self.controller = controller
        self.max_steps = max_steps

    def extra_repr(self) -> str:
        return f"sensitivity={self.sensitivity!r}, rtol={self.rtol}, atol={self.atol}"

    def forward(self, x: Any, t_span: Tensor | Sequence[float] | None = None, args: Sequence[Any] = ()) -> Solution:
        """Solves from the states `x` at the first time.

        Args:
            x: Initial states `[batch, ...]`, a tensor or a pytree of tensors.
            t_span: Output times `[T]`; those of the constructor when None.
            args: Further arguments of the vector field.

        Returns:
            The solution, which unpacks as `t, x` with `x` of shape `[T, batch, ...]`; an `IntegralSolution` if the model
            has an integral loss.

        Raises:
            SolverError: If the solve does not reach its end.
            TypeError: As in `dyn_sensitivity.odeint`.
            ValueError: As in `dyn_sensitivity.odeint`.
        """
        times = self.t_span if t_span is None else t_span
        return odeint(
            self.vector_field if self._is_split else self._slope,
            x,
            times,
            sensitivity=self.sensitivity,
            integral_loss=None if self.integral_loss is None else self._integrand,
            solver=self.solver,
            rtol=self.rtol,
            atol=self.atol,
            args=args,
            step_size=self.step_size,
            controller=self.controller,
            max_steps=self.max_steps,
        )

    def trajectory(self, x: Any, t_span: Tensor | Sequence[float] | None = None, args: Sequence[Any] = ()) -> Any:
        """The states alone, `[T, batch, ...]`; arguments and errors as in `forward`."""
        return self(x, t_span, args).x

    def _integrand(self, t: Tensor, x: Any, *args: Any) -> Tensor:
        loss = self.integral_loss
        value: Tensor = loss(t, x) if self._loss_takes_time else loss(x)  # type: ignore[misc]
        return value

    def _slope(self, t: Tensor, x: Any, *args: Any) -> Any:
        slope = self.vector_field(t, x, *args) if self._takes_time else self.vector_field(x, *args)
        if torch.is_autocast_enabled(t.device.type):
            slope = tree_map(lambda k, leaf: k.to(leaf.dtype), slope, x)  # autocast computes in half precision
        return slope
