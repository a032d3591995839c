"""Anderson's mixing with weights, damping and start that are learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dyn_numerics.arguments import kind_of, positive, positive_integer
from dyn_numerics.norms import rms_norm
from dyn_numerics.pytree_state import StateLayout
from dyn_numerics.root.mixing_network import MixingNetwork
from dyn_numerics.root.root_stepper import Context, FlatFunction, Proposal, RootStepper

__all__ = ["Mixture", "NeuralAnderson"]


class Past(NamedTuple):
    """What the last iterates were, the newest first.

    Attributes:
        z: Iterates, `[batch, m, N]`, zero where there are not so many yet.
        value: Their residuals, the same.
    """

    z: Tensor
    value: Tensor


class Mixture(NamedTuple):
    """How a step was mixed: the `internals` of `NeuralAnderson`.

    Attributes:
        weights: Weights of the last iterates, the newest first, `[batch, m]`; their sum is 1.
        damping: How much of the mixed residual is added, `[batch]`.
        residual: Root mean square of the mixed residual, `[batch]`.
    """

    weights: Tensor
    damping: Tensor
    residual: Tensor


class NeuralAnderson(RootStepper):
    """Mixes the last iterates and their residuals as Anderson acceleration does, with weights that a network says.

    With the last `m` iterates `z_i` and residuals `f_i`, the next one is `sum_i alpha_i z_i + beta sum_i alpha_i f_i`. Where
    `Anderson` finds the weights by least squares, here a network that sees the residuals says weights and damping of every
    sample in every step, and another says where to start. A step costs one evaluation and solves nothing.

    It is made to be trained on the equations that it is to solve, by `unroll` and `convergence_loss`, `initial_loss` and
    `mixing_loss`. Before that it is the fixed-point iteration: the weights are 1 for the newest iterate and 0 for the others,
    plus what the network says, with its mean taken away; the damping is multiplied by the exponential of what it says. Of
    its result nothing has to be believed: the search ends when the residual is small.

    Args:
        initial: Module or function of the extra arguments, `initial(*args)`, that says what is added to the start, in
            structure, shapes and dtypes of `z0`; None for nothing.
        mixing: Module or function `mixing(residuals, n)`. `residuals` are in the structure of the state, leaves
            `[batch, m, ...]` in float32 at least, the newest first; `n`, an integer or `[]`, is how many there are, and those
            behind are zero. It returns `[batch, m + 1]`: what is added to the weights, and the logarithm of what multiplies
            the damping. None for `MixingNetwork(m)`.
        m: How many iterates are mixed; a small number, 3 to 6.
        damping: How much of the residual is added before training.

    Raises:
        TypeError: If an argument has the wrong type; in a search, if `initial` returns another structure or dtype than z0's.
        ValueError: If `m` or `damping` is not positive; in a search, if what a network returns has another shape.

    Example:
        >>> import torch
        >>> from dyn_numerics import NeuralAnderson, fixed_point, unroll
        >>> solver = NeuralAnderson(m=3)
        >>> sum(p.numel() for p in solver.parameters())  # of the network that says weights and damping
        644
        >>> loss = unroll(torch.cos, torch.ones(1, 1), solver=solver, n_steps=5).residual.sum()
        >>> loss.backward()
        >>> with torch.no_grad():
        ...     z, stats = fixed_point(torch.cos, torch.ones(1, 1), solver=solver)
        >>> round(z.item(), 2)
        0.74

    References:
        S. Bai, V. Koltun, J. Z. Kolter: Neural Deep Equilibrium Solvers, ICLR 2022, algorithm 2. There residuals are pooled
        and weights said outright; here the network sees the angles between residuals, and says what the fixed-point
        iteration lacks.
    """

    takes_complex = False

    def __init__(
        self,
        initial: Callable[..., Any] | None = None,
        mixing: Callable[[Any, int | Tensor], Tensor] | None = None,
        m: int = 5,
        damping: float = 1.0,
    ) -> None:
        super().__init__()
        for name, network in (("initial", initial), ("mixing", mixing)):
            if network is not None and (not callable(network) or isinstance(network, type)):
                raise TypeError(f"{name}: got {kind_of(network)}, expected a module, a function or None")
        self.m = positive_integer("m", m)
        self.damping = positive("damping", damping, "a positive number")
        self.initial = initial
        self.mixing = MixingNetwork(self.m) if mixing is None else mixing

    def extra_repr(self) -> str:
        return f"m={self.m}, damping={self.damping:g}"

    def start(self, z: Any, *args: Any) -> Any:
        if self.initial is None:
            return z
        layout, said = StateLayout(z, "z0", batched=True), self.initial(*args)
        layout.check("initial", said, like="as z0")
        return tree_map(torch.add, z, said)

    def init(self, z: Tensor, context: Context) -> Past:
        none = z.new_zeros(len(z), self.m, z.shape[-1])
        return Past(none, none)

    def step(self, f: FlatFunction, z: Tensor, carry: Past, context: Context) -> Proposal:
        past = Past(*(_pushed(new, old) for new, old in zip((z, context.value), carry, strict=True)))
        weights, damping = self._said(past, context)
        point, residual = (
            (weights.unsqueeze(1) @ torch.cat(past, dim=-1)).squeeze(1).chunk(2, dim=-1)
        )  # [batch, N] each
        mixture = Mixture(weights, damping, rms_norm(residual, dim=-1))
        return Proposal(point + damping.unsqueeze(-1) * residual, past, internals=mixture)

    def _said(self, past: Past, context: Context) -> tuple[Tensor, Tensor]:
        """Weights `[batch, m]` and damping `[batch]`."""
        batch, newest = len(past.z), torch.arange(self.m, device=past.z.device)
        n = context.n_steps + 1
        n = n.clamp(max=self.m) if isinstance(n, Tensor) else min(n, self.m)
        said = self.mixing(context.layout.unflatten(past.value, cast=False), n)
        if not isinstance(said, Tensor) or said.shape != (batch, self.m + 1):
            got = f"shape {list(said.shape)}" if isinstance(said, Tensor) else f"a {type(said).__name__}"
            raise ValueError(f"mixing: returned {got}, expected a tensor of shape {[batch, self.m + 1]}")
        said = said.to(past.z.dtype)
        there = newest < n
        correction = torch.where(there, said[:, :-1], 0)
        correction = torch.where(there, correction - correction.sum(dim=-1, keepdim=True) / n, 0)
        return (newest == 0).to(said.dtype) + correction, self.damping * said[:, -1].exp()


def _pushed(new: Tensor, old: Tensor) -> Tensor:
    """Vectors `[batch, m, N]` with another one in front, `[batch, N]`, and without the last."""
    return torch.cat([new.unsqueeze(1), old[:, :-1]], dim=1)
