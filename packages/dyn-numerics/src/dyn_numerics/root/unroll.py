"""A method's steps, a fixed number of them, with gradients: what it is trained by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dyn_numerics.arguments import positive_integer
from dyn_numerics.autocast import without_autocast
from dyn_numerics.batch import select_rows
from dyn_numerics.constant_numbers import with_constant_numbers
from dyn_numerics.norms import rms_norm_at_any_scale
from dyn_numerics.root.by_name import FIXED_POINT_STEPPERS, ROOT_STEPPERS
from dyn_numerics.root.iterate import follow
from dyn_numerics.root.line_search import LineSearch
from dyn_numerics.root.pose import Posed, pose
from dyn_numerics.root.residual import FixedPointResidual, Residual
from dyn_numerics.root.root_stepper import Context, RootStepper

__all__ = ["Iterates", "unroll"]


@dataclass(frozen=True, eq=False)
class Iterates:
    """Where a method went, start included.

    Attributes:
        z: Iterates, in the structure of `z0`, leaves `[n_steps + 1, batch, ...]`.
        value: Residuals there, the same: `h(z) - z`, or `g(z)`.
        residual: Their root mean squares, `[n_steps + 1, batch]`.
        internals: What the method lets see of its steps, in a structure of its own, leaves `[n_steps, batch, ...]`; empty for
            most methods.
    """

    z: Any
    value: Any
    residual: Tensor
    internals: Any


def unroll(
    f: Callable[..., Any],
    z0: Any,
    *,
    n_steps: int,
    solver: str | RootStepper,
    kind: Literal["fixed_point", "root"] = "fixed_point",
    args: Sequence[Any] = (),
    line_search: str | LineSearch | None = None,
) -> Iterates:
    """Takes a number of steps with a method, converged or not, and keeps all iterates with their gradients.

    Steps, start and line search are those of `fixed_point` or `root_find`, so that what is trained here is used there.
    Gradients reach the parameters of the method, of the line search and of `f`, the tensors in `args`, and `z0`; they are
    those of the numbers that are computed. Memory grows with the number of steps. It compiles with
    `torch.compile(fullgraph=True)`, gradients included.

    A sample whose residual would not be finite stays where it is, and so does one that the method cannot lead on. The first
    do not disturb the gradients of their neighbours; inside of `torch.compile`, where nothing is read in between, and where a
    Jacobian was singular, they make those of what all samples share NaN.

    Args:
        f: The map `h(z, *args)` whose fixed point is wanted, or the function `g(z, *args)` whose root is.
        z0: Where to start, as in `fixed_point`.
        n_steps: Number of steps of every sample.
        solver: The method, as in `fixed_point` or `root_find`.
        kind: `"fixed_point"` or `"root"`.
        args: Further arguments of `f`.
        line_search: What shortens steps, as in `root_find`. Of the lengths that it tries only the first has a gradient.

    Raises:
        RuntimeError: If it is to be compiled and this torch cannot.
        TypeError: As `root_find`.
        ValueError: As `root_find`; if `kind` is none of the two, `n_steps` not a positive integer, or no gradient flows
            through the steps of the method.

    Example:
        >>> import torch
        >>> from dyn_numerics import unroll
        >>> a = torch.tensor(0.5, requires_grad=True)
        >>> iterates = unroll(lambda z: a * z + 1, torch.zeros(1, 1), solver="fixed_point", n_steps=3)
        >>> iterates.z.squeeze().tolist()
        [0.0, 1.0, 1.5, 1.75]
        >>> iterates.z[-1].sum().backward()  # of a**2 + a + 1
        >>> a.grad
        tensor(2.)
    """
    if kind not in ("fixed_point", "root"):
        raise ValueError(f"kind: got {kind!r}, expected 'fixed_point' or 'root'")
    n_steps = positive_integer("n_steps", n_steps)
    of_map = kind == "fixed_point"
    posed = pose(
        f,
        z0,
        name="f",
        residual=FixedPointResidual if of_map else Residual,
        named=FIXED_POINT_STEPPERS if of_map else ROOT_STEPPERS,
        solver=solver,
        args=args,
        line_search=line_search,
    )

    def taken() -> Iterates:
        with without_autocast(posed.f.layout.device.type):
            return _take_steps(posed, n_steps)

    return with_constant_numbers(taken) if torch.compiler.is_compiling() else taken()


def _take_steps(posed: Posed, n_steps: int) -> Iterates:
    f, stepper, z = posed.f, posed.stepper, posed.z
    layout = f.layout

    def context(n: int) -> Context:
        return Context(value, norm, n, f.args, layout, torch.ones_like(norm, dtype=torch.bool))

    value = f(z)
    posed.is_differentiated(value)
    norm = rms_norm_at_any_scale(value)
    carry = stepper.init(z, context(0))
    passed, internals = [(z, value, norm)], []
    for n in range(n_steps):
        proposal = stepper.step(f, z, carry, context(n))
        going = torch.ones_like(norm, dtype=torch.bool) if proposal.status is None else proposal.status == 0
        ahead = follow(f, posed.line_search, z, going, context(n), proposal)
        # A gradient of zero that goes back through what is not finite comes out as NaN: such values have none.
        z = select_rows(torch.isfinite(ahead.value).all(dim=-1), ahead.z, z)
        value = f(z)
        norm, carry = rms_norm_at_any_scale(value), proposal.carry
        passed.append((z, value, norm))
        internals.append(proposal.internals)
    zs, values, norms = (torch.stack(each) for each in zip(*passed, strict=True))
    states, residuals = (layout.unflatten(each.to(layout.dtype)) for each in (zs, values))
    return Iterates(states, residuals, norms, tree_map(lambda *each: torch.stack(each), *internals))
