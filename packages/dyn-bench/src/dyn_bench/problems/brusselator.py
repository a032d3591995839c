"""The Brusselator on a line: a reaction with diffusion, of any number of points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor, nn

__all__ = ["Brusselator"]


@dataclass(frozen=True)
class Brusselator:
    """`u_t = a + u^2 v - (b + 1) u + diffusion u_xx`, `v_t = b u - u^2 v + diffusion v_xx`, in second differences.

    The line is [0, 1], of which the state has the inner points of an even grid; at both ends `u = a` and `v = b / a`, where
    the reaction is at rest. The finer the grid, the stiffer the problem: by the square.

    Args:
        points: Number of inner points.
        a: Supply of `u`.
        b: Rate at which `u` becomes `v`.
        diffusion: Of both.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.brusselator import Brusselator
        >>> problem = Brusselator(points=500)
        >>> problem.x0.shape, problem(torch.tensor(0.0), problem.x0).shape
        (torch.Size([500, 2]), torch.Size([500, 2]))

    References:
        - R. Lefever, G. Nicolis: Chemical instabilities and sustained oscillations, Journal of Theoretical Biology 30
          (1971), 267-284.
        - Hairer, Wanner: Solving ODEs II, 2nd ed., section IV.1.
    """

    points: int
    a: float = 1.0
    b: float = 3.0
    diffusion: float = 0.02

    @property
    def places(self) -> Tensor:
        """Where the points are, `[points]`, float64."""
        return torch.arange(1, self.points + 1, dtype=torch.float64) / (self.points + 1)

    @property
    def x0(self) -> Tensor:
        """A wave of `u` at the start, `v` at rest: `[points, 2]`, float64."""
        u = self.a + (2 * pi * self.places).sin()
        return torch.stack([u, torch.full_like(u, self.b / self.a)], -1)

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """The field at states `(u, v)` of every point, `[..., points, 2]`."""
        u, v = x.unbind(-1)
        reaction = u * u * v
        slopes = torch.stack([self.a + reaction - (self.b + 1) * u, self.b * u - reaction], -1)
        return slopes + self.diffusion * (self.points + 1) ** 2 * self._second_difference(x)

    def precondition(self, t: Tensor, x: Tensor, shift: Tensor) -> Callable[[Tensor], Tensor]:
        """Prepares the inverse of `I - shift J` with nothing but diffusion in `J`, for a `KrylovJacobian`.

        The matrix is tridiagonal. It is solved by parallel cyclic reduction: sums of shifted vectors, as many as the points
        have bits, which compile to a few loops. Memory is linear in the points.

        Args:
            t: Time, `[*lead]`.
            x: States, flat, `[*lead, 2 points]`.
            shift: In units of time, `[*lead]`.

        Returns:
            A function of flat vectors, `[*lead, 2 points]`.

        References:
            R. W. Hockney, C. R. Jesshope: Parallel Computers (1981), section 5.4.3.
        """
        coupling = shift.unsqueeze(-1) * self.diffusion * (self.points + 1) ** 2
        place = torch.arange(self.points, device=x.device)
        before = torch.where(place > 0, -coupling, 0.0)
        after = torch.where(place < self.points - 1, -coupling, 0.0)
        diagonal = (1 + 2 * coupling).expand_as(before)
        levels: list[tuple[Tensor, Tensor]] = []
        distances = [2**i for i in range((self.points - 1).bit_length())]
        for distance in distances:
            earlier = -before / _later(diagonal, distance, fill=1.0)
            later = -after / _earlier(diagonal, distance, fill=1.0)
            diagonal = diagonal + earlier * _later(after, distance) + later * _earlier(before, distance)
            before, after = earlier * _later(before, distance), later * _earlier(after, distance)
            levels.append((earlier.unsqueeze(-2), later.unsqueeze(-2)))

        def solve(v: Tensor) -> Tensor:
            rest = v.reshape(*v.shape[:-1], self.points, 2).mT  # [*lead, 2, points]
            for distance, (earlier, later) in zip(distances, levels, strict=True):
                rest = rest + earlier * _later(rest, distance) + later * _earlier(rest, distance)
            return (rest / diagonal.unsqueeze(-2)).mT.flatten(-2)

        return solve

    def _second_difference(self, x: Tensor) -> Tensor:
        """What each point and its neighbours differ by, `[..., points, 2]`."""
        end = x.new_tensor([self.a, self.b / self.a]).expand_as(x[..., :1, :])
        padded = torch.cat([end, x, end], -2)
        return padded.diff(n=2, dim=-2)


def _later(v: Tensor, distance: int, fill: float = 0.0) -> Tensor:
    """A vector `[..., n]` moved up by a number of places."""
    return nn.functional.pad(v[..., :-distance], (distance, 0), value=fill)


def _earlier(v: Tensor, distance: int, fill: float = 0.0) -> Tensor:
    """A vector `[..., n]` moved down by a number of places."""
    return nn.functional.pad(v[..., distance:], (0, distance), value=fill)
