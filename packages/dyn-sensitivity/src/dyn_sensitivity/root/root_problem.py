"""A root or a fixed point that is looked for, as sensitivity algorithms see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dyn_numerics import RootSolution
from dyn_numerics.autocast import without_autocast
from dyn_numerics.dtypes import wide_dtype
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.root.residual import FixedPointResidual, Residual
from dyn_numerics.substitutes import substituted, substitutes
from dyn_numerics.transforms import any_lane, in_forward_mode, under_transform, without_derivatives

__all__ = ["RootProblem"]


@dataclass(frozen=True, eq=False)
class RootProblem:
    """What a handler was asked for.

    Attributes:
        find: The handler of dyn-numerics that searches.
        residual_type: What makes a residual of the function: `g(z)`, or `h(z) - z`.
        name: What the function is called, for messages.
        f: The user's function.
        z0: Where to start.
        args: Further arguments of `f`.
        options: Everything else that the handler takes.
    """

    find: Callable[..., RootSolution]
    residual_type: type[Residual]
    name: str
    f: Callable[..., Any]
    z0: Any
    args: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def is_fixed_point(self) -> bool:
        """Whether a fixed point is looked for."""
        return issubclass(self.residual_type, FixedPointResidual)

    def search(self) -> RootSolution:
        """Searches; where something requires a gradient, it passes through the steps."""
        return self.find(self.f, self.z0, args=self.args, **self.options)

    def differentiate(self, derive: Callable[[Residual, Tensor], Tensor]) -> RootSolution:
        """Searches for the values alone, and gives them derivatives where somebody wants them.

        A sample without a finite residual gets none, and takes the place of another meanwhile.

        Args:
            derive: Maps the residual of flat iterates and the root without derivatives, `[batch, N]` in float32 at least, to
                the same numbers with derivatives. It is called without autocast, which the residual has for itself.
        """
        compiling = torch.compiler.is_compiling()
        with torch.no_grad() if compiling else without_derivatives():
            solution = self.search()
        if not (torch.is_grad_enabled() or under_transform() or in_forward_mode()):
            return solution
        finite = torch.isfinite(solution.residual)
        if not (compiling or any_lane(finite)):
            return solution
        layout = StateLayout(solution.z, "z0", batched=True)
        f = self.residual_type(self.f, self.args, layout, self.name)
        z = layout.flatten(solution.z).detach().to(wide_dtype(layout.dtype))
        places = substitutes(finite) if compiling or any_lane(~finite) else None
        start = z
        if places is not None:
            f, start = f.take(places), substituted(places, z)
        with without_autocast(layout.device.type):
            root = derive(f, start)
            if places is not None:
                root = torch.where(finite.unsqueeze(-1), root, z)
        return replace(solution, z=layout.unflatten(root.to(layout.dtype)))
