"""States of every shape, structure and dtype."""

import math
from collections import namedtuple

import pytest
import torch

from dyn_numerics import FixedStep, PIDController, Tsit5, odeint

SOLVERS = ["rk4", "bosh3", "dopri5", "tsit5", "vern7", "dopri8"]
TIGHT = {"rtol": 1e-7, "atol": 1e-9}
T_SPAN = torch.linspace(0.0, 2.0, 9, dtype=torch.float64)

each_solver = pytest.mark.parametrize("solver", SOLVERS)


def options(solver):
    return {"solver": solver, "step_size": 0.02} if solver == "rk4" else {"solver": solver, **TIGHT}


@each_solver
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 3, 2)])
def test_tensors_of_any_shape(solver, shape, growth):
    x0 = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t, x = odeint(growth, x0, T_SPAN, **options(solver))
    assert x.shape == (9, *shape)
    expected = growth.exact(t).reshape(-1, *[1] * len(shape)) * x0
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-8)


@each_solver
def test_empty_batch(solver, growth):
    sol = odeint(growth, torch.empty(0, 3, dtype=torch.float64), T_SPAN, **options(solver))
    assert sol.x.shape == (9, 0, 3)
    assert sol.status.is_success


def test_a_transposed_state_keeps_its_places(growth):
    x0 = torch.arange(6, dtype=torch.float64).reshape(2, 3)

    def f(t, x):
        return x * torch.arange(1, 7, dtype=torch.float64).reshape(2, 3)

    expected = odeint(f, x0, [0.0, 0.5], **TIGHT).x
    found = odeint(lambda t, x: f(t, x.t()).t(), x0.t(), [0.0, 0.5], **TIGHT).x
    torch.testing.assert_close(found.transpose(1, 2), expected, rtol=0, atol=0)


Oscillator = namedtuple("Oscillator", ["q", "p"])
STRUCTURES = {
    "tuple": (lambda q, p: (q, p), lambda x: (x[0], x[1])),
    "list": (lambda q, p: [q, p], lambda x: (x[0], x[1])),
    "dictionary": (lambda q, p: {"q": q, "p": p}, lambda x: (x["q"], x["p"])),
    "named tuple": (lambda q, p: Oscillator(q, p), lambda x: (x.q, x.p)),
    "nested": (lambda q, p: {"deep": ([q], {"p": p})}, lambda x: (x["deep"][0][0], x["deep"][1]["p"])),
}


@pytest.mark.parametrize("solver", ["rk4", "tsit5"])
@pytest.mark.parametrize(("pack", "unpack"), STRUCTURES.values(), ids=STRUCTURES.keys())
@pytest.mark.parametrize("save", ["t_span", "steps", "dense"])
def test_pytrees(pack, unpack, solver, save):
    def f(t, x):
        q, p = unpack(x)
        return pack(p.unsqueeze(0) * (1 + 0 * t), -q.squeeze(0))

    x0 = pack(torch.tensor([[1.0, 0.0]]).double(), torch.tensor([0.0, 2.0]).double())
    sol = odeint(f, x0, T_SPAN, save=save, **options(solver))
    q, p = unpack(sol.x)
    cos, sin = torch.cos(sol.t), torch.sin(sol.t)
    torch.testing.assert_close(q, torch.stack([cos, 2 * sin], -1).unsqueeze(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(p, torch.stack([-sin, 2 * cos], -1), rtol=0, atol=1e-6)
    assert type(sol.x) is type(x0)
    if save == "dense":
        torch.testing.assert_close(unpack(sol.dense(0.7))[0][0, 0].item(), math.cos(0.7), rtol=0, atol=1e-6)


def test_a_dictionary_may_come_back_in_another_order():
    x0 = {"q": torch.ones(1).double(), "p": torch.zeros(1).double()}
    x = odeint(lambda t, x: {"p": -x["q"], "q": x["p"]}, x0, [0.0, 1.0], **TIGHT).x
    assert list(x) == ["q", "p"]
    assert (x["q"][-1].item(), x["p"][-1].item()) == pytest.approx((math.cos(1), -math.sin(1)), abs=1e-7)


def test_leaves_keep_their_dtypes():
    def f(t, x):
        assert (x["half"].dtype, x["single"].dtype, x["double"].dtype) == dtypes
        assert t.dtype == torch.float64
        return {name: -leaf for name, leaf in x.items()}

    dtypes = (torch.float16, torch.float32, torch.float64)
    x0 = dict(zip(("half", "single", "double"), (torch.ones(2, dtype=dtype) for dtype in dtypes), strict=True))
    x = odeint(f, x0, [0.0, 1.0], rtol=1e-3, atol=1e-3).x
    for (name, leaf), dtype, tolerance in zip(x.items(), dtypes, (2e-3, 1e-3, 1e-3), strict=True):
        assert leaf.dtype == dtype, name
        torch.testing.assert_close(leaf[-1].double(), torch.full((2,), math.exp(-1)).double(), rtol=0, atol=tolerance)


@each_solver
def test_complex_state(solver):
    """x' = i x cos t: the state turns by sin t."""
    x0 = torch.tensor([1.0, 1j, 2 - 1j], dtype=torch.complex128)
    t, x = odeint(lambda t, x: 1j * x * torch.cos(t), x0, T_SPAN, **options(solver))
    torch.testing.assert_close(x, torch.exp(1j * torch.sin(t)).unsqueeze(1) * x0, rtol=0, atol=1e-6)


def test_complex_errors_count_by_magnitude():
    """So z = x + i y takes the steps of the pair (x, y), whose root mean square is over twice as many elements."""

    def turn(t, x):
        return torch.stack([-x[1], x[0]])

    def magnitude(error):
        return error.square().sum().sqrt()

    absolute = {"rtol": 1e-15, "atol": 1e-4, "save": "steps"}
    z = odeint(lambda t, z: 1j * z, torch.ones(1, dtype=torch.complex128), [0.0, 5.0], **absolute)
    pair = odeint(
        turn, torch.tensor([1.0, 0.0]).double(), [0.0, 5.0], controller=PIDController(norm=magnitude), **absolute
    )
    torch.testing.assert_close(z.t, pair.t, rtol=1e-9, atol=0)
    torch.testing.assert_close(torch.view_as_real(z.x[:, 0]), pair.x, rtol=1e-9, atol=1e-9)


def test_real_and_complex_leaves_together():
    x0 = (torch.ones(1, dtype=torch.complex64), torch.ones(2, dtype=torch.float64))
    z, x = odeint(lambda t, x: (1j * x[0], -x[1]), x0, [0.0, 1.0], **TIGHT).x
    assert (z.dtype, x.dtype) == (torch.complex64, torch.float64)
    assert z[-1].item() == pytest.approx(complex(math.cos(1), math.sin(1)), abs=1e-6)
    torch.testing.assert_close(x[-1], torch.full((2,), math.exp(-1)).double(), rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float16, 5e-3),
        (torch.bfloat16, 2e-2),
        (torch.float32, 6e-5),
        (torch.float64, 6e-5),
        (torch.complex64, 6e-5),
    ],
)
@each_solver
def test_precisions(dtype, tolerance, solver, growth):
    """Interpolated outputs included, whose polynomials would lose two digits in half precision."""
    mode = {"step_size": 0.11} if solver == "rk4" else {"rtol": tolerance / 10}  # local errors of some six steps add up
    sol = odeint(growth, torch.ones(4, dtype=dtype), T_SPAN, solver=solver, **mode)
    assert sol.x.dtype == dtype
    expected = growth.exact(T_SPAN).unsqueeze(1).expand(-1, 4)
    torch.testing.assert_close(sol.x.to(torch.complex128).real, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
@each_solver
def test_scales_of_the_state(scale, solver, growth):
    """Steps and relative errors do not depend on the unit of the state, if atol is in it."""
    mode = {"step_size": 0.01} if solver == "rk4" else {"rtol": 1e-6}
    unit, scaled = (
        odeint(growth, torch.full((2,), s, dtype=torch.float64), T_SPAN, solver=solver, atol=1e-9 * s, **mode)
        for s in (1.0, scale)
    )
    assert unit.stats.n_steps == scaled.stats.n_steps
    rounding = 1e-11 if solver == "dopri8" else 1e-12  # step sizes are of an error that its estimates nearly cancel
    torch.testing.assert_close(scaled.x / scale, unit.x, rtol=rounding, atol=0)
    torch.testing.assert_close(scaled.x[:, 0] / scale, growth.exact(T_SPAN), rtol=1e-4, atol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scales_of_the_state_in_float32(scale, growth):
    x = odeint(growth, torch.full((2,), scale), T_SPAN, rtol=1e-5, atol=1e-6 * scale).x
    torch.testing.assert_close(x[:, 0].double() / scale, growth.exact(T_SPAN), rtol=1e-4, atol=0)


def test_args_of_any_type():
    def f(t, x, matrix, options, factor):
        return factor * x @ matrix if options["on"] else x

    matrix = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
    args = (matrix, {"on": True}, 2)
    x = odeint(f, torch.tensor([1.0, 0.0]).double(), [0.0, 1.0], args=args, **TIGHT).x
    torch.testing.assert_close(x[-1], torch.tensor([math.cos(2), math.sin(2)]).double(), rtol=0, atol=1e-6)
    again = odeint(f, torch.tensor([1.0, 0.0]).double(), [0.0, 1.0], args=list(args), **TIGHT).x
    assert torch.equal(x, again)


def test_fields_of_any_kind(growth):
    class Module(torch.nn.Module):
        def forward(self, t, x):
            return growth(t, x)

        def method(self, t, x):
            return growth(t, x)

    def with_more(t, x, a=1.0, *, b=0.0):
        return a * growth(t, x) + b

    x0 = torch.ones(2).double()
    expected = odeint(growth, x0, [0.0, 1.0]).x
    for f in (Module(), Module().method, with_more, lambda *both: growth(*both), torch.no_grad()(growth)):
        assert torch.equal(odeint(f, x0, [0.0, 1.0]).x, expected)


@each_solver
def test_the_initial_state_is_left_alone_and_is_the_first_output(solver, growth):
    x0 = torch.randn(3, generator=torch.Generator().manual_seed(1)).double()
    kept = x0.clone()
    x = odeint(growth, x0, T_SPAN, **options(solver)).x
    assert torch.equal(x[0], kept)
    x.add_(1)
    assert torch.equal(x0, kept)


def test_a_field_may_return_its_argument():
    """The very tensor it was called with, which no step may write into."""
    for mode in ({"solver": "rk4", "step_size": 0.01}, TIGHT, {"solver": "dopri5", "controller": FixedStep()}):
        x = odeint(lambda t, x: x, torch.ones(2).double(), [0.0, 0.25], **mode).x
        torch.testing.assert_close(x[-1], torch.full((2,), math.exp(0.25)).double(), rtol=1e-6, atol=0)


def test_under_inference_mode_and_no_grad(growth):
    expected = odeint(growth, torch.ones(2).double(), [0.0, 1.0]).x
    with torch.inference_mode():
        torch.testing.assert_close(odeint(growth, torch.ones(2).double(), [0.0, 1.0]).x, expected, rtol=1e-14, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(odeint(growth, torch.ones(2).double(), [0.0, 1.0]).x, expected, rtol=1e-14, atol=0)


def test_a_stepper_first_used_in_inference_mode_can_be_differentiated_later(growth):
    method = Tsit5()
    with torch.inference_mode():
        odeint(growth, torch.ones(2).double(), [0.0, 1.0], solver=method)
    x0 = torch.ones(2).double().requires_grad_()
    odeint(growth, x0, [0.0, 1.0], solver=method, **TIGHT).x[-1].sum().backward()
    torch.testing.assert_close(x0.grad, growth.exact(torch.ones(2).double()), rtol=1e-6, atol=0)


@each_solver
@pytest.mark.parametrize(("slope", "end"), [(6e4, 1e-7), (6e4, 1e-6), (-2e4, 1e-5), (0.0, 1e6), (1e-7, 1e6)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_short_and_long_spans(solver, slope, end, dtype):
    """Neither a step nor a slope need fit into half precision; their product does."""
    step = {"step_size": end / 4} if solver == "rk4" else {}
    sol = odeint(lambda t, x: slope + 0 * x, torch.zeros(1, dtype=dtype), [0.0, end], solver=solver, **step)
    x = torch.tensor(slope, dtype=dtype).item() * end
    assert sol.x.dtype == dtype
    assert sol.x[-1].item() == pytest.approx(x, rel=8 * torch.finfo(dtype).eps, abs=6e-8)


@pytest.mark.parametrize(
    ("t_span", "dtype", "expected"),
    [
        (torch.tensor([0.0, 0.1], dtype=torch.float64), torch.float32, torch.float64),
        (torch.tensor([0.0, 0.1], dtype=torch.float16), torch.float64, torch.float16),
        ([0.0, 0.1], torch.float64, torch.float64),
        ([0.0, 0.1], torch.bfloat16, torch.float32),
        ([0.0, 0.1], torch.complex128, torch.float64),
    ],
)
@pytest.mark.parametrize("save", ["t_span", "steps"])
def test_dtype_of_the_times_that_come_back(t_span, dtype, expected, save):
    t = odeint(lambda t, x: -x, torch.ones(1, dtype=dtype), t_span, save=save).t
    assert t.dtype == expected
    assert t[-1].item() == torch.as_tensor(t_span, dtype=torch.float64)[-1].to(expected).item()


@pytest.mark.parametrize("solver", ["rk4", "tsit5", "dopri5"])
def test_the_default_device_does_not_matter(solver):
    x0 = torch.ones(2, dtype=torch.float64)
    expected = odeint(lambda t, x: -x, x0, [0.0, 1.0], solver=Tsit5() if solver == "tsit5" else solver, save="dense")
    with torch.device("meta"):
        sol = odeint(lambda t, x: -x, x0, [0.0, 1.0], solver=Tsit5() if solver == "tsit5" else solver, save="dense")
        between = sol.dense(0.25)
    assert torch.equal(sol.x, expected.x)
    assert torch.equal(between, expected.dense(0.25))


@pytest.mark.parametrize("solver", ["tsit5", "vern7", "dopri8"])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("rtol", [1e-4, 1e-6])
def test_outputs_between_steps_are_as_good_as_at_their_ends_in_float32(solver, stepping, rtol):
    """Whatever the powers of theta cancel: a harmonic oscillator, whose error grows a little with time."""

    def f(t, x):
        return torch.stack([x[..., 1], -x[..., 0]], dim=-1)

    t = torch.linspace(0, 5, 101, dtype=torch.float64)
    x0 = torch.tensor([[1.0, 0.0]])
    with torch.no_grad():
        x = odeint(f, x0, t, solver=solver, rtol=rtol, atol=rtol, stepping=stepping).x[:, 0, 0]
    error = (x.double() - torch.cos(t)).abs()
    assert error.max() < 4 * rtol + 60 * torch.finfo(torch.float32).eps


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"])
@each_solver
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.complex64])
def test_on_a_gpu_as_on_the_cpu(solver, dtype, counted, device):
    def f(t, x):
        return {"a": x["a"] * torch.cos(t), "b": -x["b"]}

    x0 = {"a": torch.linspace(0.5, 1, 6).reshape(2, 3).to(dtype), "b": torch.ones(1, dtype=torch.float32)}
    rough = {} if solver == "rk4" else {"rtol": 1e-2, "atol": 1e-2}
    cpu = odeint(f, x0, T_SPAN, solver=solver, save="dense", **rough)
    counted_f = counted(f)
    gpu = odeint(counted_f, {k: v.to(device) for k, v in x0.items()}, T_SPAN, solver=solver, save="dense", **rough)
    assert all(t.device.type == device for t in counted_f.times)
    assert gpu.stats.n_evals.item() == counted_f.calls == cpu.stats.n_evals.item()
    # Powers of theta up to the seventh cancel, by some 10^4; shorter dtypes are interpolated in float64.
    amplified = solver in ("vern7", "dopri8") and dtype == torch.float64
    tolerance = (2000 if amplified else 50) * torch.finfo(dtype).eps
    for name in x0:
        assert gpu.x[name].device.type == gpu.t.device.type == device
        torch.testing.assert_close(gpu.x[name].cpu(), cpu.x[name], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(gpu.dense(0.7)[name].cpu(), cpu.dense(0.7)[name], rtol=tolerance, atol=tolerance)
