"""Every promise of a controller can be broken, one by one."""

from math import inf

import pytest
import torch
from torch import nn

from dyn_numerics import Controller, FixedStep, Verdict
from dyn_numerics.contracts import ControllerContract
from dyn_numerics.ode.scalar import clip, minimum, power, where


class Integral(Controller):
    """The classical controller without a fault, with the error before as its memory. Its faults override a part each."""

    def init(self):
        return 1.0

    def judge(self, error, error_order, memory):
        accept = self.accepts(error)
        factor = 0.9 * power(clip(error, 1e-10, 1e10), -1 / (error_order + 1)) * power(memory, 0.01)
        factor = clip(factor, 0.2, 5.0)
        factor = where(accept, factor, minimum(factor, 0.9))
        return Verdict(accept, self.change(factor, error), self.remember(error, memory))

    def accepts(self, error):
        return error <= 1

    def change(self, factor, error):
        return factor

    def remember(self, error, memory):
        return clip(error, 1e-3, 1e3)


class StandsStill(Integral):
    def change(self, factor, error):
        return where(error == 0, 0 * factor, factor)


class RejectsEverySecond(Integral):
    def accepts(self, error):
        return (error > 1e-13) & (error <= 1)


class AcceptsTheInfinite(Integral):
    def accepts(self, error):
        return (error <= 1) | (error == inf)


class LengthensAfterARejection(Integral):
    def change(self, factor, error):
        return where((error > 1) & (error < 2), 1.1 + 0 * factor, factor)


class RemembersInAttributes(Integral):
    last = 1.0

    def change(self, factor, error):
        factor = factor * (1 - 1e-6 * float(torch.as_tensor(self.last).clamp(0, 1e3).mean()))
        self.last = error
        return factor


class ChangesItsMemory(Integral):
    def remember(self, error, memory):
        return (super().remember(error, memory),)

    def judge(self, error, error_order, memory):
        return super().judge(error, error_order, memory[0] if isinstance(memory, tuple) else memory)


class ReadsTensorsOtherwise(Integral):
    def change(self, factor, error):
        return factor * 0.999 if isinstance(error, torch.Tensor) else factor


class CouplesSamples(Integral):
    def change(self, factor, error):
        return torch.minimum(factor, factor.mean()) if isinstance(error, torch.Tensor) else factor


class CouplesSamplesByRounding(Integral):
    def change(self, factor, error):
        if not isinstance(error, torch.Tensor) or not error.dim():
            return factor
        place = torch.arange(len(error), dtype=torch.float64)
        return factor * (1 + 1e-15 * place)


class DiffersFromItsCopies(Integral):
    def __init__(self):
        super().__init__()
        self.shift = 1e-6 * torch.rand(()).item()

    def change(self, factor, error):
        return factor * (1 - self.shift)


class AcceptsNothingElse(Integral):
    """Than what has no error at all."""

    def accepts(self, error):
        return error <= 0


class Learned(Integral):
    differentiable = True

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def change(self, factor, error):
        return factor * torch.exp(-self.weight * self.size(error))

    def size(self, error):
        return torch.tanh(clip(error, 0.0, 1e3))


class InfiniteGradient(Learned):
    def size(self, error):
        return torch.where(error < inf, torch.sqrt(error).tanh(), 1.0)


FAULTS = {
    StandsStill: {"every_factor_is_positive"},
    RejectsEverySecond: {"accepts_what_has_no_error"},
    AcceptsTheInfinite: {"rejects_what_is_not_finite"},
    LengthensAfterARejection: {"every_retry_is_shorter"},
    RemembersInAttributes: {"is_pure", "samples_do_not_meet", "numbers_and_tensors_agree"},
    ChangesItsMemory: {"memory_keeps_its_structure", "solves_end"},
    ReadsTensorsOtherwise: {"numbers_and_tensors_agree"},
    CouplesSamples: {"samples_do_not_meet"},
    CouplesSamplesByRounding: {"samples_do_not_meet"},
    DiffersFromItsCopies: {"copies_judge_alike"},
    AcceptsNothingElse: {"solves_end"},
    InfiniteGradient: {"gradients_are_finite"},
}


def contract(controller):
    return type("Contract", (ControllerContract,), {"make": lambda self: controller()})


@pytest.mark.parametrize("controller", [Integral, Learned, FixedStep], ids=lambda controller: controller.__name__)
def test_one_without_fault_keeps_every_promise(controller, broken_promises):
    assert broken_promises(contract(controller)) == set()


@pytest.mark.parametrize("controller", FAULTS, ids=lambda controller: controller.__name__)
def test_a_fault_breaks_the_promise_that_speaks_of_it(controller, broken_promises):
    assert broken_promises(contract(controller)) == FAULTS[controller]


def test_every_promise_is_broken_by_some_fault():
    promises = {name.removeprefix("test_") for name in vars(ControllerContract) if name.startswith("test_")}
    assert set().union(*FAULTS.values()) == promises


def test_without_a_controller_it_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"TestMine\.make: expected a method that returns the controller"):
        type("TestMine", (ControllerContract,), {})().test_solves_end()
