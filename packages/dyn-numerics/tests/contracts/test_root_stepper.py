"""Every promise of a root stepper can be broken: one with a single fault breaks those that speak of it, and no other."""

import unittest
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dyn_numerics import Proposal, RootStepper
from dyn_numerics.contracts import RootStepperContract, SineSystem
from dyn_numerics.loop import is_supported


class Known(NamedTuple):
    """What a step knows of the last one."""

    last: Tensor


class HeavyBall(RootStepper):
    """The fixed-point iteration with momentum, without a fault. Its faults override a part each."""

    def init(self, z, context):
        return Known(z)

    def step(self, f, z, carry, context):
        return Proposal(self.advance(z, context.value, carry.last), self.remembered(z))

    def advance(self, z, value, last):
        return z + value + 0.1 * (z - last)

    def remembered(self, z):
        return Known(z)


class LooksAhead(HeavyBall):
    """Chooses its steps itself: twice the step where that is better."""

    searches = False

    def step(self, f, z, carry, context):
        ahead = super().step(f, z, carry, context).z
        farther = 2 * ahead - z
        values = f(ahead), f(farther)
        better = values[1].abs().sum(dim=-1, keepdim=True) < values[0].abs().sum(dim=-1, keepdim=True)
        z, value = torch.where(better, farther, ahead), torch.where(better, values[1], values[0])
        return Proposal(z, Known(z), value=value, status=torch.zeros(len(z), dtype=torch.int64), n_evals=2)


class Learned(HeavyBall):
    """Where to start and how to go on, of parameters."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.tensor([0.4, -0.7, 1.0], dtype=torch.float64))
        self.momentum = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def start(self, z, *args):
        return (z + 0.5 * (self.first - z)).to(z) if isinstance(z, Tensor) and z.dim() == 2 else z

    def advance(self, z, value, last):
        return z + value + self.momentum.to(z) * (z - last)


class GoesNowhere(HeavyBall):
    def advance(self, z, value, last):
        return z + 0 * value


class GoesElsewhere(HeavyBall):
    """Ends where the residual is not zero, and says that it is."""

    def step(self, f, z, carry, context):
        return Proposal(z + 1, carry, value=torch.zeros_like(z))

    searches = False


class LosesImaginaryParts(HeavyBall):
    def advance(self, z, value, last):
        return super().advance(z, value.real if z.is_complex() else value, last)


class StartsElsewhereEachTime(HeavyBall):
    sign = 1

    def start(self, z, *args):
        self.sign *= -1
        return z + 1e-3 * self.sign if isinstance(z, Tensor) else z


class StartsInAnotherPrecision(HeavyBall):
    def start(self, z, *args):
        return z.double() if isinstance(z, Tensor) and z.dtype is torch.float32 else z


class WritesIntoTheNorm(HeavyBall):
    def step(self, f, z, carry, context):
        context.norm.mul_(1.01)
        return super().step(f, z, carry, context)


class WritesIntoTheIterateLater(HeavyBall):
    """Its carry is the start itself, and it writes into its carry."""

    def step(self, f, z, carry, context):
        proposal = super().step(f, z, carry, context)
        if torch.is_grad_enabled():
            return proposal
        return proposal._replace(carry=Known(carry.last.copy_(z)))


class RemembersBesideItsCarry(HeavyBall):
    n_steps = 0

    def advance(self, z, value, last):
        self.n_steps += not torch.is_grad_enabled()
        return super().advance(z, (1 - 1e-6 * min(self.n_steps, 100)) * value, last)


class WidensTheIterate(HeavyBall):
    def advance(self, z, value, last):
        new = super().advance(z, value, last)
        return new.double() if new.dtype is torch.float32 else new


class OneStatusForAll(HeavyBall):
    def step(self, f, z, carry, context):
        return super().step(f, z, carry, context)._replace(status=torch.zeros((), dtype=torch.int64))


class InternalsOfTheWholeBatch(HeavyBall):
    def step(self, f, z, carry, context):
        return super().step(f, z, carry, context)._replace(internals={"norm": context.norm.mean()})


class HandsOnAnotherResidual(LooksAhead):
    def step(self, f, z, carry, context):
        proposal = super().step(f, z, carry, context)
        return proposal._replace(value=0.999 * proposal.value)


class IgnoresLineSearches(LooksAhead):
    searches = True


class CarryOfAnotherKind(HeavyBall):
    def step(self, f, z, carry, context):
        return super().step(f, z, Known(carry[0]), context)._replace(carry=(z,))


class CarryOfTheWholeBatch(HeavyBall):
    def init(self, z, context):
        return Known(z), torch.zeros(z.shape[-1], dtype=z.dtype)

    def step(self, f, z, carry, context):
        proposal = super().step(f, z, carry[0], context)
        return proposal._replace(carry=(proposal.carry, carry[1]))


class CountsByItself(HeavyBall):
    def init(self, z, context):
        return Known(z), 0

    def step(self, f, z, carry, context):
        proposal = super().step(f, z, carry[0], context)
        return proposal._replace(carry=(proposal.carry, carry[1] + 1))


class CouplesSamples(HeavyBall):
    def advance(self, z, value, last):
        return super().advance(z, value, last) + 0.01 * value.mean(dim=0)


class CouplesSamplesByRounding(HeavyBall):
    def advance(self, z, value, last):
        return super().advance(z, value, last) * (1 + 1e-15 * z[:1])


class StepsLargeBatchesOtherwise(HeavyBall):
    def advance(self, z, value, last):
        return super().advance(z, value * (1 if len(z) < 100 else 0.99), last)


class RaisesBesideFailures(HeavyBall):
    def advance(self, z, value, last):
        factor = torch.linalg.cholesky(torch.diag_embed(1 + 0 * value))
        return super().advance(z, torch.linalg.solve_triangular(factor, value.unsqueeze(-1), upper=False)[..., 0], last)


class ForgetsItsEvaluations(LooksAhead):
    def step(self, f, z, carry, context):
        return super().step(f, z, carry, context)._replace(n_evals=1)


class KeepsTheFunction(HeavyBall):
    """Calls the function that the first step of a search was handed."""

    first = None

    def step(self, f, z, carry, context):
        if context.n_steps == 0:
            self.first = f
        self.first(z)
        return super().step(f, z, carry, context)._replace(n_evals=1)


class ReadsOnTheHost(HeavyBall):
    def advance(self, z, value, last):
        return super().advance(z, value, last) if bool((value.abs() < 1e9).any()) else z + value


class SizesOfTheFirstBatch(HeavyBall):
    """Remembers how many samples there were at the start."""

    n_samples = None

    def init(self, z, context):
        self.n_samples = len(z)
        return super().init(z, context)

    def advance(self, z, value, last):
        return super().advance(z, value * torch.ones(self.n_samples, 1, dtype=z.dtype), last)


class TakesVectorsOnly(HeavyBall):
    def step(self, f, z, carry, context):
        if not context.layout.is_single_tensor:
            raise TypeError("z0: expected a tensor")
        return super().step(f, z, carry, context)


class SwitchesGradientsOn(HeavyBall):
    def step(self, f, z, carry, context):
        with torch.enable_grad():
            return super().step(f, z, carry, context)


class Detaches(HeavyBall):
    def advance(self, z, value, last):
        return super().advance(z, value.detach(), last)


class ForgetsItsParameter(Learned):
    def advance(self, z, value, last):
        return z + value + self.momentum.detach().to(z) * (z - last)


class KnowsNoLanes(HeavyBall):
    def advance(self, z, value, last):
        return super().advance(z, value, last) + (1e-6 if torch._C._functorch.is_batchedtensor(value) else 0) * z


class DiffersFromItsCopies(HeavyBall):
    def __init__(self):
        super().__init__()
        self.damping = 1 - 1e-3 * torch.rand((), dtype=torch.float64)

    def advance(self, z, value, last):
        return super().advance(z, self.damping * value, last)


ELSEWHERE = {"copies_step_alike", "gradients_through_its_steps"}
FAULTS = {
    GoesNowhere: {"finds_the_root_of_every_sample"},
    GoesElsewhere: {
        "finds_the_root_of_every_sample",
        "failing_neighbours_change_nothing",
        "value_is_the_residual_of_the_proposal",
    },
    LosesImaginaryParts: {"finds_the_root_of_every_sample"},
    StartsElsewhereEachTime: {
        *ELSEWHERE,
        "starts_at_a_state_like_the_users",
        "a_sample_alone_is_as_in_a_batch",
        "rows_do_not_meet",
        "compact_finds_the_same",
        "failing_neighbours_change_nothing",
    },
    StartsInAnotherPrecision: {"starts_at_a_state_like_the_users", "finds_the_root_of_every_sample"},
    WritesIntoTheNorm: {"leaves_what_it_is_handed_alone"},
    WritesIntoTheIterateLater: {
        *ELSEWHERE,
        "leaves_what_it_is_handed_alone",
        "is_repeatable",
        "a_sample_alone_is_as_in_a_batch",
        "compact_finds_the_same",
        "failing_neighbours_change_nothing",
        "vmap",
    },
    RemembersBesideItsCarry: {
        *ELSEWHERE,
        "is_repeatable",
        "rows_do_not_meet",
        "failing_neighbours_change_nothing",
    },
    WidensTheIterate: {"follows_the_state"},
    OneStatusForAll: {"follows_the_state"},
    InternalsOfTheWholeBatch: {"follows_the_state"},
    HandsOnAnotherResidual: {"value_is_the_residual_of_the_proposal", "gradients_through_its_steps"},
    IgnoresLineSearches: {"value_is_the_residual_of_the_proposal"},
    CarryOfAnotherKind: {"carry_keeps_its_structure", "compact_finds_the_same", "gradients_through_its_steps"},
    CarryOfTheWholeBatch: {"carry_keeps_its_structure", "compact_finds_the_same", "gradients_through_its_steps"},
    CountsByItself: {"carry_keeps_its_structure"},
    CouplesSamples: {
        "a_sample_alone_is_as_in_a_batch",
        "failing_neighbours_change_nothing",
        "compact_finds_the_same",
    },
    CouplesSamplesByRounding: {"rows_do_not_meet"},
    StepsLargeBatchesOtherwise: {"a_sample_alone_is_as_in_a_batch"},
    RaisesBesideFailures: {"failing_neighbours_change_nothing", "leaves_the_host_alone"},
    ForgetsItsEvaluations: {"counts_its_evaluations"},
    KeepsTheFunction: {"counts_its_evaluations"},
    ReadsOnTheHost: {"leaves_the_host_alone", "vmap"},
    SizesOfTheFirstBatch: {"compact_finds_the_same"},
    TakesVectorsOnly: {"takes_states_of_any_shape"},
    SwitchesGradientsOn: {"follows_grad_mode"},
    Detaches: {"gradients_through_its_steps"},
    ForgetsItsParameter: {"gradients_through_its_steps"},
    KnowsNoLanes: {"vmap"},
    DiffersFromItsCopies: {"copies_step_alike"},
}


def contract(method, **settings):
    return type("Contract", (RootStepperContract,), {"make": lambda self: method(), **settings})


@pytest.mark.parametrize("method", [HeavyBall, LooksAhead, Learned], ids=lambda method: method.__name__)
def test_a_method_without_fault_keeps_every_promise(method, broken_promises):
    assert broken_promises(contract(method)) == set()


@pytest.mark.parametrize("method", FAULTS, ids=lambda method: method.__name__)
def test_a_fault_breaks_the_promises_that_speak_of_it(method, broken_promises):
    assert broken_promises(contract(method)) == FAULTS[method]


def test_every_promise_is_broken_by_some_fault():
    promises = {name.removeprefix("test_") for name in dir(contract(HeavyBall)) if name.startswith("test_")}
    assert set().union(*FAULTS.values()) == promises - {"compiles"}


class RealOnly(LosesImaginaryParts):
    takes_complex = False


class WithoutGradients(Detaches):
    differentiable = False


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (RealOnly, {}),
        (WithoutGradients, {}),
        (LosesImaginaryParts, {"dtypes": (torch.float64,)}),
        (LooksAhead, {"problem": SineSystem(coupled=False)}),
    ],
)
def test_what_is_not_claimed_is_not_tested(method, settings, broken_promises):
    assert broken_promises(contract(method, **settings)) == set()


def test_reads_may_be_claimed():
    contract(ReadsOnTheHost)().test_finds_the_root_of_every_sample()
    with pytest.raises(unittest.SkipTest, match="reads = True"):
        contract(ReadsOnTheHost, reads=True)().test_leaves_the_host_alone()


class DiffersCompiled(HeavyBall):
    def advance(self, z, value, last):
        return super().advance(z, value, last) + (1e-7 if torch.compiler.is_compiling() else 0)


class CountsNothing(LooksAhead):
    def step(self, f, z, carry, context):
        return super().step(f, z, carry, context)._replace(n_evals=0)


@pytest.mark.skipif(not is_supported(), reason="this torch compiles no solves")
@pytest.mark.slow
def test_a_compiled_search_is_compared():
    contract(LooksAhead, compiles=True)().test_compiles()
    with pytest.raises(AssertionError, match="expected a compiled search to find what an eager one does"):
        contract(DiffersCompiled, compiles=True)().test_compiles()
    with pytest.raises(
        AssertionError, match=r"proposal\.n_evals: counts 1 in all inside torch\.compile and 33 outside"
    ):
        contract(CountsNothing, compiles=True)().test_compiles()


def test_without_a_method_it_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"TestMine\.make: expected a method that returns the root stepper"):
        type("TestMine", (RootStepperContract,), {})().test_is_repeatable()


def test_a_failure_says_what_to_try():
    with pytest.raises(AssertionError, match=r"by __bool__, expected no such operation, .*; try torch\.where"):
        contract(ReadsOnTheHost)().test_leaves_the_host_alone()


def test_unittest_runs_it_too():
    class TestHeavyBall(contract(HeavyBall), unittest.TestCase):
        pass

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(TestHeavyBall).run(result)
    assert result.wasSuccessful()
    assert result.testsRun == 19
    assert len(result.skipped) == 1  # not compiled
