"""A body on an elliptic orbit."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["TwoBody"]


class TwoBody:
    """`q'' = -q / |q|^3` in the plane, as a field of `(q, q')`: the larger the eccentricity, the sharper the turns.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.two_body import TwoBody
        >>> TwoBody()(torch.tensor(0.0), torch.tensor([[2.0, 0.0, 0.0, 1.0]]))
        tensor([[ 0.0000,  1.0000, -0.2500, -0.0000]])

    References:
        Hairer, Lubich, Wanner: Geometric Numerical Integration, 2nd ed., section I.2.
    """

    @staticmethod
    def starts(count: int, seed: int) -> Tensor:
        """Draws where orbits of period 2 pi are furthest from their focus, `[count, 4]`, float64.

        Eccentricities are uniform in [0.2, 0.9].
        """
        e = 0.2 + 0.7 * torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        none = torch.zeros_like(e)
        return torch.stack([1 + e, none, none, ((1 - e) / (1 + e)).sqrt()], -1)

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """The field at states `[..., 4]`."""
        place, velocity = x[..., :2], x[..., 2:]
        distance = torch.linalg.vector_norm(place, dim=-1, keepdim=True)
        return torch.cat([velocity, -place / distance**3], -1)
