"""A system of as many equations as unknowns whose roots are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NonlinearSystem"]


def _as_it_is(z: Tensor) -> Tensor:
    return z


@dataclass(frozen=True)
class NonlinearSystem:
    """A function, a start, and every root that it has, up to a symmetry.

    Args:
        name: Name of the system.
        function: The function `g(z)` of points `[..., N]`, each by itself, of any real dtype.
        start: Where its authors start from, N numbers.
        solutions: Its real roots, N numbers each, to the last digit of float64.
        source: Where it was published.
        singular: Whether its Jacobian is singular at the roots; Newton's method then converges linearly.
        traps: Published points that are no roots and yet stationary points of `|g|^2`, N numbers each. A method
            that ends there did not fail by a fault of its own.
        canonical: Takes points that a symmetry of the equations makes the same to one of them, `[..., N]`.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.root.nonlinear_system import NonlinearSystem
        >>> circle = NonlinearSystem("circle", lambda z: z * z - 2, (1.0,), ((2**0.5,), (-(2**0.5),)), "by hand")
        >>> circle.error(torch.tensor([[1.414], [-1.414]], dtype=torch.float64)).lt(1e-3)
        tensor([True, True])
    """

    name: str
    function: Callable[[Tensor], Tensor]
    start: tuple[float, ...]
    solutions: tuple[tuple[float, ...], ...]
    source: str
    singular: bool = False
    traps: tuple[tuple[float, ...], ...] = ()
    canonical: Callable[[Tensor], Tensor] = _as_it_is

    @property
    def dim(self) -> int:
        """Number of unknowns, N."""
        return len(self.start)

    @property
    def z0(self) -> Tensor:
        """The start, `[N]`, float64."""
        return torch.tensor(self.start, dtype=torch.float64)

    @property
    def roots(self) -> Tensor:
        """The roots, `[k, N]`, float64."""
        return torch.tensor(self.solutions, dtype=torch.float64)

    def starts(self, count: int, scale: float, seed: int) -> Tensor:
        """Draws starts around that of the authors, `[count, N]`, float64, by up to `scale` off in each unknown."""
        u = torch.rand(count, self.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return self.z0 + scale * (2 * u - 1)

    def error(self, z: Tensor) -> Tensor:
        """The largest error of points `[..., N]` as solutions, `[...]`, against the root that is nearest.

        It is scaled as tolerances are: by 1 and the root's size together.
        """
        return self._error(z, self.solutions)

    def is_trapped(self, z: Tensor, within: float = 1e-3) -> Tensor:
        """Whether points `[..., N]` are so near to one of the `traps`, in terms of `error`: flags `[...]`."""
        if not self.traps:
            return torch.zeros(z.shape[:-1], dtype=torch.bool, device=z.device)
        return self._error(z, self.traps) <= within

    def _error(self, z: Tensor, points: tuple[tuple[float, ...], ...]) -> Tensor:
        known = torch.tensor(points, dtype=torch.float64).to(z)
        apart = (self.canonical(z).unsqueeze(-2) - known).abs() / (1 + known.abs())  # [..., k, N]
        return apart.amax(-1).amin(-1)
