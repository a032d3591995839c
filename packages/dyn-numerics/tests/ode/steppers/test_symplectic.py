"""What makes a method symplectic: its Jacobian, its symmetry, its inverse; and that it converges as it says."""

from itertools import pairwise

import pytest
import torch
from torch.func import jacrev

from dyn_numerics import SplitField, Status, StopAt, Verlet, Yoshida4, odeint
from dyn_numerics.contracts import ForcedRadialOscillator
from dyn_numerics.contracts.measured_order import margin
from dyn_numerics.loop import is_supported
from dyn_numerics.ode.controllers.fixed_step import FixedStep
from dyn_numerics.ode.flat_field import flat_field
from dyn_numerics.ode.steppers.symplectic import Symplectic
from dyn_numerics.ode.tableaus.symmetric_composition import SymmetricComposition
from dyn_numerics.ode.times import state_time
from dyn_numerics.pytree_state import StateLayout

D = torch.float64
METHODS = [Verlet, Yoshida4]
START = torch.tensor([0.9, -0.3, 0.2, 0.4, 0.7, -0.5], dtype=D)  # q and p of three dimensions
COUPLING = torch.tensor([[1.0, 0.3, 0.0], [0.3, 2.0, -0.4], [0.0, -0.4, 0.7]], dtype=D)


def velocity(t, p):
    """The derivative of an energy of motion that depends on time and couples the momenta."""
    return (1 + 0.4 * torch.sin(3 * t)) * (p @ COUPLING + p**3 / 3)


def force(t, q):
    """The derivative of a potential that depends on time and couples the places."""
    return -torch.sin(q) * (2 + torch.cos(t)) - torch.cos(2 * t) * q.sum(-1, keepdim=True)


FIELD = SplitField(velocity, force)
FLAT = flat_field(FIELD, (), StateLayout((START[:3], START[3:]), "x0"), "partitioned")


def steps(stepper, x, times, f=FLAT):
    carry = stepper.init(f, state_time(times[0], x).expand(x.shape[:-1]), x, None)
    for t0, t1 in pairwise(times):
        step = stepper.step(f, t0, t1, x, carry)
        x, carry = step.x, step.carry
    return x, carry


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("t0", "t1"), [(0.3, 0.5), (0.5, 0.3), (0.0, 0.5)])
def test_a_step_preserves_the_symplectic_form(method, t0, t1):
    """With M the Jacobian of the step, `M^T J M = J`."""
    m = jacrev(lambda x: steps(method(), x, [t0, t1])[0])(START)
    identity, zero = torch.eye(3, dtype=D), torch.zeros(3, 3, dtype=D)
    form = torch.cat([torch.cat([zero, identity], 1), torch.cat([-identity, zero], 1)])
    assert (m.T @ form @ m - form).abs().max() < 1e-12
    assert (m - torch.eye(6, dtype=D)).abs().max() > 0.1  # there is something to preserve


@pytest.mark.parametrize("method", METHODS)
def test_it_is_symmetric_in_time(method):
    """A step back leads to where the step came from, though the field depends on time."""
    there, _ = steps(method(), START, [0.3, 0.8])
    back, _ = steps(method(), there, [0.8, 0.3])
    assert (there - START).abs().max() > 0.1
    assert (back - START).abs().max() < 1e-14


@pytest.mark.parametrize("method", METHODS)
def test_a_thousand_steps_are_undone(method):
    """By `inverse_step`, state and carry, of a field that depends on time."""
    stepper, f, start = method(), ForcedRadialOscillator(), torch.tensor(ForcedRadialOscillator.starts, dtype=D)
    times = [0.05 * i for i in range(1001)]
    first = stepper.init(f, state_time(0.0, start[:, 0]), start, None)
    x, carry = steps(stepper, start, times, f)
    assert (x - start).abs().amax(1).min() > 0.1
    for t1, t0 in pairwise(times[::-1]):
        x, carry = stepper.inverse_step(f, t0, t1, x, carry)
    assert (x - start).abs().max() < 1e-12
    assert (carry - first).abs().max() < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("span", [(0.2, 1.2), (1.2, 0.2)])
def test_order_on_a_field_that_depends_on_time_in_both_parts(method, span, fitted_order):
    start = tuple(START.split(3))
    reference = odeint(
        lambda t, x: (velocity(t, x[1]), force(t, x[0])), start, span, solver="dopri8", rtol=1e-13, atol=1e-13
    ).x

    def error(n):
        found = odeint(FIELD, start, span, solver=method(), step_size=1 / n).x
        return max((a - b)[-1].abs().max().item() for a, b in zip(found, reference, strict=True))

    order = method().order
    assert abs(fitted_order(error, 400) - order) < margin(order)


@pytest.mark.parametrize(("method", "accuracy"), [(Verlet, 2e-3), (Yoshida4, 2e-5)])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_dense_output_and_its_derivative(method, accuracy, stepping):
    """Between the steps the cubic is as good as the states; it meets the field at their ends."""
    x0 = torch.tensor([[1.0], [0.5]], dtype=D)
    oscillator = SplitField(lambda t, p: p, lambda t, q: -q)
    start = x0, torch.zeros_like(x0)
    sol = odeint(oscillator, start, [0.0, 3.0], solver=method(), step_size=0.1, stepping=stepping, save="dense")
    t, ends = torch.linspace(0, 3, 77, dtype=D), 0.1 * torch.arange(1, 30, dtype=D)
    if stepping == "per_sample":
        t, ends = t.unsqueeze(1), ends.unsqueeze(1)
    (q, p), angle = sol.dense(t), t.reshape(77, 1, 1)
    assert (q - x0 * angle.cos()).abs().max() < accuracy
    assert (p + x0 * angle.sin()).abs().max() < accuracy
    (q, p), (dq, dp) = sol.dense(ends), sol.dense.derivative(ends)
    assert (dq - p).abs().max() < 1e-10
    assert (dp + q).abs().max() < 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_samples_are_solved_as_if_alone_and_together(method):
    q, p = torch.randn(2, 5, 3, dtype=D, generator=torch.Generator().manual_seed(1))
    options = {"solver": method(), "step_size": 0.07}
    joint = odeint(FIELD, (q, p), [0.0, 0.5, 1.3], **options)
    own = odeint(FIELD, (q, p), [0.0, 0.5, 1.3], stepping="per_sample", **options)
    assert own.stats.n_accepted.tolist() == [joint.stats.n_accepted.item()] * 5
    for a, b in zip(joint.x, own.x, strict=True):
        assert (a - b).abs().max() < 1e-14


@pytest.mark.parametrize("method", METHODS)
def test_permuted_samples_have_the_same_bits(method):
    """Of a field that computes element by element."""
    field = SplitField(lambda t, p: p + 0.1 * torch.sin(t) * p**3, lambda t, q: torch.cos(t) - torch.sin(q))
    q, p = torch.randn(2, 7, 1, dtype=D, generator=torch.Generator().manual_seed(2))
    spans = torch.stack([torch.zeros(7, dtype=D), torch.linspace(0.5, 2, 7, dtype=D)])
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])

    def solve(at):
        return odeint(field, (q[at], p[at]), spans[:, at], solver=method(), step_size=0.13, stepping="per_sample").x

    for a, b in zip(solve(torch.arange(7)), solve(order), strict=True):
        assert torch.equal(a[:, order], b)


@pytest.mark.parametrize(("method", "per_step"), [(Verlet, 1), (Yoshida4, 3)])
def test_evaluations_of_a_step(method, per_step, counted):
    """Each part once a step in Verlet's method, three times in Yoshida's; one part once more, where the solve starts."""
    a, b = counted(velocity), counted(force)
    sol = odeint(SplitField(a, b), tuple(START.split(3)), [0.0, 2.0], solver=method(), step_size=0.1)
    assert sorted([a.calls, b.calls]) == [20 * per_step, 20 * per_step + 1]
    assert (a.calls > b.calls) == (method is Yoshida4)
    assert sol.stats.n_evals == a.calls + b.calls
    assert min(t.min() for t in b.times) >= 0
    assert max(t.max() for t in b.times) <= 2
    outside = 0.1 * (YOSHIDA_REACH if method is Yoshida4 else 0)
    assert -min(t.min() for t in a.times) <= outside + 1e-12
    assert max(t.max() for t in a.times) <= 2 + outside + 1e-12


YOSHIDA_REACH = 1 / (2 - 2 ** (1 / 3)) - 1


@pytest.mark.parametrize("method", METHODS)
def test_a_force_that_jumps_at_a_stop(method):
    """Each step sees its own side of the jump, and so does what is carried over."""
    field = SplitField(
        lambda t, p: p,
        lambda t, q: torch.where(t < 0.5, 2.0, -1.0).to(q.dtype) * torch.ones_like(q),
    )
    zero = torch.zeros(1, dtype=D)
    stop = StopAt([0.5], FixedStep(), jumps=True)
    sol = odeint(field, (zero, zero), [0.0, 0.4, 1.0], solver=method(), controller=stop)
    # p = 2 t and q = t^2, then p = 1.5 - t and q = 1.5 t - t^2 / 2 - 0.375
    assert [x.item() for x in (*sol.x[0], *sol.x[1])] == pytest.approx([0, 0.16, 0.625, 0, 0.8, 0.5], abs=1e-14)


def test_a_velocity_that_jumps_at_a_stop():
    """Verlet's method evaluates both parts within the step."""
    field = SplitField(
        lambda t, p: torch.where(t < 0.5, 1.0, 3.0).to(p.dtype) * torch.ones_like(p), lambda t, q: torch.zeros_like(q)
    )
    zero = torch.zeros(1, dtype=D)
    stop = StopAt([0.5], FixedStep(), jumps=True)
    sol = odeint(field, (zero, zero), [0.0, 0.4, 1.0], solver="verlet", controller=stop)
    assert sol.x[0].flatten().tolist() == pytest.approx([0, 0.4, 2.0], abs=1e-14)


def test_half_precision_steps_in_single():
    """Substeps that each are lost beside a half state add up to more than its rounding."""
    q, p = torch.ones(4, dtype=torch.float16), torch.ones(4, dtype=torch.float16)
    field = SplitField(lambda t, p: p, lambda t, q: torch.zeros_like(q))
    for solver in ("verlet", "yoshida4"):
        x = odeint(field, (q, p), [0.0, 6e-4], solver=solver).x
        assert x[0].dtype is torch.float16
        assert (x[0][-1] == 1 + 2**-10).all()


def test_a_composition_of_ones_own():
    """Suzuki's method of order 4, whose five steps reach less far."""
    ends = 1 / (4 - 4 ** (1 / 3))
    suzuki = SymmetricComposition(
        name="suzuki4", order=4, lengths=[ends, ends, 1 - 4 * ends, ends, ends], outer="b", source="Suzuki (1990)"
    )
    start = tuple(START.split(3))
    errors = []
    for solver in (Symplectic(suzuki), Yoshida4()):
        coarse, fine = (odeint(FIELD, start, [0.0, 1.0], solver=solver, step_size=h).x[0][-1] for h in (0.05, 0.025))
        errors.append((coarse - fine).abs().max())
    assert repr(Symplectic(suzuki)) == "Symplectic(suzuki4, order=4)"
    assert errors[0] < 0.2 * errors[1]


def test_what_is_not_finite_ends_the_solve():
    field = SplitField(lambda t, p: p, lambda t, q: torch.where(q > 1, torch.nan, torch.ones_like(q)))
    q = torch.tensor([[0.0], [-100.0]], dtype=D)
    sol = odeint(
        field, (q, torch.zeros_like(q)), [0.0, 2.0], solver="verlet", step_size=0.1, stepping="per_sample", throw=False
    )
    assert sol.status == [Status.NON_FINITE, Status.SUCCESS]
    assert sol.x[0][-1, 0].isnan().all()
    assert (sol.x[0][-1, 1] + 98).abs() < 1e-12  # -100 + t^2 / 2


@pytest.mark.skipif(not is_supported(), reason="this torch compiles no solves")
@pytest.mark.parametrize(("method", "stepping"), [(Verlet, "per_sample"), (Yoshida4, "joint")])
def test_compiled_is_eager(method, stepping):
    q, p = torch.randn(2, 4, 3, dtype=D, generator=torch.Generator().manual_seed(3))
    coupling = COUPLING.clone()

    def solve(q, p, t):
        field = SplitField(lambda t, p: p @ coupling, lambda t, q: torch.cos(t) - torch.sin(q))
        return odeint(field, (q, p), t, solver=method(), stepping=stepping)

    t = torch.tensor([0.0, 0.1, 0.25, 0.3], dtype=D)
    eager = solve(q, p, t)
    compiled = torch.compile(solve, fullgraph=True, backend="aot_eager")(q, p, t)
    for a, b in zip(eager.x, compiled.x, strict=True):
        assert (a - b).abs().max() < 1e-13
    assert compiled.stats.n_evals == eager.stats.n_evals
    assert torch.equal(compiled.stats.n_accepted, eager.stats.n_accepted)
