"""Gradients of two processes that share a batch, against those of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dyn_sensitivity import odeint

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")

D = torch.float64

# Of samples that do not see each other: a step that both halves of the batch chose together would be another one.
SOLVES: dict[str, dict[str, Any]] = {
    "autograd": {"stepping": "per_sample", "rtol": 1e-5, "atol": 1e-5},
    "checkpoint": {"stepping": "per_sample", "rtol": 1e-5, "atol": 1e-5},
    "adjoint": {"solver": "rk4", "step_size": 0.1},
    "reversible": {"solver": "reversible_heun", "stepping": "per_sample", "rtol": 1e-4, "atol": 1e-4},
}


class Model(nn.Module):
    """A neural differential equation with a frozen parameter, and one that its field shares with its read-out."""

    def __init__(self, sensitivity: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(2, 8, dtype=D), nn.Linear(8, 2, dtype=D)
        self.scale = nn.Parameter(torch.tensor(1.2, dtype=D))
        self.rate = nn.Parameter(torch.tensor(0.3, dtype=D), requires_grad=False)
        self.sensitivity = sensitivity

    def field(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.last(torch.tanh(self.first(x))) * torch.cos(t) - self.rate * x

    def forward(self, x0: torch.Tensor) -> torch.Tensor:
        x = odeint(self.field, x0, [0.0, 0.4, 1.0], sensitivity=self.sensitivity, **SOLVES[self.sensitivity]).x
        return self.scale * x[1:]


def gradients(model: nn.Module, x0: torch.Tensor) -> list[torch.Tensor | None]:
    """Of two steps, the second of which starts with the gradient of the first one."""
    for _ in range(2):
        model(x0).pow(2).mean().backward()
    return [parameter.grad for parameter in model.parameters()]


def batch() -> torch.Tensor:
    return torch.randn(6, 2, dtype=D, generator=torch.Generator().manual_seed(1))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = {name: gradients(DistributedDataParallel(Model(name)), batch()[rank::2]) for name in SOLVES}
    torch.save(found, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    for rank in range(2):
        found = torch.load(tmp_path / str(rank))
        for name in SOLVES:
            for one, other in zip(found[name], gradients(Model(name), batch()), strict=True):
                assert (one is None) == (other is None)
                if other is not None:
                    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])
