"""The largest eigenvalue of a matrix that is known by its products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dyn_numerics.norms import norm_at_any_scale

__all__ = ["spectral_radius"]

N_ITERATIONS = 8


def spectral_radius(product: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    """Estimates the largest magnitude of an eigenvalue by power iteration: eight products.

    It is the mean growth over the later of these, in the logarithm, since vectors turn where eigenvalues are complex. Where one
    eigenvalue is far above the others it is exact.

    Args:
        product: Multiplies `[*lead, N]` with a matrix for each problem.
        v: Vectors to start from, `[*lead, N]`, not zero; some part of them has to lie in the direction looked for.

    Returns:
        Real, `[*lead]`, without gradient.

    Example:
        >>> import torch
        >>> from dyn_numerics.ode.jacobians.spectral_radius import spectral_radius
        >>> matrix = torch.tensor([[0.0, 1.0], [-1000.0, -1001.0]])
        >>> round(spectral_radius(lambda v: matrix @ v, torch.ones(2)).item(), 2)
        1000.0

    References:
        G. H. Golub, C. F. Van Loan: Matrix Computations, 4th ed. (2013), section 7.3.1.
    """
    growths = []
    with torch.no_grad():
        for _ in range(N_ITERATIONS):
            v = v / norm_at_any_scale(v).clamp_min(torch.finfo(v.dtype).tiny).unsqueeze(-1)
            v = product(v)
            growths.append(norm_at_any_scale(v))
        return torch.stack(growths[N_ITERATIONS // 2 :]).log().mean(0).exp()
