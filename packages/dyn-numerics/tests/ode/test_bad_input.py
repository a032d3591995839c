"""Bad input is refused at once: the right exception, naming the argument, what came and what was expected."""

import math

import pytest
import torch

from dyn_numerics import Euler, FixedStep, PIDController, Stepper, Tsit5, odeint

NAN, INF = math.nan, math.inf


class WithoutOrder(Stepper):
    def step(self, f, t0, t1, x, carry): ...
    def complete(self, f, t1, step): ...
    def interpolant(self, t0, t1, x0, step): ...


def field(t, x):
    return -x


def refuse(error, message, f=field, x0=None, t_span=(0.0, 1.0), **options):
    x0 = torch.ones(2).double() if x0 is None else x0
    calls = []

    def recorded(t, x, *args):
        calls.append(t)
        return f(t, x, *args)

    with pytest.raises(error, match=message):
        odeint(recorded, x0, t_span, **options)
    return len(calls)


@pytest.mark.parametrize(
    ("t_span", "error", "message"),
    [
        (
            [0.0, 2.0, 1.0],
            ValueError,
            "t_span: got 2 followed by 1 at index 1, expected strictly increasing or strictly",
        ),
        ([0.0, -2.0, -1.0], ValueError, "t_span: got -2 followed by -1 at index 1"),
        ([0.0, 1.0, 1.0], ValueError, "t_span: got 1 followed by 1 at index 1"),
        ([0.0, 0.0, 1.0], ValueError, "t_span: got 0 followed by 0 at index 0"),
        (torch.tensor([0.0, 2.0, 1.0]), ValueError, "t_span: got 2 followed by 1"),
        ([], ValueError, "t_span: got no times, expected at least one"),
        (torch.empty(0), ValueError, "t_span: got no times"),
        (torch.zeros(2, 3), ValueError, r"t_span: got shape \[2, 3\], expected one dimension \[T\]"),
        (torch.tensor(1.0), ValueError, r"t_span: got shape \[\], expected one dimension"),
        ([0.0, NAN], ValueError, "t_span: got nan, expected finite times"),
        ([-INF, 0.0], ValueError, "t_span: got -inf, expected finite times"),
        (torch.tensor([0.0, NAN, 1.0]), ValueError, "t_span: got nan, expected finite times"),
        (torch.tensor([0, 1]), TypeError, r"t_span: got dtype torch\.int64, expected a floating dtype"),
        (torch.tensor([0j, 1j]), TypeError, r"t_span: got dtype torch\.complex64, expected a floating dtype"),
        (1.0, TypeError, r"t_span: got 1\.0, expected a sequence of times or a tensor"),
        (None, TypeError, "t_span: got None, expected a sequence of times"),
        ([[0.0, 1.0]], TypeError, r"t_span: got \[\[0\.0, 1\.0\]\], expected a sequence of times"),
        ("01", TypeError, "t_span: got '01', expected a sequence of times"),
        (["0", "1"], TypeError, r"t_span: got \['0', '1'\], expected a sequence of times"),
        ({0.0: 1, 1.0: 2}, TypeError, "t_span: got {0.0: 1, 1.0: 2}, expected a sequence of times"),
        ({0.0, 1.0}, TypeError, "t_span: got {0.0, 1.0}, expected a sequence of times"),
        ([0.0, 1e-200, 2e-200, 1e-200], ValueError, "t_span: got 2e-200 followed by 1e-200 at index 2"),
        ([-1.7e308, 1.7e308], ValueError, "t_span: got -1.7e.308 to 1.7e.308, expected a length that float64 can hold"),
        (["zero", "one"], TypeError, r"t_span: got \['zero', 'one'\], expected a sequence of times"),
        ([torch.zeros(2), torch.ones(3)], TypeError, "t_span: got .*, expected a sequence of times"),
    ],
)
def test_t_span(t_span, error, message):
    assert refuse(error, message, t_span=t_span) == 0


@pytest.mark.parametrize(
    ("x0", "error", "message"),
    [
        (torch.tensor([1.0, NAN]), ValueError, "x0: got values that are NaN or infinite, expected finite ones"),
        (torch.tensor([1.0, INF]), ValueError, "x0: got values that are NaN or infinite"),
        (torch.tensor([complex(1, NAN)]), ValueError, "x0: got values that are NaN or infinite"),
        ({"a": torch.ones(1), "b": torch.tensor(-INF)}, ValueError, "x0: got values that are NaN or infinite"),
        (
            torch.ones(2, dtype=torch.int64),
            TypeError,
            r"x0: got dtype torch\.int64, expected a floating or complex dtype",
        ),
        (torch.ones(2, dtype=torch.bool), TypeError, r"x0: got dtype torch\.bool"),
        ((torch.ones(2), torch.ones(2, dtype=torch.int32)), TypeError, r"x0: got dtype torch\.int32"),
        (1.0, TypeError, r"x0: got a float, expected a tensor or a pytree of tensors; try torch\.as_tensor"),
        ([1.0, 2.0], TypeError, "x0: got a float, expected a tensor or a pytree of tensors"),
        ((), ValueError, "x0: got an empty pytree, expected at least one tensor"),
    ],
)
def test_x0(x0, error, message):
    assert refuse(error, message, x0=x0) == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"solver": "dorpi5"},
            ValueError,
            "solver: got 'dorpi5', expected one of euler, .*, tsit5, vern7, dopri8, .*; did you mean 'dopri5'",
        ),
        ({"solver": "nonsense"}, ValueError, "solver: got 'nonsense', expected one of euler, midpoint, heun, ralston"),
        ({"solver": Tsit5}, TypeError, r"solver: got the class Tsit5, expected a name or a dyn_numerics\.Stepper"),
        ({"solver": None}, TypeError, "solver: got a NoneType, expected a name"),
        ({"rtol": 0.0}, ValueError, "rtol: got 0.0, expected a positive number"),
        ({"rtol": -1e-3}, ValueError, "rtol: got -0.001, expected a positive number"),
        ({"atol": 0}, ValueError, "atol: got 0, expected a positive number"),
        ({"atol": NAN}, ValueError, "atol: got nan, expected a positive number"),
        ({"rtol": INF}, ValueError, "rtol: got inf, expected a positive number"),
        ({"rtol": "1e-3"}, TypeError, "rtol: got a str, expected a positive number or tensor"),
        ({"atol": None}, TypeError, "atol: got a NoneType, expected a positive number or tensor"),
        ({"rtol": True}, TypeError, "rtol: got a bool, expected a positive number"),
        (
            {"atol": torch.tensor([1e-6, 0.0])},
            ValueError,
            "atol: got a tensor with values from 0.0 to .*, expected positive",
        ),
        (
            {"rtol": torch.tensor([1e-3, INF])},
            ValueError,
            "rtol: got a tensor with values from .* to inf, expected positive",
        ),
        ({"rtol": torch.tensor([1e-3, NAN])}, ValueError, "rtol: got a tensor with values from nan"),
        (
            {"atol": torch.ones(3)},
            ValueError,
            r"atol: got shape \[3\], expected one that broadcasts against .*\[\[2\]\]",
        ),
        ({"atol": torch.ones(2, 2)}, ValueError, r"atol: got shape \[2, 2\], expected one that broadcasts"),
        ({"step_size": 0.0}, ValueError, "step_size: got 0.0, expected a positive number; its sign follows t_span"),
        ({"step_size": -0.1}, ValueError, "step_size: got -0.1, expected a positive number"),
        ({"step_size": NAN}, ValueError, "step_size: got nan, expected a positive number"),
        ({"step_size": "0.1"}, TypeError, "step_size: got a str, expected a positive number"),
        ({"step_size": torch.tensor(0.1)}, TypeError, "step_size: got a Tensor, expected a positive number"),
        ({"max_steps": 0}, ValueError, "max_steps: got 0, expected a positive integer"),
        ({"max_steps": -5}, ValueError, "max_steps: got -5, expected a positive integer"),
        ({"max_steps": 1.5}, ValueError, "max_steps: got 1.5, expected a positive integer"),
        ({"max_steps": True}, ValueError, "max_steps: got True, expected a positive integer"),
        ({"save": "all"}, ValueError, "save: got 'all', expected 't_span', 'steps', 'dense' or a Save"),
        ({"controller": "pid"}, TypeError, r"controller: got a str, expected a dyn_numerics\.Controller"),
        (
            {"controller": PIDController},
            TypeError,
            r"controller: got the class PIDController, expected a dyn_numerics\.Controller",
        ),
        ({"args": torch.ones(1)}, TypeError, "args: got a Tensor, expected a tuple of arguments"),
        ({"args": 3.0}, TypeError, "args: got a float, expected a tuple of arguments"),
        ({"args": "ab"}, TypeError, "args: got a str, expected a tuple of arguments"),
        ({"args": {"k": 2.0}}, TypeError, "args: got a dict, expected a tuple of arguments"),
        ({"rtol": torch.tensor(1j)}, TypeError, "rtol: got dtype torch.complex64, expected a floating dtype"),
        ({"solver": WithoutOrder()}, TypeError, r"solver: got WithoutOrder\(\) without an order"),
        ({"step_size": 1e-20, "t_span": (1.0, 2.0)}, ValueError, "step_size: got 1e-20, expected at least 4.44e-16"),
        (
            {"step_size": 1e-8, "t_span": (1e9, 1e9 + 1e-5)},
            ValueError,
            "step_size: got 1e-08, expected at least 1.19e-07",
        ),
        (
            {"step_size": 1e-10},
            ValueError,
            r"step_size: got 1e-10, expected at least 1e-09: the span takes 1e\+10 steps",
        ),
        ({"step_size": 1e-310}, ValueError, "step_size: got 1e-310, expected at least"),
    ],
)
def test_options(options, error, message):
    assert refuse(error, message, **options) == 0


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "ralston", "rk4", Euler(trainable=True)])
def test_adaptive_controller_for_a_method_without_an_error_estimate(solver):
    message = r"controller: got an adaptive one for .*, which has no error estimate; try solver='tsit5'"
    assert refuse(ValueError, message, solver=solver, controller=PIDController()) == 0


def test_adaptive_controller_beside_a_step_size():
    message = "step_size: got one beside an adaptive controller, expected one of the two"
    assert refuse(ValueError, message, controller=PIDController(), step_size=0.1) == 0


@pytest.mark.parametrize(
    ("returns", "error", "message"),
    [
        (lambda x: x[:1], ValueError, r"f: returned shape \[1\], expected \[2\] as the state"),
        (lambda x: x.unsqueeze(0), ValueError, r"f: returned shape \[1, 2\], expected \[2\] as the state"),
        (lambda x: x.sum(), ValueError, r"f: returned shape \[\], expected \[2\] as the state"),
        (
            lambda x: x.float(),
            TypeError,
            r"f: returned dtype torch\.float32, expected torch\.float64 as the state; cast in f",
        ),
        (lambda x: x + 0j, TypeError, r"f: returned dtype torch\.complex128, expected torch\.float64"),
        (lambda x: x.to("meta"), ValueError, "f: returned device meta, expected cpu as the state"),
        (lambda x: (x,), TypeError, "f: returned a tuple, expected a tensor"),
        (lambda x: None, TypeError, "f: returned a NoneType, expected a tensor"),
        (lambda x: 0.0, TypeError, "f: returned a float, expected a tensor"),
    ],
)
@pytest.mark.parametrize("solver", ["euler", "tsit5"])
def test_what_the_field_returns(returns, error, message, solver):
    assert refuse(error, message, f=lambda t, x: returns(x), solver=solver) == 1


@pytest.mark.parametrize(
    ("returns", "error", "message"),
    [
        (lambda q, p: [q, p], TypeError, "f: returned TreeSpec.*list.*, expected TreeSpec.*tuple.* as the state"),
        (lambda q, p: q, TypeError, "f: returned a tensor, expected TreeSpec.*tuple.* as the state"),
        (lambda q, p: (q,), TypeError, "f: returned TreeSpec.*tuple.*, expected TreeSpec.*tuple.* as the state"),
        (lambda q, p: (p, q), ValueError, r"f: returned shape \[3\], expected \[2\] as the state"),
        (lambda q, p: (q, 0.0), TypeError, "f: returned a float, expected a tensor"),
    ],
)
def test_what_the_field_of_a_pytree_returns(returns, error, message):
    x0 = (torch.ones(2), torch.ones(3))
    assert refuse(error, message, f=lambda t, x: returns(*x), x0=x0) == 1


class OfTheStateAlone(torch.nn.Module):
    def forward(self, x):
        return -x


@pytest.mark.parametrize(
    ("f", "args", "message"),
    [
        (
            lambda x: -x,
            (),
            r"f: got a field with the signature \(x\), expected one that takes \(t, x, \*args\); for a field",
        ),
        (OfTheStateAlone(), (), r"f: got a field with the signature \(x\).*lambda t, x: f\(x\)"),
        (torch.nn.Sequential(torch.nn.Linear(2, 2)), (), r"f: got a field with the signature \(input\)"),
        (
            lambda t, x, a: -x,
            (),
            r"f: got a field with the signature \(t, x, a\), .* \(t, x, \*args\); pass the rest as args=\(...\)",
        ),
        (lambda t, x: -x, (1, 2), r"expected one that takes \(t, x, \*args\) with 2 args"),
        (lambda t, x, *, a: -x, (), r"f: got a field with the signature \(t, x, \*, a\)"),
        (lambda: None, (), r"f: got a field with the signature \(\), expected one that takes \(t, x, \*args\)$"),
        (None, (), "f: got a NoneType, expected a function or module"),
        (torch.nn.Linear, (), r"f: got the class Linear, expected a function or module; try an instance, Linear\("),
        (torch.ones(2, 2), (), "f: got a Tensor, expected a function or module"),
    ],
)
def test_signature(f, args, message):
    with pytest.raises(TypeError, match=message):
        odeint(f, torch.ones(2), [0.0, 1.0], args=args)


def test_bad_input_is_refused_on_a_span_of_no_length_too():
    with pytest.raises(ValueError, match="rtol: got -1"):
        odeint(field, torch.ones(1), [0.0], rtol=-1)
    with pytest.raises(TypeError, match="f: got a field with the signature"):
        odeint(lambda x: x, torch.ones(1), [0.0])


@pytest.mark.parametrize(
    "f",
    [
        lambda t, x: x.mul_(-1),
        lambda t, x: -x.clamp_(max=0.5),
        lambda t, x: (x.neg_(), -x)[1],
        lambda t, x: torch.neg(x, out=x),
    ],
)
@pytest.mark.parametrize("solver", ["euler", "tsit5"])
def test_a_field_that_writes_into_the_state(f, solver):
    with torch.no_grad(), pytest.raises(ValueError, match=r"f: changed the state x in place, .* x\.clone\(\)"):
        odeint(f, torch.ones(1), [0.0, 1.0], solver=solver)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_a_field_that_writes_into_the_time(stepping):
    def field(t, x):
        slope = -x * t
        t.add_(0.5)
        return slope

    with torch.no_grad(), pytest.raises(ValueError, match=r"f: changed the time t in place, .* t\.clone\(\)"):
        odeint(field, torch.ones(1, 1, dtype=torch.float64), [0.0, 1.0], stepping=stepping)


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_a_field_that_asks_for_gradients_of_its_argument(stepping):
    """As Hamiltonian networks do; the user's tensor does not get to require them."""
    x0 = torch.ones(2, 1)

    def field(t, x):
        with torch.enable_grad():
            x = x.requires_grad_()
            return -torch.autograd.grad((x**2 / 2).sum(), x)[0]

    sol = odeint(field, x0, [0.0, 1.0], stepping=stepping, rtol=1e-6)
    torch.testing.assert_close(sol.x[-1], torch.full_like(x0, math.exp(-1)), rtol=1e-5, atol=0)
    assert not x0.requires_grad


def test_a_field_that_writes_into_a_leaf_of_the_state():
    with pytest.raises(ValueError, match="f: changed the state x in place"):
        odeint(lambda t, x: (x[0].mul_(2), x[1]), (torch.ones(1), torch.ones(2)), [0.0, 1.0])


@pytest.mark.parametrize("solver", ["rk4", "dopri5", "tsit5", "vern7", "dopri8"])
@pytest.mark.parametrize("grad", [False, True])
def test_a_field_that_returns_the_same_memory_again(solver, grad):
    """Its stages would all be the last one."""
    buffer = torch.empty(2)
    f = (lambda t, x: buffer.copy_(-x)) if grad else (lambda t, x: torch.neg(x, out=buffer))
    with torch.set_grad_enabled(grad), pytest.raises(ValueError, match="f: wrote into the tensor that it returned"):
        odeint(f, torch.ones(2), [0.0, 1.0], solver=solver)


def test_a_field_may_return_its_argument_a_constant_or_what_inference_mode_makes(growth):
    constant = torch.full((2,), 3.0)
    assert odeint(lambda t, x: constant, torch.zeros(2), [0.0, 1.0]).x[-1].tolist() == pytest.approx([3, 3])
    assert odeint(lambda t, x: x, torch.ones(2), [0.0, 1.0]).x[-1].tolist() == pytest.approx([math.e] * 2, rel=1e-3)
    with torch.inference_mode():
        x = odeint(growth, torch.ones(2), [0.0, 1.0], rtol=1e-6).x[-1]
    assert x.tolist() == pytest.approx([math.exp(math.sin(1))] * 2, rel=1e-5)


def test_what_a_field_raises_comes_through():
    class OwnError(Exception):
        pass

    def f(t, x):
        raise OwnError

    with pytest.raises(OwnError):
        odeint(f, torch.ones(1), [0.0, 1.0])


def test_only_the_first_three_arguments_are_positional():
    with pytest.raises(TypeError):
        odeint(field, torch.ones(1), [0.0, 1.0], "tsit5")
    assert odeint(field, torch.ones(1), [0.0, 1.0], solver="tsit5", controller=FixedStep()).status.is_success


def test_a_field_that_returns_the_same_memory_in_inference_mode():
    """Which counts no writes."""
    buffer = torch.empty(2)
    with torch.inference_mode(), pytest.raises(ValueError, match="f: returned the same memory twice, expected a new"):
        odeint(lambda t, x: torch.neg(x, out=buffer), torch.ones(2), [0.0, 1.0])


def test_times_that_come_one_by_one():
    t, x = odeint(field, torch.ones(1), (t for t in (0.0, 0.5, 1.0)))
    assert t.tolist() == [0.0, 0.5, 1.0]
    assert x.shape == (3, 1)


def test_the_times_of_a_solution_are_its_own():
    t = torch.tensor([0.0, 1.0])
    sol = odeint(field, torch.ones(1), t)
    t += 5
    assert sol.t.tolist() == [0.0, 1.0]
