"""What the tests of Jacobians share: a field whose elements see their neighbours, the solve it is in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dyn_numerics import SolveContext
from dyn_numerics.ode.error_norm import ErrorNorm
from dyn_numerics.pytree_state import StateLayout

D = torch.float64


def normal(*shape: int, dtype: torch.dtype = D, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def random() -> Callable[..., Tensor]:
    """Normally distributed numbers of a shape, a dtype and a seed."""
    return normal


class Neighbours:
    """A field that depends on time, whose elements see one element before them and two after."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        around = torch.nn.functional.pad(x, (1, 2))
        before, after, beyond = around[..., :-3], around[..., 2:-1], around[..., 3:]
        return torch.sin(x * t.unsqueeze(-1)) + before**2 - 3 * x * after + 0.5 * beyond

    def jacobian(self, t: Tensor, x: Tensor) -> Tensor:
        """By hand, `[*lead, N, N]`."""
        size = x.shape[-1]
        around = torch.nn.functional.pad(x, (1, 2))
        time = t.unsqueeze(-1)
        found = torch.diag_embed(time * torch.cos(x * time) - 3 * around[..., 2:-1])
        if size > 1:
            found = found + torch.diag_embed(2 * x[..., :-1], offset=-1) + torch.diag_embed(-3 * x[..., :-1], offset=1)
        if size > 2:
            found = found + torch.diag_embed(0.5 * torch.ones_like(x[..., 2:]), offset=2)
        return found

    def rate(self, t: Tensor, x: Tensor) -> Tensor:
        return x * torch.cos(x * t.unsqueeze(-1))


@pytest.fixture
def neighbours() -> Neighbours:
    return Neighbours()


@pytest.fixture
def context() -> Callable[..., SolveContext]:
    """The context of a solve of a state, every sample by itself if it is batched."""

    def of(state: Any, batched: bool = False, args: tuple[Any, ...] = (), rtol: float = 1e-6) -> SolveContext:
        layout = StateLayout(state, "x0", batched)
        return SolveContext(layout, args, ErrorNorm(rtol, rtol, layout, None, on_host=not batched))

    return of
