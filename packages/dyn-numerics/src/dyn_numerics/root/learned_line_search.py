"""A line search whose first length is learned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dyn_numerics.arguments import kind_of
from dyn_numerics.norms import rms_norm_at_any_scale
from dyn_numerics.root.line_search import LineSearch
from dyn_numerics.root.root_stepper import Context

__all__ = ["LearnedLineSearch"]


class LearnedLineSearch(LineSearch):
    """Tries first what a network says, and halves the length until the residual falls.

    The network sees three numbers of each sample: the logarithms of the root mean squares of the residual `f` and of the step
    `d`, in their units, and the cosine of the angle between them, 1 where the method goes along the residual. It says the
    logarithm of the length. Whatever it says, no length is accepted at which the residual is not smaller. It is trained
    by `unroll`: of the lengths that are tried the first one has a gradient, and the others are its halves.

    Args:
        net: Module or function of `[batch, 3]` that returns `[batch, 1]`, logarithms of lengths. None for two layers with 81
            parameters, of which the last starts as zero: before training the first length is 1. A module computes in the dtype
            of its weights.
        max_trials: How many lengths are tried at most.

    Raises:
        TypeError: If `net` cannot be called.
        ValueError: If `max_trials` is not a positive integer; in a search, if `net` returns another shape.

    Example:
        >>> import torch
        >>> from dyn_numerics import LearnedLineSearch, unroll
        >>> search = LearnedLineSearch(torch.nn.Linear(3, 1))
        >>> optimizer = torch.optim.Adam(search.parameters(), lr=0.05)
        >>> for _ in range(100):  # along the residual, a length of 1/2 is best
        ...     z0 = torch.randn(16, 4)
        ...     last = unroll(lambda z: -2 * z, z0, kind="root", solver="fixed_point", line_search=search, n_steps=1)
        ...     optimizer.zero_grad()
        ...     last.residual[-1].mean().backward()
        ...     optimizer.step()
        >>> bool((last.residual[-1] / last.residual[0]).mean() < 0.2)
        True
    """

    def __init__(self, net: Callable[[Tensor], Tensor] | None = None, max_trials: int = 30) -> None:
        super().__init__(max_trials)
        if net is not None and (not callable(net) or isinstance(net, type)):
            raise TypeError(f"net: got {kind_of(net)}, expected a module, a function or None")
        self.net = _small_network() if net is None else net

    def first_length(self, direction: Tensor, context: Context) -> Tensor:
        value = context.value
        tiny = torch.finfo(value.dtype).tiny
        norms = [rms_norm_at_any_scale(each).clamp(min=tiny) for each in (value, direction)]
        units = [each / norm.unsqueeze(-1) for each, norm in zip((value, direction), norms, strict=True)]
        cosine = (units[0].conj() * units[1]).mean(dim=-1).real
        seen = torch.stack([norms[0].log(), norms[1].log(), cosine], dim=-1)
        weight = next(self.parameters(), seen)
        said = self.net(seen.to(weight.dtype))
        if not isinstance(said, Tensor) or said.shape != (len(seen), 1):
            got = f"shape {list(said.shape)}" if isinstance(said, Tensor) else f"a {type(said).__name__}"
            raise ValueError(f"net: returned {got}, expected a tensor of shape {[len(seen), 1]}")
        return said.squeeze(-1).exp().to(seen.dtype)

    def accepts(self, length: Tensor, norm: Tensor, context: Context) -> Tensor:
        return torch.ones_like(norm, dtype=torch.bool)

    def next_length(self, length: Tensor, norm: Tensor, context: Context) -> Tensor:
        return length / 2


def _small_network() -> nn.Module:
    last = nn.Linear(16, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), last)
