"""The arguments of a search for a root or a fixed point, checked and laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dyn_numerics.arguments import check_initial_state, check_sampled_arguments, extra_arguments
from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.loop import check_compiler
from dyn_numerics.per_sample import bare_arguments
from dyn_numerics.root.by_name import root_stepper
from dyn_numerics.root.line_search import LineSearch, line_search_by_name
from dyn_numerics.root.residual import Residual
from dyn_numerics.root.root_stepper import RootStepper
from dyn_numerics.transforms import derivatives_are_off, under_differentiation
from dyn_numerics.user_function import check_signature

__all__ = ["Posed", "pose"]


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem and a method for it.

    Attributes:
        f: Residual of flat iterates.
        stepper: Method.
        line_search: What shortens its steps, or None.
        z: Start, `[batch, N]`, in float32 at least.
    """

    f: Residual
    stepper: RootStepper
    line_search: LineSearch | None
    z: Tensor

    def is_differentiated(self, value: Tensor) -> bool:
        """Whether somebody wants derivatives.

        Args:
            value: Residual at the start, `[batch, N]`.

        Raises:
            ValueError: If somebody does, and no gradient flows through the steps of the method.
        """
        wanted = False
        if torch.is_grad_enabled():
            modules = [self.line_search, self.stepper if self.stepper.differentiable else None]
            trained = any(p.requires_grad for module in modules if module is not None for p in module.parameters())
            wanted = trained or self.z.requires_grad or value.requires_grad
        wanted = wanted or (under_differentiation() and not derivatives_are_off())
        if wanted and not self.stepper.differentiable:
            raise ValueError(
                f"solver: got a {type(self.stepper).__name__}, through whose steps no gradient flows, where one is wanted; use "
                f"torch.no_grad(), or another solver"
            )
        return wanted


def pose(
    f: Callable[..., Any],
    z0: Any,
    *,
    name: str,
    residual: type[Residual],
    named: Mapping[str, Callable[[], RootStepper]],
    solver: str | RootStepper,
    args: Sequence[Any],
    line_search: str | LineSearch | None,
) -> Posed:
    """Checks arguments, and asks the method where to start.

    Args:
        f: The user's function.
        z0: Start.
        name: What the function is called, for messages.
        residual: What makes a residual of it.
        named: What names of methods mean.
        solver: Method.
        args: Further arguments of `f`.
        line_search: What shortens steps.

    Raises:
        RuntimeError: If it is to be compiled and this torch cannot.
        TypeError: As `root_find`.
        ValueError: As `root_find`.
    """
    args = extra_arguments(args)
    if not torch.compiler.is_compiling():
        check_signature(f, len(args), name, "function", takes="z")
    check_compiler("root_find")
    stepper, shortens = root_stepper(solver, named), line_search_by_name(line_search)
    if shortens is not None and not stepper.searches:
        raise ValueError(f"line_search: got one with {stepper}, which chooses its steps itself; leave it out")
    start = stepper.start(z0, *bare_arguments(args))
    layout = check_initial_state(start, batched=True, name="z0")
    check_sampled_arguments(args, layout)
    if layout.dtype.is_complex and not stepper.takes_complex:
        raise TypeError(f"z0: got {layout.dtype} with {stepper}, which is for real ones; try solver='newton'")
    z = layout.flatten(start).to(wide_dtype(layout.dtype))
    return Posed(residual(f, args, layout, name), stepper, shortens, z)
