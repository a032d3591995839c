"""`odeint` with a choice of gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from dyn_numerics import Callbacks, Controller, Event, Save, Solution, Stepper
from dyn_numerics.arguments import extra_arguments
from dyn_numerics.by_name import by_name
from dyn_numerics.ode.arguments import choose_controller
from dyn_numerics.ode.steppers.by_name import stepper
from dyn_numerics.progress import ProgressBar
from dyn_sensitivity.declared_tensors import declared_tensors
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.autograd import Autograd
from dyn_sensitivity.ode.backsolve import Backsolve
from dyn_sensitivity.ode.forward_mode import ForwardMode
from dyn_sensitivity.ode.gauss_quadrature import GaussQuadrature
from dyn_sensitivity.ode.integral_loss import solve_with_integral
from dyn_sensitivity.ode.interpolating import Interpolating
from dyn_sensitivity.ode.recursive_checkpoint import RecursiveCheckpoint
from dyn_sensitivity.ode.reversible import Reversible
from dyn_sensitivity.ode.training_mode import modules_in_training, warn_of_training

__all__ = ["ALGORITHMS", "algorithm", "odeint"]

ALGORITHMS: dict[str, Callable[[], SensitivityAlgorithm]] = {
    "autograd": Autograd,
    "checkpoint": RecursiveCheckpoint,
    "reversible": Reversible,
    "adjoint": Backsolve,
    "forward": ForwardMode,
    "interpolated_adjoint": Interpolating,
    "gauss": GaussQuadrature,
}
"""What `sensitivity=` may be called, and what makes it."""


def algorithm(sensitivity: str | SensitivityAlgorithm) -> SensitivityAlgorithm:
    """Returns the sensitivity algorithm of that name, or the algorithm itself.

    Raises:
        ValueError: If there is no such name; the message lists them and suggests the nearest.
        TypeError: If it is neither a name nor an algorithm.
    """
    expected = "a name or a dyn_sensitivity.SensitivityAlgorithm"
    return by_name("sensitivity", sensitivity, ALGORITHMS, SensitivityAlgorithm, expected)


def odeint(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    *,
    sensitivity: str | SensitivityAlgorithm = "autograd",
    params: Sequence[Tensor] = (),
    integral_loss: Callable[..., Tensor] | None = None,
    solver: str | Stepper = "tsit5",
    rtol: float | Tensor = 1e-3,
    atol: float | Tensor = 1e-6,
    args: Sequence[Any] = (),
    step_size: float | None = None,
    stepping: Literal["joint", "per_sample"] = "joint",
    controller: Controller | None = None,
    events: Event | Sequence[Event] = (),
    save: Literal["t_span", "steps", "dense"] | Save = "t_span",
    max_steps: int | None = None,
    compact: bool = False,
    progress: bool | ProgressBar | None = None,
    callbacks: Callbacks | None = None,
    throw: bool = True,
) -> Solution:
    """Solves `dx/dt = f(t, x, *args)` and says how its gradient is computed.

    Gradients reach `x0`, every tensor in `args` and `params`, the parameters of modules that `f` is or holds, and
    `t_span`. Frozen parameters get nothing; unused ones get zeros where the algorithm has to know its inputs, and
    nothing under `"autograd"`.

    Inside `torch.compile(fullgraph=True)` (torch 2.13 or newer) `"autograd"`, `"adjoint"` and `"reversible"` have first-order
    gradients, to `x0`, `args` and the parameters of the module that `f` is or is a method of; whatever else `f` depends on is
    refused, `params` or not, and so is `"autograd"` through diagonally implicit, reversible and multistep methods. Steps are
    computed again for the gradient, so a field must not draw random numbers.

    Args:
        f: Vector field, as in `dyn_numerics.odeint`.
        x0: Initial state, a tensor or a pytree of tensors.
        t_span: Output times `[T]`; with `stepping="per_sample"` also `[T, batch]`.
        sensitivity: `"autograd"` (`Autograd`, exact, through the accepted steps), `"checkpoint"` (`RecursiveCheckpoint`, exact,
            memory for a given number of states), `"reversible"` (`Reversible`, exact, constant memory, reversible methods),
            `"forward"` (`ForwardMode`, exact, for few elements that want gradients), `"adjoint"` (`Backsolve`, approximate,
            constant memory), `"interpolated_adjoint"` (`Interpolating`) and `"gauss"` (`GaussQuadrature`), approximate, along
            the dense solution; or an algorithm with settings of its own.
        params: Tensors that `f` captures and that want gradients, beyond the parameters of modules it holds. Only
            algorithms other than `"autograd"` have to be told.
        integral_loss: A function or module `l(t, x, *args)`, of shape `[]` or `[batch]`, say, whose integral along the solution
            is returned as well, with gradients to the loss's own parameters. It is one more part of the state: it shares
            steps and error control, and everything but `f` and itself sees the pair `(x, integral)`, such as events, the norm of a
            controller and what is kept of steps. Not with a `SplitField`.
        solver: As in `dyn_numerics.odeint`, and so are the arguments that follow.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in state units.
        args: Further arguments of `f`; those that are not tensors pass through.
        step_size: Magnitude of fixed steps, in time units.
        stepping: One step size for the whole state, or one for each sample. The adjoints step back jointly.
        controller: Step-size control.
        events: What to watch for.
        save: What to keep; the adjoints keep the states at `t_span` alone.
        max_steps: Greatest number of attempted steps. Inside `torch.compile`, `"autograd"` has room for a state at each
            of them, by default 4096, and `"reversible"` for one number.
        compact: Whether samples that have ended leave the batch.
        progress: A progress bar for the forward solve.
        callbacks: Functions that are called after attempts of the forward solve.
        throw: Whether a solve that does not reach its end raises.

    Returns:
        The solution, which unpacks as `t, x`; an `IntegralSolution` with an `integral_loss`. It can be resumed, but for one
        of an adjoint or with an integral; what follows then has the gradient of `"autograd"`.

    Raises:
        SolverError: As in `dyn_numerics.odeint`.
        TypeError: As in `dyn_numerics.odeint`; also if the params are not floating or complex tensors.
        ValueError: As in `dyn_numerics.odeint`; also if a param is detached, or the algorithm cannot give a gradient that is
            asked for.

    Warns:
        UserWarning: Once of every module that draws random numbers or is a batch normalisation, in training mode in an adaptive
            solve or an adjoint.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import odeint
        >>> rate = torch.tensor(0.5, requires_grad=True)
        >>> sol = odeint(lambda t, x, a: -a * x, torch.ones(1), [0.0, 1.0], args=(rate,), sensitivity="adjoint")
        >>> sol.x[-1].sum().backward()
        >>> round(rate.grad.item(), 3)
        -0.607
    """
    chosen = algorithm(sensitivity)
    if not torch.compiler.is_compiling():
        functions = [f] if integral_loss is None else [f, integral_loss]
        if modules := list(modules_in_training(functions)):
            adaptive = choose_controller(controller, stepper(solver), step_size).adaptive
            if adaptive or (torch.is_grad_enabled() and not chosen.exact):
                warn_of_training(modules, adaptive)
    solve = chosen.solve if integral_loss is None else partial(solve_with_integral, chosen, integral_loss)
    return solve(
        f,
        x0,
        t_span,
        args=extra_arguments(args),
        params=declared_tensors(params),
        solver=solver,
        rtol=rtol,
        atol=atol,
        step_size=step_size,
        stepping=stepping,
        controller=controller,
        events=events,
        save=save,
        max_steps=max_steps,
        compact=compact,
        progress=progress,
        callbacks=callbacks,
        throw=throw,
    )
