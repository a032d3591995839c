"""A loss that is integrated along the solution, as one more leaf of the state.

It shares steps and error control with the state, and every algorithm has its gradient: none of them knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from dyn_numerics import Save, SplitField
from dyn_numerics.arguments import check_initial_state
from dyn_numerics.autocast import autocast_of_caller
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.arguments import time_span
from dyn_numerics.per_sample import bare_arguments
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.user_function import check_signature
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.integral_solution import IntegralSolution

__all__ = ["FieldAndLoss", "solve_with_integral"]


@dataclass(frozen=True, eq=False)
class FieldAndLoss:
    """A field on pairs `(x, integral)`: the user's field, and the loss as the slope of its integral.

    Attributes:
        f: Vector field `f(t, x, *args)`.
        loss: Loss `l(t, x, *args)`.
        layout: Layout of the state `x`.
    """

    f: Callable[..., Any]
    loss: Callable[..., Tensor]
    layout: StateLayout

    def __call__(self, t: Tensor, state: tuple[Any, Tensor], *args: Any) -> tuple[Any, Tensor]:
        """The slopes of both."""
        x, _ = state
        t = self.layout.spread(t)  # the times of samples broadcast against a tensor, not against a pair
        return self.f(t, x, *args), self.integrand(t, x, *args)

    def integrand(self, t: Tensor, x: Any, *args: Any) -> Tensor:
        """The loss; autocast may compute it in half precision, but it is not integrated so.

        Raises:
            TypeError: If it is no floating or complex tensor.
        """
        value: Any = self.loss(t, x, *args)
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            got = f"dtype {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TypeError(f"integral_loss: returned {got}, expected a tensor of a floating or complex dtype")
        return value.to(t.dtype) if torch.is_autocast_enabled(t.device.type) else value


def solve_with_integral(
    algorithm: SensitivityAlgorithm,
    integral_loss: Callable[..., Tensor],
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    *,
    args: tuple[Any, ...],
    params: tuple[Tensor, ...],
    **options: Any,
) -> IntegralSolution:
    """Solves for the state and the integral of a loss along it.

    Args:
        algorithm: How the gradient is computed.
        integral_loss: The loss `l(t, x, *args)`.
        f: Vector field.
        x0: Initial state.
        t_span: Output times.
        args: Further arguments of both functions.
        params: As `SensitivityAlgorithm.solve`.
        **options: As `SensitivityAlgorithm.solve`.

    Raises:
        TypeError: If one of the functions cannot be called as said, or the loss is no floating or complex tensor.
        ValueError: If the field is split, something else than states is to be kept, or the loss of samples that are
            solved one by one is not one for each.
    """
    if isinstance(f, SplitField):
        raise ValueError(
            "integral_loss: got one beside a SplitField, whose parts it is none of, expected None; try one field and "
            "solver='tsit5'"
        )
    if Save.of(options["save"]).fn is not None:
        raise ValueError("save: got one with fn beside an integral_loss, expected one that keeps states; try fn=None")
    if not torch.compiler.is_compiling():
        check_signature(f, len(args))
        check_signature(integral_loss, len(args), "integral_loss", "loss")
    per_sample = options["stepping"] == "per_sample"
    layout = check_initial_state(x0, per_sample)
    both = FieldAndLoss(f, integral_loss, layout)
    with torch.no_grad(), autocast_of_caller(layout.device.type)():
        _, times, _ = time_span(t_span, layout, on_host=False)
        start = layout.spread(times[0].to(real_dtype(layout.dtype)).expand(layout.lead))
        zero = torch.zeros_like(both.integrand(start, x0, *bare_arguments(args)))
    if per_sample and zero.shape[:1] != layout.lead:
        raise ValueError(
            f"integral_loss: returned shape {list(zero.shape)}, expected one loss for each of {layout.lead[0]} samples, "
            f"[batch, ...]"
        )
    solution = algorithm.solve(both, (x0, zero), t_span, args=args, params=params, **options)
    kept = {field.name: getattr(solution, field.name) for field in fields(solution)}
    x, integral = kept.pop("x")
    kept["_resumption"] = "with an integral, expected one without"
    return IntegralSolution(**kept, x=x, integral=integral)
