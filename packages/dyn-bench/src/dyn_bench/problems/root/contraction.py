"""A map with a fixed point and a rate that are known, for each sample of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

__all__ = ["Contraction"]


@dataclass(frozen=True, eq=False)
class Contraction:
    """A map whose iterates approach its fixed point at a rate that is known.

    Args:
        name: Name of the map.
        map: The map `h(z, *args)` of states `[batch, N]`, real or complex, each by itself.
        args: What it depends on, tensors that lead with `batch`.
        start: Where to start from, `[batch, N]`.
        fixed_point: Where iterates end, `[batch, N]`.
        rate: By what factor the distance falls in each iteration in the end, `[batch]`, float64: the spectral radius of
            the Jacobian at the fixed point.

    Example:
        >>> from dyn_bench.problems.root.cosine_map import cosine_map
        >>> problem = cosine_map(count=3)
        >>> z = problem.start
        >>> for _ in range(60):
        ...     z = problem.map(z, *problem.args)
        >>> problem.error(z).lt(1e-10)
        tensor([True, True, True])
    """

    name: str
    map: Callable[..., Tensor]
    args: tuple[Tensor, ...]
    start: Tensor
    fixed_point: Tensor
    rate: Tensor

    def take(self, places: Tensor) -> Self:
        """The problem of the samples at some places, `[m]`."""
        return replace(
            self,
            args=tuple(arg[places] for arg in self.args),
            start=self.start[places],
            fixed_point=self.fixed_point[places],
            rate=self.rate[places],
        )

    def to(self, dtype: torch.dtype) -> Self:
        """The problem in another precision, with states and arguments of `dtype`; rates stay as they are."""
        return replace(
            self,
            args=tuple(arg.to(dtype) for arg in self.args),
            start=self.start.to(dtype),
            fixed_point=self.fixed_point.to(dtype),
        )

    def error(self, z: Tensor) -> Tensor:
        """The largest error of states `[batch, N]`, `[batch]`, scaled as tolerances are: by 1 and the size together."""
        return ((z - self.fixed_point).abs() / (1 + self.fixed_point.abs())).amax(-1)
