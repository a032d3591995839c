"""States that jump at known times."""

import copy
import math
import pickle

import pytest
import torch

from dyn_numerics import (
    Controller,
    Event,
    FixedStep,
    MaxStepsError,
    NonFiniteError,
    PerSample,
    Save,
    StopAt,
    Verdict,
    odeint,
)

D = torch.float64
STEPPINGS = pytest.mark.parametrize("stepping", ["joint", "per_sample"])
OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {"solver": "tsit5", "rtol": 1e-10, "atol": 1e-10},
        {"solver": "bosh3", "rtol": 1e-9, "atol": 1e-9},
        {"solver": "adams_moulton", "rtol": 1e-9, "atol": 1e-9},
        {"solver": "reversible_heun", "rtol": 1e-7, "atol": 1e-7},
        {"solver": "rk4", "step_size": 0.01},
    ],
)
DOSES = (0.0, 0.4, 1.0, 1.7)


def decay(t, x, rate=1.3):
    return -rate * (1 + torch.cos(t)) * x


def exact(t, x0, dose, rate=1.3, t0=0.0, doses=DOSES):
    """Of x' = -rate (1 + cos t) x, with the dose added right after each of its times, from the first time on."""

    def left(since):
        return torch.exp(-rate * (t - since + torch.sin(t) - torch.sin(torch.as_tensor(since, dtype=D))))

    return x0 * left(t0) + sum(torch.where(t > at, dose * left(at), 0) for at in doses)


def dosed(options, times=DOSES, jump=lambda t, x: x + 0.5):
    return StopAt(times, None if "step_size" not in options else FixedStep(), jump=jump)


@STEPPINGS
@OPTIONS
def test_values(stepping, options):
    """Outputs are those before the jump, also at its time; the start jumps and the end does not."""
    t = torch.tensor([0.0, 0.3, 0.4, 0.9, 1.0, 1.7], dtype=D)
    times = (*DOSES, 5.0, -1.0)
    sol = odeint(decay, torch.ones(1, 2, dtype=D), t, controller=dosed(options, times), stepping=stepping, **options)
    expected = exact(t, 1.0, 0.5)
    torch.testing.assert_close(sol.x, expected[:, None, None].expand(-1, 1, 2), rtol=0, atol=2e-6)


@STEPPINGS
def test_reversed_time(stepping):
    """In the order of the solve: from 2 to 0, each dose when it is passed."""
    t = torch.tensor([2.0, 1.7, 0.7, 0.4, 0.0], dtype=D)
    sol = odeint(
        lambda t, x: torch.cos(t) * x,
        torch.ones(1, 1, dtype=D),
        t,
        controller=dosed({}),
        stepping=stepping,
        rtol=1e-10,
        atol=1e-10,
    )
    back = torch.exp(torch.sin(t))
    expected = back / back[0]
    for at in DOSES:
        expected = expected + torch.where(t < at, 0.5 * back / math.exp(math.sin(at)), 0)
    torch.testing.assert_close(sol.x.reshape(-1), expected, rtol=0, atol=1e-8)


@STEPPINGS
@pytest.mark.parametrize("options", [{"rtol": 1e-10, "atol": 1e-10}, {"solver": "rk4", "step_size": 0.005}])
def test_gradients(stepping, options):
    """To the state, the dose, the rate and the times, by closed form: a dose stays where it is, whatever moves."""
    x0, dose, rate, t0, t1, end = (
        torch.tensor(v, dtype=D, requires_grad=True) for v in (1.2, 0.5, 1.3, -0.1, 0.9, 2.0)
    )
    inputs = (x0, dose, rate, t0, t1, end)
    sol = odeint(
        lambda t, x, rate, dose: decay(t, x, rate),
        x0.reshape(1, 1),
        torch.stack([t0, t1, end]),
        args=(rate, dose),
        controller=dosed(options, jump=lambda t, x, rate, dose: x + dose),
        stepping=stepping,
        **options,
    )
    got = torch.autograd.grad(sol.x[1:].square().sum(), inputs)
    expected = torch.autograd.grad(exact(torch.stack([t1, end]), x0, dose, rate, t0).square().sum(), inputs)
    torch.testing.assert_close(torch.stack(got), torch.stack(expected), rtol=1e-6, atol=1e-7)


@STEPPINGS
def test_a_dose_alone_has_its_gradient(stepping):
    """Nothing else of the solve is differentiable."""
    dose = torch.nn.Linear(1, 1, dtype=D)
    sol = odeint(
        decay,
        torch.ones(1, 1, dtype=D),
        [0.0, 2.0],
        controller=StopAt([0.5], jump=lambda t, x: x + dose(x)),
        stepping=stepping,
        rtol=1e-10,
        atol=1e-10,
    )
    sol.x[-1].sum().backward()
    t = torch.tensor([0.5, 2.0], dtype=D)
    middle, last = torch.exp(-1.3 * (t + torch.sin(t)))
    assert dose.bias.grad.item() == pytest.approx((last / middle).item(), rel=1e-7)
    assert dose.weight.grad.item() == pytest.approx(last.item(), rel=1e-7)


def test_a_loop_that_selects_carries_no_gradient():
    """Its accepted steps are repeated with one: two jumps, each made twice."""
    dose, seen = torch.ones(1, dtype=D, requires_grad=True), []

    def jump(t, x):
        seen.append(x.requires_grad)
        return x + dose

    odeint(
        decay, torch.ones(1, 1, dtype=D), [0.0, 2.0], controller=StopAt([0.5, 1.0], jump=jump), stepping="per_sample"
    )
    assert seen == [False, False, False, True]


def test_second_derivatives_and_modules():
    """A module that jumps is not trained by the controller, and is no part of it."""
    jump = torch.nn.Linear(1, 1, dtype=D)

    class Jump(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = jump

        def forward(self, t, x):
            return self.inner(x) * torch.exp(x)

    controller = StopAt([0.5], jump=Jump())
    assert not list(controller.parameters())
    x0 = torch.tensor([0.3], dtype=D, requires_grad=True)

    def end(x0):
        return odeint(lambda t, x: -x, x0, [0.0, 1.0], controller=controller, rtol=1e-9, atol=1e-9).x[-1]

    assert torch.autograd.gradcheck(end, (x0,))
    assert torch.autograd.gradgradcheck(end, (x0,))


@pytest.mark.parametrize("compact", [False, True])
def test_every_sample_has_its_own(compact):
    """The jump meets a sample at its own times alone: elsewhere this one has no value, nor has its gradient."""
    stops = torch.tensor([[0.5, 1.0, 0.0], [1.5, 1.0, 1.5]], dtype=D)
    dose = torch.ones((), dtype=D, requires_grad=True)

    def jump(t, x, own):
        assert t.shape == (len(x), 1)
        return x + dose * torch.sqrt((own == t).any(1, keepdim=True).to(D) - 0.5)

    t = torch.tensor([[0.0] * 3, [2.0, 1.2, 1.5]], dtype=D)
    sol = odeint(
        lambda t, x, own: torch.zeros_like(x),
        torch.zeros(3, 1, dtype=D),
        t,
        args=(PerSample(stops.T),),
        controller=StopAt(stops, jump=jump),
        stepping="per_sample",
        compact=compact,
    )
    root = math.sqrt(0.5)
    assert sol.x[-1, :, 0].tolist() == pytest.approx([2 * root, root, root])
    assert torch.autograd.grad(sol.x[-1].sum(), dose)[0].item() == pytest.approx(4 * root)


@STEPPINGS
def test_steps_and_dense_solution(stepping):
    """Both end with the state before the jump; right after its time the solution is that behind it."""
    sol = odeint(
        lambda t, x: torch.zeros_like(x),
        torch.zeros(1, 1, dtype=D),
        [0.0, 1.0],
        controller=StopAt([0.0, 0.5, 1.0], jump=lambda t, x: x + 1),
        stepping=stepping,
        save=Save(("t_span", "steps", "dense")),
    )
    t, x = (column.reshape(-1) for column in sol.steps)
    assert x[t <= 0.5].tolist() == [0.0] + [1.0] * (int((t <= 0.5).sum()) - 1)
    assert set(x[t > 0.5].tolist()) == {2.0}
    query = torch.tensor([[0.5], [0.500001], [1.0]], dtype=D)
    dense = sol.dense(query if stepping == "per_sample" else query[:, 0])
    assert dense.reshape(-1).tolist() == pytest.approx([1.0, 2.0, 2.0])
    assert sol.x.reshape(-1).tolist() == [0.0, 2.0]


@STEPPINGS
@pytest.mark.parametrize("middle", [0.4, 0.6])
def test_resume(stepping, middle):
    """A span that is cut anywhere is the same: the jump at its end is made where it goes on."""
    options = {"controller": dosed({}), "stepping": stepping, "rtol": 1e-9, "atol": 1e-9}
    x0 = torch.ones(1, 1, dtype=D, requires_grad=True)
    whole = odeint(decay, x0, [0.0, middle, 2.0], **options)
    first = odeint(decay, x0, [0.0, middle], **options)
    second = first.resume([middle, 2.0])
    torch.testing.assert_close(second.x[0], whole.x[1], rtol=0, atol=1e-8)
    torch.testing.assert_close(second.x[-1], whole.x[2], rtol=0, atol=1e-8)
    grads = [torch.autograd.grad(sol.x[-1].sum(), x0, retain_graph=True)[0] for sol in (second, whole)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-8)


@STEPPINGS
def test_steps_that_run_out_right_after_a_jump(stepping):
    """It is not made again where the solve goes on."""
    x0 = torch.zeros(1, 1, dtype=D, requires_grad=True)
    controller = StopAt([1.0], FixedStep(), jump=lambda t, x: x + 1)
    with pytest.raises(MaxStepsError) as error:
        odeint(
            lambda t, x: 0 * x,
            x0,
            [0.0, 2.0],
            solver="euler",
            step_size=0.5,
            max_steps=2,
            controller=controller,
            stepping=stepping,
        )
    assert error.value.solution.t_reached.item() == 1.0
    sol = error.value.solution.resume([1.0, 2.0])
    assert sol.x[-1].item() == 1.0


@STEPPINGS
def test_events(stepping):
    """A jump across zero is no crossing; the way back is one."""
    event = Event(lambda t, x: x[..., 0] - 1.0, terminal=False)
    sol = odeint(
        lambda t, x: -x,
        torch.full((1, 1), 0.5, dtype=D),
        [0.0, 3.0],
        controller=StopAt([1.0], jump=lambda t, x: x + 2),
        events=event,
        stepping=stepping,
        rtol=1e-9,
        atol=1e-9,
    )
    after = 0.5 * math.exp(-1) + 2
    assert sol.events[0].count.sum() == 1
    assert sol.events[0].t.reshape(-1)[0].item() == pytest.approx(1 + math.log(after), abs=1e-7)


def test_pytrees_and_complex_states():
    x0 = {"a": torch.ones(2, dtype=D), "b": torch.ones(1, dtype=torch.complex128)}
    sol = odeint(
        lambda t, x: {"a": -x["a"], "b": 1j * x["b"]},
        x0,
        [0.0, 2.0],
        controller=StopAt([1.0], jump=lambda t, x: {"a": x["a"] + t, "b": -x["b"]}),
        rtol=1e-9,
        atol=1e-9,
    )
    assert sol.x["a"][-1].tolist() == pytest.approx([math.exp(-2) + math.exp(-1)] * 2, abs=1e-8)
    torch.testing.assert_close(
        sol.x["b"][-1], -torch.exp(torch.tensor([2j], dtype=torch.complex128)), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("solver", ["tsit5", "bosh3", "kvaerno3"])
def test_evaluations_are_counted(counted, solver):
    f = counted(lambda t, x: -x)
    controller = StopAt([0.0, 0.5], jump=lambda t, x: x + 1)
    event = Event(lambda t, x: x[0] - 5.0)
    assert odeint(f, torch.ones(1, dtype=D), [0.0, 1.0], solver=solver, controller=controller).stats.n_evals == f.calls
    f = counted(lambda t, x: -x)
    sol = odeint(f, torch.ones(1, dtype=D), [0.0, 1.0], solver=solver, controller=controller, events=event)
    assert sol.stats.n_evals == f.calls


def test_transforms():
    def end(x0, dose):
        return odeint(
            lambda t, x: -x, x0, [0.0, 1.0], controller=StopAt([0.5], jump=lambda t, x: x + dose), rtol=1e-9, atol=1e-9
        ).x[-1]

    x0, dose = torch.ones(3, 1, dtype=D), torch.arange(3.0, dtype=D)
    expected = math.exp(-1) + dose * math.exp(-0.5)
    torch.testing.assert_close(torch.func.vmap(end)(x0, dose)[:, 0], expected, rtol=0, atol=1e-8)
    tangent = torch.func.jvp(end, (x0[0], dose[1]), (x0[0], dose[1]))[1]
    assert tangent.item() == pytest.approx(math.exp(-1) + math.exp(-0.5), abs=1e-8)
    assert torch.func.jacrev(end, 1)(x0[0], dose[2]).item() == pytest.approx(math.exp(-0.5), abs=1e-8)


@STEPPINGS
def test_a_learned_controller(stepping):
    """Its step sizes depend on what comes after the jump: against differences with the steps let go."""

    class Learned(Controller):
        differentiable = True

        def judge(self, error, error_order, memory):
            size = error.clamp(1e-10, 1e10)
            factor = 0.9 * size ** (-1 / (error_order + 1))
            return Verdict(error <= 1, factor.clamp(0.2, 5.0).where(error <= 1, factor.clamp(0.2, 0.9)), memory)

    def end(dose):
        controller = StopAt([0.5], Learned(), jump=lambda t, x: x + dose)
        return odeint(
            lambda t, x: -(x**2),
            torch.ones(1, 1, dtype=D),
            [0.0, 9.0],
            controller=controller,
            stepping=stepping,
            rtol=1e-2,
        ).x[-1]

    dose = torch.tensor(0.7, dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(end, (dose,))


def test_compiled():
    """Values and evaluations are those of Python's loop; the compiled adjoint of dyn-sensitivity jumps jointly."""
    x0, dose = torch.linspace(0, 1, 2, dtype=D)[:, None], torch.tensor(0.5, dtype=D)

    @torch.no_grad()
    def solve(x0, dose):
        controller = StopAt(DOSES, jump=lambda t, x, dose: x + dose * (1 + t))
        return odeint(
            lambda t, x, dose: decay(t, x),
            x0,
            [0.0, 0.4, 2.0],
            args=(dose,),
            controller=controller,
            stepping="per_sample",
        )

    found, expected = torch.compile(solve, fullgraph=True, backend="aot_eager")(x0, dose), solve(x0, dose)
    torch.testing.assert_close(found.x, expected.x, rtol=1e-12, atol=1e-12)
    assert torch.equal(found.stats.n_accepted, expected.stats.n_accepted)
    assert found.stats.n_evals == expected.stats.n_evals
    assert found.x[-1, 0].item() == pytest.approx(
        sum(exact(torch.tensor(2.0, dtype=D), 0.0, 0.5 * (1 + at), doses=[at]).item() for at in DOSES), abs=1e-3
    )


def test_bad_use():
    with pytest.raises(TypeError, match="jump: got a float, expected a function"):
        StopAt([0.5], jump=1.0)
    with pytest.raises(TypeError, match=r"jump: got a jump with the signature \(x\)"):
        odeint(decay, torch.ones(1), [0.0, 1.0], controller=StopAt([0.5], jump=lambda x: x))
    with pytest.raises(ValueError, match=r"jump: returned shape \[2\], expected \[1\]"):
        odeint(decay, torch.ones(1), [0.0, 1.0], controller=StopAt([0.5], jump=lambda t, x: x.expand(2)))
    with pytest.raises(NonFiniteError):
        odeint(decay, torch.ones(1), [0.0, 1.0], controller=StopAt([0.5], jump=lambda t, x: x / 0))


def _double(t, x):
    return 2 * x


def test_copies():
    controller = StopAt([0.5], jump=_double)
    assert "jump=<function _double" in repr(controller)
    for twin in (copy.deepcopy(controller), pickle.loads(pickle.dumps(controller)), controller.with_norm(None)):
        assert odeint(lambda t, x: 0 * x, torch.ones(1, dtype=D), [0.0, 1.0], controller=twin).x[-1].item() == 2.0
