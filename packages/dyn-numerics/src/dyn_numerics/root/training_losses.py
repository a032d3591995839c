"""What a neural solver of fixed points is trained by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

from dyn_numerics.norms import rms_norm
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.root.neural_anderson import Mixture
from dyn_numerics.root.unroll import Iterates

__all__ = ["convergence_loss", "initial_loss", "mixing_loss"]


def convergence_loss(iterates: Iterates, exact: Any, weights: Tensor | None = None) -> Tensor:
    """Distances of the iterates to the solution, the start apart: `sum_k w_k |z_k - z*|` for k = 1 to `n_steps`.

    Args:
        iterates: What `unroll` returned.
        exact: The solution `z*`, in the structure of `z0`, `[batch, ...]`.
        weights: The weights `w_k`, `[n_steps]`. Of a solver that converges the first distances are the largest by far; the
            weights say which of them count. Those in proportion to `k` when None. They are scaled to a sum of 1.

    Returns:
        The loss of each sample, `[batch]`, in the units of `z`; the norm is the root mean square.

    Raises:
        ValueError: If `exact` or `weights` have another shape.

    Example:
        >>> import torch
        >>> from dyn_numerics import convergence_loss, unroll
        >>> iterates = unroll(lambda z: z / 2 + 1, torch.zeros(1, 1), solver="fixed_point", n_steps=2)
        >>> convergence_loss(iterates, torch.full((1, 1), 2.0))  # 1 * 1/3 + 1/2 * 2/3
        tensor([0.6667])

    References:
        S. Bai, V. Koltun, J. Z. Kolter: Neural Deep Equilibrium Solvers, ICLR 2022, section 4.2, fixed-point convergence loss;
        there the norm is the Euclidean one.
    """
    distances = _distances(iterates, exact)[1:]
    if weights is None:
        weights = torch.arange(1, len(distances) + 1, device=distances.device)
    if weights.shape != distances.shape[:1]:
        raise ValueError(f"weights: got shape {list(weights.shape)}, expected {[len(distances)]}, one for every step")
    weights = weights.to(distances.dtype)
    return (weights / weights.sum()) @ distances


def initial_loss(iterates: Iterates, exact: Any) -> Tensor:
    """Distance of the start to the solution, `|z_0 - z*|`.

    Args:
        iterates: What `unroll` returned.
        exact: The solution `z*`, in the structure of `z0`, `[batch, ...]`.

    Returns:
        The loss of each sample, `[batch]`, in the units of `z`; the norm is the root mean square.

    Raises:
        ValueError: If `exact` has another shape.

    Example:
        >>> import torch
        >>> from dyn_numerics import initial_loss, unroll
        >>> iterates = unroll(lambda z: z / 2 + 1, torch.zeros(1, 1), solver="fixed_point", n_steps=2)
        >>> initial_loss(iterates, torch.full((1, 1), 2.0))
        tensor([2.])

    References:
        S. Bai, V. Koltun, J. Z. Kolter: Neural Deep Equilibrium Solvers, ICLR 2022, section 4.2, initializer loss.
    """
    return _distances(iterates, exact)[0]


def mixing_loss(iterates: Iterates) -> Tensor:
    """Mixed residuals, `sum_k |sum_i alpha_i f_i|`: what the weights of Anderson acceleration make least in every step.

    It leads the weights at the start of a training; then it is given less and less weight, since steps that are best by
    themselves are not the best together.

    Args:
        iterates: What `unroll` returned for a `NeuralAnderson`.

    Returns:
        The loss of each sample, `[batch]`, in the units of the residual; the norm is the root mean square.

    Raises:
        TypeError: If the iterates are those of a method that mixes nothing.

    Example:
        >>> import torch
        >>> from dyn_numerics import NeuralAnderson, mixing_loss, unroll
        >>> iterates = unroll(lambda z: z / 2 + 1, torch.zeros(1, 1), solver=NeuralAnderson(), n_steps=2)
        >>> mixing_loss(iterates).detach()  # of 1 and 1/2, before training
        tensor([1.5000])

    References:
        S. Bai, V. Koltun, J. Z. Kolter: Neural Deep Equilibrium Solvers, ICLR 2022, section 4.2, alpha loss.
    """
    if not isinstance(iterates.internals, Mixture):
        raise TypeError(f"iterates: got internals {iterates.internals!r:.40}, expected those of a NeuralAnderson")
    return iterates.internals.residual.sum(dim=0)


def _distances(iterates: Iterates, exact: Any) -> Tensor:
    """Root mean squares of what iterates lack, `[n_steps + 1, batch]`."""
    layout = StateLayout(tree_map(lambda leaf: leaf[0], iterates.z), "iterates.z", batched=True)
    expected = [[*layout.lead, *shape] for shape in layout.shapes]
    found = [list(leaf.shape) for leaf in tree_leaves(exact)]
    if found != expected or tree_structure(exact) != tree_structure(iterates.z):
        raise ValueError(f"exact: got shapes {found}, expected the structure of z0 and shapes {expected}")
    return rms_norm(layout.flatten(iterates.z) - layout.flatten(exact), dim=-1)
