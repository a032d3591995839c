"""Step-size control by a network."""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dyn_numerics import Controller, PIDController, Verdict

__all__ = ["NeuralController"]

FEATURES, WIDTH = 6, 8
SIZES = (5, FEATURES * WIDTH, WIDTH, 2 * WIDTH, 2)  # the PID's numbers, and both layers' weights and biases
USUAL = 0.05  # weight of the newest step size in their mean


class Memory(NamedTuple):
    """What the controller remembers, all in logarithms.

    Attributes:
        error: Error of the last accepted step, per order.
        error_before: That of the one before.
        rejected: Whether the last attempt was rejected.
        size: Step size, in units of the first.
        usual: Mean of recent step sizes.
    """

    error: Tensor
    error_before: Tensor
    rejected: Tensor
    size: Tensor
    usual: Tensor


class NeuralController(Controller):
    """A PID controller whose factor and whose limit of acceptance a network moves.

    The network sees the last three errors, whether the last attempt was rejected, and whether steps are shorter than
    usual: unlike a PID controller it may prefer some phases of a solution to others, and accept an error above 1 where a
    rejection would cost more than that error.

    Args:
        weights: `[..., count]`; their leading dimensions are those of the problems, so that every sample of a batch may
            have a controller of its own.

    Attributes:
        weights: The same, without gradient.

    Example:
        >>> import torch
        >>> from dyn_bench.benchmarks.neural_controller import NeuralController
        >>> from dyn_numerics import PIDController, odeint
        >>> controller = NeuralController(NeuralController.around(PIDController(), seed=0))
        >>> with torch.no_grad():
        ...     sol = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], controller=controller)
        >>> sol.status.name
        'SUCCESS'
    """

    differentiable = True  # it receives tensors

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights, requires_grad=False)

    @staticmethod
    def around(pid: PIDController, seed: int) -> Tensor:
        """The weights `[count]`, float64, that make it this PID controller, with a hidden layer that is drawn."""
        generator = torch.Generator().manual_seed(seed)
        base, hidden, *rest = (torch.zeros(size, dtype=torch.float64) for size in SIZES)
        base[:4] = torch.tensor([pid.p, pid.i, pid.d, log(pid.safety)], dtype=torch.float64)
        hidden = 0.7 * torch.randn(hidden.shape, dtype=hidden.dtype, generator=generator)
        return torch.cat([base, hidden, *rest])

    @staticmethod
    def completed(pids: Tensor) -> Tensor:
        """The weights `[..., count]` of PID controllers, of which p, i, d and the logarithm of the safety are given."""
        return torch.cat([pids, pids.new_zeros(*pids.shape[:-1], sum(SIZES) - pids.shape[-1])], -1)

    def init(self) -> Memory:
        return Memory(0.0, 0.0, False, 0.0, 0.0)  # type: ignore[arg-type]  # tensors from the first attempt on

    def judge(self, error: Tensor, error_order: int, memory: Memory) -> Verdict:  # type: ignore[override]
        last, before, rejected, size, usual = memory
        e = error.clamp(1e-10, 1e10).log() / (error_order + 1)
        seen = torch.stack([e, last, before, rejected.to(e.dtype), size - usual, e - last], -1)
        base, weights, biases, out, offsets = torch.split_with_sizes(self.weights, SIZES, -1)
        weights = weights.reshape(*weights.shape[:-1], FEATURES, WIDTH)
        out = out.reshape(*out.shape[:-1], WIDTH, 2)
        hidden = ((seen.unsqueeze(-1) * weights).sum(-2) + biases).tanh()
        of_factor, of_limit = ((hidden.unsqueeze(-1) * out).sum(-2) + offsets).unbind(-1)
        p, i, d, safety, limit = base.unbind(-1)
        accept = error <= (limit + of_limit).clamp(-3, 3).exp()
        factor = safety - (p + i + d) * e + (p + 2 * d) * last - d * before + of_factor
        factor = factor.clamp(log(0.2), log(10.0))
        factor = torch.where(rejected, factor.clamp(max=0), factor)
        factor = torch.where(accept, factor, factor.clamp(max=-0.1))  # retries end
        kept = Memory(
            error=torch.where(accept, e, last),
            error_before=torch.where(accept, last, before),
            rejected=~accept,
            size=size + factor,
            usual=torch.where(accept, usual + USUAL * (size - usual), usual),
        )
        return Verdict(accept, factor.exp(), kept)
