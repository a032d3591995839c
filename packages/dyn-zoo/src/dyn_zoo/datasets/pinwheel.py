"""A pinwheel of five bent blades."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from dyn_zoo.datasets._product_mixture import gaussian_log_kernel
from dyn_zoo.datasets.toy_distribution import ToyDistribution

if TYPE_CHECKING:
    from collections.abc import Callable

_SCALE = 2.0
_RADIAL_STD = 0.3
_TANGENTIAL_STD = 0.1
_RATE = 0.25
_SECTOR = 2 * math.pi / 5

# In units of the blade, before scaling.
_LARGEST_RADIUS = 5.0
_POINTS_PER_CHUNK = 2**14


@dataclass(frozen=True)
class Pinwheel(ToyDistribution):
    """Five Gaussian blades around the origin, bent by a rotation that grows along the blade.

    With r ~ N(1, 0.3²) along and s ~ N(0, 0.1²) across a blade, the point (r, s) is turned clockwise by
    2πk/5 + e^r / 4, where k is the label, and scaled by 2.

    The density is a sum over all (r, s, k) that lead to a point, which are found by bisection, to rounding.
    Where the bent blades fold over it is singular, on curves that the distribution hardly reaches (probability
    below 1e-7). For |x| > 10, where it is below 1e-37, it is returned as 0. First derivatives of `log_prob` are
    exact, higher ones are not.

    Example:
        >>> data = Pinwheel()
        >>> x, label = data.sample_labelled(1000, seed=0)
        >>> x.shape, label.unique().tolist()
        (torch.Size([1000, 2]), [0, 1, 2, 3, 4])
        >>> print(f"{data.entropy:.3f} nats")
        2.318 nats

    References:
        - M. J. Johnson, D. Duvenaud, A. B. Wiltschko, S. R. Datta and R. P. Adams, Composing graphical models
          with neural networks for structured representations and fast inference, NeurIPS 2016, where these data
          come from.
        - W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud, FFJORD: free-form continuous
          dynamics for scalable reversible generative models, ICLR 2019; the constants are those of `pinwheel` in
          the authors' `lib/toy_data.py`.
    """

    n_labels: ClassVar[int] = 5

    @property
    def entropy(self) -> float:
        """Differential entropy in nats, by quadrature over one blade (error below 1e-6)."""
        return _entropy()

    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        label = torch.randint(5, (n,), generator=generator, device="cpu")
        noise = torch.randn(n, 2, generator=generator, device="cpu", dtype=torch.float64)
        along = 1 + _RADIAL_STD * noise[:, 0]
        across = _TANGENTIAL_STD * noise[:, 1]
        turn = _SECTOR * label.double() + _RATE * along.exp()
        return _SCALE * _turn_clockwise(along, across, turn), label

    def _log_density(self, x: Tensor) -> Tensor:
        return torch.cat([_log_density_of_chunk(points) for points in torch.split(x, _POINTS_PER_CHUNK)])


def _turn_clockwise(x: Tensor, y: Tensor, angle: Tensor) -> Tensor:
    """Turn the vectors (x, y), each `[n]`, by the angles `[n]`; returns `[n, 2]`."""
    return torch.stack([x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()], dim=-1)


def _log_density_of_chunk(x: Tensor) -> Tensor:
    # A point at polar angle φ comes from a point of the straight blade, at polar angle ψ and of the same
    # radius rho, if
    #     ψ - rate · exp(rho cos ψ) - φ = (2π / 5) m,        m an integer.
    # The left side has at most two critical points, both in (-π, 0). On each of the branches between them the
    # integers between its values at the ends are its roots, and bisection finds each of them.
    inside = torch.linalg.vector_norm(x.detach() / _SCALE, dim=-1) <= _LARGEST_RADIUS  # [n], False for NaN
    # Points outside are replaced before anything is computed with them, so that no NaN enters a gradient.
    point = torch.where(inside[:, None], x / _SCALE, 0.0)
    with torch.no_grad():
        radius = torch.linalg.vector_norm(point, dim=-1, keepdim=True)  # [n, 1]
        polar = torch.atan2(point[:, 1:], point[:, :1])  # [n, 1]
        ends = _branch_ends(radius)  # [n, 4]
        start, end = ends[:, :-1], ends[:, 1:]  # [n, 3]
        at_start = (_unbent_angle(start, radius) - polar) / _SECTOR
        at_end = (_unbent_angle(end, radius) - polar) / _SECTOR
        # Half-open, so that a root where two branches meet counts once; -π and π are one angle, and meet too.
        first = torch.minimum(at_start, at_end).ceil()
        last = torch.maximum(at_start, at_end).ceil() - 1
        most_roots = int((last - first).max()) + 1 if len(x) else 0

    log_terms = [torch.full_like(point, -math.inf)]
    for root in range(most_roots):
        with torch.no_grad():
            exists = first + root <= last  # [n, 3]
            target = (first + root) * _SECTOR + polar
            angle = _bisect(lambda a: _unbent_angle(a, radius), target, start, end, rising=at_end > at_start)
            # Where there is no root, any angle at which the slope below is not 0.
            bend = torch.where(exists, angle, math.pi / 2) - polar
            along, across = _turn_back(point, bend)
            residual = bend - _RATE * along.exp()
            slope = 1 + _RATE * along.exp() * across
        # One Newton correction of the converged root: 0 in value, in derivative that of the implicit function.
        along, across = _turn_back(point, bend)
        bend = bend - (bend - _RATE * along.exp() - residual) / slope
        along, across = _turn_back(point, bend)
        log_slope = (1 + _RATE * along.exp() * across).abs().log()
        log_blade = gaussian_log_kernel(along - 1, _RADIAL_STD) + gaussian_log_kernel(across, _TANGENTIAL_STD)
        log_terms.append(torch.where(exists, log_blade - log_slope, -math.inf))
    log_prob = torch.logsumexp(torch.cat(log_terms, dim=-1), dim=-1) - math.log(5 * _SCALE**2)
    log_prob = torch.where(inside, log_prob, -math.inf)
    return torch.where(x.isnan().any(dim=-1), math.nan, log_prob)


def _unbent_angle(angle: Tensor, radius: Tensor) -> Tensor:
    """Polar angle of the image of a blade's point given by its polar angle and radius."""
    return angle - _RATE * (radius * angle.cos()).exp()


def _turn_back(point: Tensor, bend: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates along and across, `[n, k]`, of points `[n, 2]` turned counter-clockwise by `[n, k]`."""
    x, y = point[:, :1], point[:, 1:]
    return x * bend.cos() - y * bend.sin(), x * bend.sin() + y * bend.cos()


def _branch_ends(radius: Tensor) -> Tensor:
    """Angles `[n, 4]` from -π to π between which `_unbent_angle` is monotone, for radii `[n, 1]`.

    It rises, falls and rises; where it does not fall, the two inner angles agree.
    """

    def slope(angle: Tensor) -> Tensor:
        return 1 + _RATE * radius * angle.sin() * (radius * angle.cos()).exp()

    # The slope is smallest where its derivative vanishes: cos ψ = rho sin² ψ, a quadratic equation for cos ψ.
    steepest = -torch.acos(2 * radius / (1 + (1 + 4 * radius**2).sqrt()))
    pi = torch.full_like(radius, math.pi)
    zero = torch.zeros_like(radius)
    falls = slope(steepest) < 0
    fall_starts = _bisect(slope, zero, -pi, steepest, rising=torch.zeros_like(falls))
    fall_ends = _bisect(slope, zero, steepest, zero, rising=torch.ones_like(falls))
    return torch.cat(
        [-pi, torch.where(falls, fall_starts, steepest), torch.where(falls, fall_ends, steepest), pi], dim=-1
    )


def _bisect(
    function: Callable[[Tensor], Tensor], target: Tensor, low: Tensor, high: Tensor, *, rising: Tensor
) -> Tensor:
    """Where a function that is monotone between `low` and `high` takes the value `target`, elementwise."""
    n_halvings = 3 - round(math.log2(torch.finfo(low.dtype).eps))  # from a width of 2π down to rounding
    for _ in range(n_halvings):
        middle = 0.5 * (low + high)
        go_right = (function(middle) < target) == rising
        low, high = torch.where(go_right, middle, low), torch.where(go_right, high, middle)
    return 0.5 * (low + high)


@lru_cache(maxsize=1)
def _entropy() -> float:
    # The mean of -log p over the points (r, s) of one blade, as all five have the same; trapezoidal rule with
    # normal weights.
    z = torch.arange(-8.0, 8.0, 0.1, dtype=torch.float64, device="cpu")
    weight = (-0.5 * z**2).exp()
    weight = weight / weight.sum()
    along, across = torch.meshgrid(1 + _RADIAL_STD * z, _TANGENTIAL_STD * z, indexing="ij")
    along, across = along.reshape(-1), across.reshape(-1)
    x = _SCALE * _turn_clockwise(along, across, _RATE * along.exp())
    log_p = Pinwheel().log_prob(x).reshape(len(z), len(z))
    return -float(weight @ log_p @ weight)
