"""Every promise of a line search can be broken, and breaks no other."""

import pytest
import torch
from torch import nn

from dyn_numerics import LineSearch
from dyn_numerics.contracts import LineSearchContract
from dyn_numerics.root.line_search import Searched


class Halving(LineSearch):
    """Halves a step until the residual falls, without a fault. Its faults override a part each."""

    def accepts(self, length, norm, context):
        return torch.ones_like(norm, dtype=torch.bool)

    def next_length(self, length, norm, context):
        return length / 2


class Learned(Halving):
    """Tries first what a parameter says."""

    def __init__(self):
        super().__init__()
        self.length = nn.Parameter(torch.tensor(0.9))

    def first_length(self, direction, context):
        return self.length.to(context.norm) * torch.ones_like(context.norm)


class AcceptsNothing(Halving):
    def accepts(self, length, norm, context):
        return torch.zeros_like(norm, dtype=torch.bool)


class TakesWholeSteps(Halving):
    def search(self, f, z, direction, context):
        return Searched(z + direction, f(z + direction), 1)


class TurnsAside(Halving):
    """One length for each element; where the function is elementwise the residual falls all the same."""

    def search(self, f, z, direction, context):
        found = super().search(f, z, direction, context)
        there = z + 0.9 * (found.z - z) * torch.linspace(0.5, 1, z.shape[-1], dtype=found.value.real.dtype)
        stays = (found.z == z).all(dim=-1, keepdim=True)
        there = torch.where(stays, z, there)
        with torch.no_grad():
            return Searched(there, torch.where(stays, found.value, f(there)), found.n_evals + 1)


class HandsOnTheOldResidual(Halving):
    def search(self, f, z, direction, context):
        return super().search(f, z, direction, context)._replace(value=0.99 * context.value)


class CountsOneOnly(Halving):
    def search(self, f, z, direction, context):
        return super().search(f, z, direction, context)._replace(n_evals=1)


class TriesForever(Halving):
    def search(self, f, z, direction, context):
        found = super().search(f, z, direction, context)
        with torch.no_grad():
            for _ in range(self.max_trials):
                f(z)
        return found._replace(n_evals=found.n_evals + self.max_trials)


class CreepsUpwards(Halving):
    """Goes on a little where the residual falls nowhere."""

    def search(self, f, z, direction, context):
        found = super().search(f, z, direction, context)
        stays = (found.z == z).all(dim=-1, keepdim=True) & torch.isfinite(direction)
        return found._replace(z=torch.where(stays, z + 1e-9 * direction, found.z))


class WaitsForAll(Halving):
    """Accepts once all samples could."""

    def accepts(self, length, norm, context):
        return (norm < context.norm).all().expand(len(norm))


class CouplesSamplesByRounding(Halving):
    def first_length(self, direction, context):
        return super().first_length(direction, context) * (1 + 1e-14 * context.norm[0].sin())


class DetachesItsLength(Learned):
    def first_length(self, direction, context):
        return super().first_length(direction, context).detach()


class DetachesTheStep(Halving):
    def search(self, f, z, direction, context):
        return super().search(f, z, direction.detach(), context)


class DiffersFromItsCopies(Halving):
    def __init__(self):
        super().__init__()
        self.shrinkage = 0.5 + 0.1 * torch.rand(()).item()

    def next_length(self, length, norm, context):
        return self.shrinkage * length


FAULTS = {
    AcceptsNothing: {"leads_to_the_root_from_afar"},
    TakesWholeSteps: {"residuals_fall", "leads_to_the_root_from_afar", "a_sample_with_nowhere_to_go_stays"},
    TurnsAside: {"goes_along_the_step"},
    HandsOnTheOldResidual: {
        "value_is_the_residual",
        "leads_to_the_root_from_afar",
        "a_sample_with_nowhere_to_go_stays",
        "gradients",
    },
    CountsOneOnly: {"counts_its_evaluations"},
    TriesForever: {"counts_its_evaluations"},
    CreepsUpwards: {"a_sample_with_nowhere_to_go_stays"},
    WaitsForAll: {"a_sample_with_nowhere_to_go_stays", "leads_to_the_root_from_afar"},
    CouplesSamplesByRounding: {"rows_do_not_meet"},
    DetachesItsLength: {"gradients"},
    DetachesTheStep: {"gradients"},
    DiffersFromItsCopies: {"copies_search_alike"},
}


def contract(search, **settings):
    return type("Contract", (LineSearchContract,), {"make": lambda self: search(), **settings})


@pytest.mark.parametrize("search", [Halving, Learned], ids=lambda search: search.__name__)
def test_a_search_without_fault_keeps_every_promise(search, broken_promises):
    assert broken_promises(contract(search)) == set()


@pytest.mark.parametrize("search", FAULTS, ids=lambda search: search.__name__)
def test_a_fault_breaks_the_promises_that_speak_of_it(search, broken_promises):
    assert broken_promises(contract(search)) == FAULTS[search]


def test_every_promise_is_broken_by_some_fault():
    promises = {name.removeprefix("test_") for name in dir(LineSearchContract) if name.startswith("test_")}
    assert set().union(*FAULTS.values()) == promises


def test_without_a_search_it_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"TestMine\.make: expected a method that returns the line search"):
        type("TestMine", (LineSearchContract,), {})().test_residuals_fall()
