"""Every controller of ours keeps the contract, and so does a learned one."""

import pytest
import torch
from torch import nn

from dyn_numerics import Controller, FixedStep, PIDController, Verdict
from dyn_numerics.contracts import ControllerContract


class TestClassical(ControllerContract):
    def make(self):
        return PIDController()


class TestPI(ControllerContract):
    def make(self):
        return PIDController(0.4, 0.3, first_step=0.01, max_step=0.1)


class TestPID(ControllerContract):
    def make(self):
        return PIDController(0.3, 0.25, 0.1)


class TestNegativeCoefficient(ControllerContract):
    def make(self):
        return PIDController(-0.1, 0.6, factor_min=0.1, factor_max=5.0)


class TestFixedStep(ControllerContract):
    def make(self):
        return FixedStep()


class Learned(Controller):
    """A network chooses the factor from this error and the one before."""

    differentiable = True

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 1, dtype=torch.float64)

    def init(self):
        return 0.0

    def judge(self, error, error_order, memory):
        size = error.clamp(1e-10, 1e10).log()
        learned = self.net(torch.stack([size, memory], dim=-1)).squeeze(-1).tanh()
        factor = torch.exp(0.1 * learned - 0.2 - size / (error_order + 1))
        accept = error <= 1
        return Verdict(accept, torch.where(accept, factor.clamp(0.2, 5.0), factor.clamp(0.2, 0.9)), size)


class TestLearned(ControllerContract):
    def make(self):
        torch.manual_seed(0)
        return Learned()


@pytest.mark.gpu
class TestOnTheDevice(TestLearned):
    device = "cuda"
