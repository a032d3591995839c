"""Forms of `save` beside one another, the steps against a replay by hand, and what a function makes of states."""

import gc
import itertools

import pytest
import torch
from torch import nn
from torch._C._functorch import is_functorch_wrapped_tensor

from dyn_numerics import (
    Bosh3,
    Dopri5,
    Dopri8,
    Event,
    FixedStep,
    Heun,
    RungeKutta4,
    Save,
    Status,
    Steps,
    Tsit5,
    Vern7,
    odeint,
)

T_SPAN = torch.linspace(0, 4, 6, dtype=torch.float64)
SOLVERS = [Heun, RungeKutta4, Bosh3, Dopri5, Tsit5, Vern7, Dopri8]
FORMS = ["t_span", "steps", "dense"]

both_steppings = pytest.mark.parametrize("stepping", ["joint", "per_sample"])
both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
schemes = pytest.mark.parametrize(
    "options",
    [{"solver": "tsit5"}, {"solver": "vern7"}, {"solver": "rk4"}, {"solver": "rk4", "step_size": 0.3}],
    ids=["tsit5", "vern7", "grid of outputs", "grid of its own"],
)


def field(t, x):
    return x * torch.cos(t) + 0.1 * x.flip(-1)


def starts(dtype=torch.float64):
    return torch.tensor([[1.0, 2.0], [30.0, -40.0], [0.1, 0.2]], dtype=dtype)


def times(reverse=False):
    return T_SPAN.flip(0) if reverse else T_SPAN


def solve(reverse=False, x0=None, f=field, **options):
    options = {"rtol": 1e-6, "atol": 1e-3, **options}
    return odeint(f, starts() if x0 is None else x0, times(reverse), **options)


@both_steppings
@both_directions
@pytest.mark.parametrize("method", SOLVERS)
def test_steps_are_those_that_a_replay_by_hand_takes(method, reverse, stepping):
    """From the recorded ends alone, one sample after the other, as the stepper takes them."""
    sol = solve(reverse, solver=method(), stepping=stepping, save=Save(("t_span", "steps")))
    t, x = sol.steps
    counts = sol.stats.n_accepted.reshape(-1).tolist()
    assert len(t) == max(counts) + 1
    stepper = method()
    problems = [slice(None)] if stepping == "joint" else [slice(i, i + 1) for i in range(3)]
    for rows, count, column in zip(problems, counts, t.reshape(len(t), -1).unbind(1), strict=True):

        def flat_field(t, at, n=3 if stepping == "joint" else 1):
            return field(t, at.reshape(n, 2)).reshape(-1)

        at, carry = starts()[rows].reshape(-1), None
        for t0, t1, expected in zip(column[:count], column[1 : count + 1], x[1 : count + 1, rows], strict=True):
            step = stepper.step(flat_field, t0.item(), t1.item(), at, carry)
            at, carry = step.x, step.carry
            torch.testing.assert_close(at, expected.reshape(-1), rtol=1e-12, atol=1e-12)
        # Filled up with the last one.
        assert (column[count:] == times(reverse)[-1]).all()
        assert (x[count:, rows] == x[count, rows]).all()
    assert torch.equal(x[0], starts())
    assert torch.equal(x[-1], sol.x[-1])


@both_steppings
@schemes
def test_forms_beside_one_another_are_as_alone(options, stepping):
    alone = {form: solve(stepping=stepping, save=form, **options) for form in FORMS}
    for n in (1, 2, 3):
        for forms in itertools.permutations(FORMS, n):
            sol = solve(stepping=stepping, save=Save(forms), **options)
            expected = alone["steps" if forms == ("steps",) else "t_span"]
            assert torch.equal(sol.t, expected.t)
            torch.testing.assert_close(sol.x, expected.x, rtol=1e-14, atol=1e-14)
            assert (sol.steps is not None) == ("steps" in forms)
            assert (sol.dense is not None) == ("dense" in forms)
            if sol.steps is not None:
                assert torch.equal(sol.steps.t, alone["steps"].t)
                torch.testing.assert_close(sol.steps.x, alone["steps"].x, rtol=1e-14, atol=1e-14)
            if sol.dense is not None:
                at = torch.linspace(0.1, 3.9, 7, dtype=torch.float64)
                at = at[:, None] if stepping == "per_sample" else at
                torch.testing.assert_close(sol.dense(at), alone["dense"].dense(at), rtol=1e-14, atol=1e-14)


def test_steps_alone_are_the_solution():
    sol = solve(save="steps")
    assert isinstance(sol.steps, Steps)
    assert sol.t is sol.steps.t
    assert sol.x is sol.steps.x
    assert solve().steps is None


def test_what_keeps_the_same_is_equal():
    assert Save(("steps", "t_span")) == Save(("t_span", "steps", "steps"))
    assert Save("t_span") == Save(("t_span",)) == Save()
    assert len({Save("dense"), Save(("dense",))}) == 1


@both_steppings
@both_directions
@schemes
@pytest.mark.parametrize("forms", ["t_span", "steps", ("t_span", "steps"), ("dense", "steps")])
def test_a_function_of_the_kept_states(forms, options, reverse, stepping):
    """Values and gradients, to state, times and what the function itself depends on, are those of all states kept."""
    x0, t = starts().requires_grad_(), times(reverse).clone().requires_grad_()
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def fn(t, x):
        assert t.shape == ((3, 1) if stepping == "per_sample" else ())
        assert x.shape == (3, 2)
        return {"sum": scale * x.sum(-1), "moved": (x * t)[:, None, :1]}

    def of_all(t, x):
        shaped = t.reshape(*t.shape, *[1] * (3 - t.dim()))
        return {"sum": scale * x.sum(-1), "moved": (x * shaped)[:, :, None, :1]}

    options = {"rtol": 1e-6, "atol": 1e-3, "stepping": stepping, **options}
    whole = odeint(field, x0, t, save=Save(forms), **options)
    small = odeint(field, x0, t, save=Save(forms, fn=fn), **options)
    assert torch.equal(small.t, whole.t)
    expected = [of_all(whole.t, whole.x)] + ([] if whole.steps is None else [of_all(*whole.steps)])
    found = [small.x] + ([] if small.steps is None else [small.steps.x])
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    costs = [sum(leaf.sin().sum() for tree in trees for leaf in tree.values()) for trees in (found, expected)]
    grads = [torch.autograd.grad(cost, (x0, t, scale)) for cost in costs]
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-11)
    if whole.dense is not None:
        assert torch.equal(small.dense(1.0), whole.dense(1.0))
    assert small.status == whole.status
    for name in ("n_steps", "n_accepted"):
        assert torch.equal(getattr(small.stats, name), getattr(whole.stats, name))


@both_steppings
@schemes
def test_without_gradient_it_is_the_same(options, stepping):
    """To the rounding of error estimates, which moves the ends of steps."""
    fn = Save(("t_span", "steps"), fn=lambda t, x: x.square().sum(-1))
    with torch.no_grad():
        plain = solve(save=fn, stepping=stepping, **options)
    recorded = solve(x0=starts().requires_grad_(), save=fn, stepping=stepping, **options)
    rounding = 1e-12 if options["solver"] == "rk4" else 1e-7
    torch.testing.assert_close(plain.x, recorded.x.detach(), rtol=rounding, atol=0)
    torch.testing.assert_close(plain.steps.x, recorded.steps.x.detach(), rtol=rounding, atol=0)


def test_samples_with_spans_of_their_own_and_one_that_fails():
    spans = torch.tensor([[0.0, 3.0, 0.0], [0.5, 1.0, 0.4], [1.5, 0.5, 0.4], [2.0, 0.0, 0.4]], dtype=torch.float64)
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(3, 1, dtype=torch.float64)

    def f(t, x):  # the first has no solution behind t = 1
        return torch.cat([x[:1] ** 2, -rate * x[1:] * t[1:]])

    options = {"stepping": "per_sample", "throw": False, "rtol": 1e-8, "atol": 1e-8}
    small = odeint(f, x0, spans, save=Save(fn=lambda t, x: (rate * x).log()[:, 0]), **options)
    whole = odeint(f, x0, spans, **options)
    expected = (rate * whole.x).log()[..., 0]
    assert small.status[0] is not Status.SUCCESS
    assert small.status == whole.status
    assert torch.equal(small.t_reached, whole.t_reached)
    assert small.x[:, 0].isfinite().tolist() == [True, True, False, False]
    assert small.x[:, 1:].isfinite().all()
    torch.testing.assert_close(small.x, expected, rtol=1e-13, atol=1e-13, equal_nan=True)
    (found,) = torch.autograd.grad(small.x[:, 1:].sum(), rate)
    # log x is minus the integral of the rate times t
    moved = -(spans[:, 1:].square() - spans[:1, 1:].square()).sum() / 2
    torch.testing.assert_close(found, moved + 8.0, rtol=1e-6, atol=0)


def test_a_sample_that_fails_meets_no_gradient_of_the_function():
    """Where it stopped, and at the end that it did not reach, the function has no value."""
    x0, scale = torch.ones(2, 1, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    spans = torch.tensor([[0.0, 0.0], [0.5, 0.25], [1.2, 0.5], [2.0, 1.0]], dtype=torch.float64)
    sol = odeint(
        lambda t, x: torch.cat([x[:1] ** 2, -x[1:]]), x0, spans, stepping="per_sample", throw=False,
        save=Save(fn=lambda t, x: scale * (1e3 - x).log() * (1.5 - t).log()),
    )  # fmt: skip
    assert sol.x[:, 0, 0].isfinite().tolist() == [True, True, False, False]
    total = sol.x[:, 1].sum() + sol.x[:2, 0].sum()
    (found,) = torch.autograd.grad(total, scale)
    torch.testing.assert_close(found, total.detach() / 2, rtol=1e-12, atol=0)


@both_steppings
def test_beside_events(stepping):
    """Outputs end with a terminal event, steps with its time; a jump is seen from the step that it ends."""
    ball = torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    t = torch.linspace(0, 1.5, 31, dtype=torch.float64)
    bounce = Event(lambda t, x: x[..., 0], direction=-1, jump=lambda t, x: x * torch.tensor([0.0, -0.5]).to(x))
    ends = Event(lambda t, x: x[..., 0], direction=-1)
    for event, x0 in itertools.product((bounce, ends), (ball[:1], ball)):
        start = x0 if stepping == "per_sample" else x0[0]

        def fall(t, x):
            return torch.stack([x[..., 1], -torch.ones_like(x[..., 0])], -1)

        def energy(t, x):
            return x[..., 1] ** 2 / 2 + x[..., 0]

        options = {"stepping": stepping, "events": event, "rtol": 1e-8, "atol": 1e-8}
        whole = odeint(fall, start, t, save=Save(("dense", "steps")), **options)
        small = odeint(fall, start, t, save=Save(("t_span", "steps"), fn=energy), **options)
        torch.testing.assert_close(small.x, energy(t, whole.x), rtol=1e-12, atol=1e-12, equal_nan=True)
        assert torch.equal(small.steps.t, whole.steps.t)
        torch.testing.assert_close(small.steps.x, energy(*whole.steps), rtol=1e-12, atol=1e-12)
        if event is ends:
            assert small.x.isnan().any()


@both_steppings
def test_a_value_that_is_not_finite_is_not_a_failure(stepping):
    sol = solve(save=Save(fn=lambda t, x: (x - x).log()), stepping=stepping)
    assert (sol.x == -torch.inf).all()
    assert torch.all(sol.status_code == 0)
    nan = odeint(lambda t, x: -x, starts(), [0.0, 1.0, 2.0], solver="euler", save=Save(fn=lambda t, x: x * torch.nan))
    assert nan.x.isnan().all()
    assert nan.status is Status.SUCCESS


def test_a_state_that_is_not_finite_is_a_failure_whatever_the_value():
    """Nobody judges fixed steps of a joint solve on the way."""
    x0 = torch.full((1,), 1e200, dtype=torch.float64)
    options = {"solver": "euler", "throw": False}
    for save in ("t_span", "steps"):
        sol, whole = (
            odeint(lambda t, x: x**2, x0, [0.0, 1.0, 2.0], save=kept, **options)
            for kept in (Save(save, fn=lambda t, x: torch.ones_like(x)), Save(save))
        )
        assert sol.status is whole.status is Status.NON_FINITE
        assert sol.t_reached == whole.t_reached == 0
        assert sol.x[:, 0].isfinite().tolist() == whole.x[:, 0].isfinite().tolist() == [True, False, False]


def test_pytrees_complex_numbers_and_dtypes():
    x0 = {"q": torch.ones(3, dtype=torch.complex64), "p": starts()}

    def f(t, x):
        return {"q": 1j * x["q"], "p": -x["p"]}

    for stepping in ("joint", "per_sample"):

        def fn(t, x, lead=(3,) if stepping == "per_sample" else ()):
            assert t.shape == lead
            assert t.dtype == torch.float64
            return x["q"].angle(), (x["q"] * t.float(), x["p"].sum(-1).float())

        angle, (turned, total) = odeint(f, x0, [0.0, 0.5, 1.0], save=Save(fn=fn), rtol=1e-8, stepping=stepping).x
        assert (angle.dtype, turned.dtype, total.dtype) == (torch.float32, torch.complex64, torch.float32)
        assert angle.shape == turned.shape == total.shape == (3, 3)
        torch.testing.assert_close(angle[:, 0], torch.tensor([0.0, 0.5, 1.0]), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(total[:, 0], 3 * torch.exp(-torch.tensor([0.0, 0.5, 1.0])), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_it_sees_time_and_state_as_the_field_does(dtype):
    seen = []

    def look(t, x):
        seen.append((t.dtype, t.shape, x.dtype, x.shape, torch.is_autocast_enabled("cpu")))
        return -x

    for stepping, mixed in itertools.product(("joint", "per_sample"), (False, True)):
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            odeint(look, torch.ones(3, 2, 2, dtype=dtype), [0.0, 0.5, 1.0], save=Save(fn=look), stepping=stepping)
        assert len(set(seen)) == 1
        assert seen[0][-1] == mixed


def live_elements():
    """The float64 numbers that tensors hold, each storage counted once."""
    # What torch.func has wrapped, which an earlier test may have left over, holds none itself.
    tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor and not is_functorch_wrapped_tensor(o)]
    tensors = [o for o in tensors if o.dtype == torch.float64]
    return sum({o.untyped_storage().data_ptr(): o.untyped_storage().nbytes() // 8 for o in tensors}.values())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("shape", "stepping"), [((20_000,), "joint"), ((2, 10_000), "per_sample")])
@pytest.mark.parametrize("options", [{"solver": "tsit5"}, {"solver": "rk4"}], ids=["interpolated", "on the grid"])
def test_memory_is_that_of_the_kept_values(options, shape, stepping):
    """The states at 100 outputs would be 100 times the start; what a function returns may well be a view of a state."""
    x0 = torch.ones(shape, dtype=torch.float64)
    t = torch.linspace(0, 6, 100, dtype=torch.float64)
    gc.collect()
    before, most = live_elements(), [0]

    def first(t, x):
        if len(most) % 10 == 0:
            most.append(live_elements() - before)
        else:
            most.append(0)
        return x[..., :1]

    with torch.no_grad():
        sol = odeint(lambda t, x: x * torch.cos(t), x0, t, save=Save(fn=first), stepping=stepping, **options)
    assert sol.x.shape == ((100, 2, 1) if stepping == "per_sample" else (100, 1))
    torch.testing.assert_close(sol.x[:, 0].reshape(-1), torch.exp(torch.sin(t)), rtol=2e-2, atol=0)
    assert 0 < max(most) < 40 * x0.numel()
    assert live_elements() - before < 20 * x0.numel()


@pytest.mark.parametrize("options", [{"solver": "tsit5"}, {"solver": "rk4"}], ids=["interpolated", "on the grid"])
def test_memory_with_gradients(options):
    """What is saved for the gradient does not grow with the outputs, but where there is a step for each."""
    x0 = torch.ones(1000, dtype=torch.float64, requires_grad=True)

    def saved(n):
        count = 0

        def pack(x):
            nonlocal count
            count += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            t = torch.linspace(0, 6, n, dtype=torch.float64)
            odeint(lambda t, x: x * torch.cos(t), x0, t, save=Save(fn=lambda t, x: x.mean()), **options)
        return count

    more = saved(61) - saved(31)
    assert more < 30 * 2 * 1000 * (4 if options["solver"] == "rk4" else 1)


def test_one_call_for_every_kept_value():
    calls = []

    def fn(t, x):
        calls.append(t.item())
        return x.sum()

    solve(save=Save(fn=fn), solver="tsit5")
    assert sorted(calls) == T_SPAN.tolist()
    calls.clear()
    steps = solve(save=Save("steps", fn=fn), solver="tsit5")
    assert calls == steps.t.tolist()


def test_extra_stages_are_for_steps_that_hold_an_output(counted):
    """`dopri8` pays for its dense output, but not where nothing is kept."""
    for stepping in ("joint", "per_sample"):
        counts = []
        for save in (Save(), Save(fn=lambda t, x: x)):
            f = counted(field)
            with torch.no_grad():
                sol = odeint(
                    f, starts(), [0.0, 2.0, 2.1, 4.0], solver="dopri8", save=save, stepping=stepping, rtol=1e-6
                )
            assert sol.stats.n_evals == f.calls
            counts.append(f.calls)
        if stepping == "joint":
            assert counts[0] == counts[1]


def test_modules_learn_through_it():
    """A decoder as what is kept: per sample and jointly its gradient is the same, to the rounding of the steps."""
    torch.manual_seed(0)
    decoder = nn.Linear(2, 1).double()
    grads = []
    for stepping in ("joint", "per_sample"):
        sol = solve(save=Save(fn=lambda t, x: decoder(x)), stepping=stepping, solver="dopri5", controller=FixedStep())
        assert sol.x.shape == (6, 3, 1)
        grads.append(torch.autograd.grad(sol.x.square().sum(), tuple(decoder.parameters())))
    torch.testing.assert_close(*grads, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("fn", "error", "message"),
    [
        ("norm", TypeError, "fn: got a str, expected a function"),
        (lambda t, x: 1.0, TypeError, "fn: got a float, expected a tensor or a pytree of tensors"),
        (lambda t, x: None, TypeError, "fn: got a NoneType, expected a tensor"),
        (lambda t, x: {}, ValueError, "fn: got an empty pytree"),
        (lambda t, x: x > 0, TypeError, "fn: got dtype torch.bool, expected a floating or complex dtype"),
        (
            lambda t, x: x[: 1 + int(t.max() > 1)],
            ValueError,
            r"fn: returned .*expected.* at the start|fn: returned 1 rows",
        ),
        (lambda t, x: x if t.max() < 1 else (x,), TypeError, "fn: returned a tuple, expected a tensor"),
        (lambda t, x: (x,) if t.max() < 1 else x, TypeError, "fn: returned a tensor, expected .* at the start"),
        (lambda t, x: x if t.max() < 1 else x.float(), TypeError, "fn: returned dtype torch.float32, .* at the start"),
        (lambda t, x: x.mul_(2), ValueError, "fn: changed the state x in place"),
    ],
)
@both_steppings
def test_bad_functions(fn, error, message, stepping):
    for solver in ("tsit5", "rk4"):
        with pytest.raises(error, match=message):
            solve(save=Save(fn=fn), stepping=stepping, solver=solver)
        if callable(fn):
            with pytest.raises(error, match=message):
                solve(save=Save("steps", fn=fn), stepping=stepping, solver=solver)


def test_values_of_samples_lead_with_the_batch():
    with pytest.raises(ValueError, match=r"fn: .* expected every one to lead with the same batch"):
        solve(save=Save(fn=lambda t, x: x.sum()), stepping="per_sample")
    with pytest.raises(ValueError, match="fn: returned 2 rows, expected one for each of the 3 samples"):
        solve(save=Save(fn=lambda t, x: x.sum(0)), stepping="per_sample")


def test_bad_forms():
    for states in ("all", (), ("t_span", "all"), ["t_span"], None):
        with pytest.raises(ValueError, match=r"save: got .*, expected 't_span', 'steps', 'dense' or a Save"):
            Save(states)
    with pytest.raises(
        ValueError, match=r"save: got \('t_span', 'steps'\), expected a name or a Save\(...\); try Save"
    ):
        solve(save=("t_span", "steps"))


def test_under_transforms():
    x0 = starts()
    for stepping in ("joint", "per_sample"):
        save = Save(("t_span", "steps"), fn=lambda t, x: x.square().sum(-1))

        def run(x, save=save, stepping=stepping):
            sol = odeint(field, x, T_SPAN, save=save, stepping=stepping, solver="rk4", step_size=0.3)
            return sol.x, sol.steps.x

        values, tangents = torch.func.jvp(run, (x0,), (x0,))
        for value, tangent in zip(values, tangents, strict=True):  # quadratic in the start
            torch.testing.assert_close(tangent, 2 * value, rtol=1e-12, atol=1e-12)
    many = torch.func.vmap(lambda x: odeint(field, x, T_SPAN, save=Save(fn=lambda t, x: x.norm()), rtol=1e-8).x)(x0)
    each = torch.stack([odeint(field, x, T_SPAN, save=Save(fn=lambda t, x: x.norm()), rtol=1e-8).x for x in x0])
    torch.testing.assert_close(many, each, rtol=1e-12, atol=1e-12)
