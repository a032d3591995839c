"""Bisection: brackets given and looked for, jumps and poles, ends and signs."""

import math

import pytest
import torch

from dyn_numerics import Bisection, BracketError, PerSample, RootStatus, fixed_point, root_find
from dyn_numerics.loop import is_supported

D = torch.float64


def column(*values, dtype=D):
    return torch.tensor(values, dtype=dtype).unsqueeze(-1)


class Recorded:
    """A function that writes down where it was evaluated."""

    def __init__(self, function):
        self.function, self.points = function, []

    def __call__(self, z):
        self.points.append(z.flatten().tolist())
        return self.function(z)


def test_every_step_halves_the_bracket():
    root = 1 / math.pi
    g = Recorded(lambda z: z - root)
    sol = root_find(g, column(7.0), solver=Bisection(-1.0, 2.0), rtol=1e-15, atol=1e-15)
    lower, upper, points = -1.0, 2.0, [7.0, -1.0, 2.0]
    for _ in range(sol.stats.n_steps.item()):
        middle = (lower + upper) / 2
        points.append(middle)
        lower, upper = (middle, upper) if middle < root else (lower, middle)
    assert g.points == [[point] for point in points]
    assert sol.stats.n_evals.item() == 3 + sol.stats.n_steps.item()
    assert sol.stats.n_steps.item() <= math.ceil(math.log2(3 / (1e-15 * (8 - root))))


def test_start_inside_is_the_first_cut():
    g = Recorded(lambda z: z - 1 / math.pi)
    root_find(g, column(0.5), solver=Bisection(0.0, 1.0))
    assert g.points[:5] == [[0.5], [0.0], [1.0], [0.25], [0.375]]


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_every_element_has_a_bracket_of_its_own(dtype):
    eps = torch.finfo(dtype).eps
    target = (1 + torch.rand(3, 4, 2, dtype=D, generator=torch.Generator().manual_seed(0))).to(dtype)
    lower = torch.tensor([[-10.0], [0.0], [0.5], [-1.0]], dtype=dtype)  # broadcasts
    sol = root_find(
        lambda z: z**3 - target**3, torch.ones(3, 4, 2, dtype=dtype), solver=Bisection(lower, 3.0), rtol=8 * eps
    )
    torch.testing.assert_close(sol.z, target, rtol=40 * eps if dtype is D else 1e-3, atol=1e-7)


def test_brackets_leave_the_batch_with_their_samples():
    target = torch.logspace(-3, 3, 9, dtype=D).unsqueeze(-1)
    ends = {"lower": 0.3 * target, "upper": torch.linspace(2, 1e3, 9, dtype=D).unsqueeze(-1) * target}
    rtol = torch.logspace(-12, -1, 9, dtype=D)
    options = {"solver": Bisection(**ends), "rtol": rtol, "atol": 0.0, "args": (PerSample(target),)}
    sizes = []

    def g(z, target):
        sizes.append(len(z))
        return z - target

    whole = root_find(g, 5 * target, **options)
    sizes.clear()
    compact = root_find(g, 5 * target, compact=True, **options)
    assert sizes[-1] < 9
    assert torch.equal(compact.z, whole.z)
    assert torch.equal(compact.stats.n_steps, whole.stats.n_steps)
    assert bool(((compact.z - target).abs().squeeze(1) <= rtol * 4 * target.squeeze(1)).all())


@pytest.mark.parametrize("solver", [Bisection(0.0, 1.0), Bisection(-3.0, 7.0), "bisection"])
@pytest.mark.parametrize("z0", [0.9, 0.1, 5.0, -2.0])
def test_jump_is_found_to_the_last_digit(solver, z0):
    """The residual is 1 on one side and 2 on the other, and the side with 1 is the better one."""
    jump = 1 / math.pi
    sol = root_find(lambda z: torch.where(z > jump, 2.0, -1.0).to(D), column(z0), solver=solver, throw=False)
    assert sol.status == [RootStatus.STAGNATED]
    assert sol.residual.item() == 1
    assert sol.z.item() <= jump < math.nextafter(sol.z.item(), 1)
    assert sol.stats.n_steps.item() < 62


def test_small_jump_is_rounding():
    sol = root_find(
        lambda z: z - 0.3 + torch.where(z > 0.3, 1e-9, -1e-9).to(D),
        column(0.0),
        solver=Bisection(-1.0, 1.0),
        rtol=1e-12,
        atol=0.0,
        throw=False,
    )
    assert sol.status == [RootStatus.ROUNDING]
    assert abs(sol.z.item() - 0.3) < 1e-15
    assert sol.residual.item() == pytest.approx(1e-9)


def test_pole_is_no_root():
    sol = root_find(lambda z: 1 / (z - 1 / math.pi), column(0.9), solver=Bisection(0.0, 1.0), throw=False)
    assert sol.status == [RootStatus.STAGNATED]
    assert sol.z.item() == 0.9
    assert sol.residual.item() == pytest.approx(1 / (0.9 - 1 / math.pi))


def test_residual_that_grows_overflows_or_does_not_fall_says_nothing():
    """The middles are far from the root for as long as it takes; their residuals are larger than at the start, or equal."""
    grown = root_find(lambda z: z**9 - 512, column(1.0), solver=Bisection(0.0, 1000.0))
    assert grown.z.item() == pytest.approx(2, rel=1e-7)
    overflown = root_find(lambda z: z.exp() - 3, column(1.0), solver=Bisection(-1e4, 1e5))
    assert overflown.z.item() == pytest.approx(math.log(3), rel=1e-7)
    flat = root_find(lambda z: torch.tanh(z - 0.3), column(1e25), solver=Bisection(-1e20, 1e22))
    assert flat.z.item() == pytest.approx(0.3, abs=1e-7)
    assert flat.stats.n_steps.item() > 80


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_bracket_of_all_numbers(dtype):
    sol = root_find(
        lambda z: torch.tanh(z - 3), column(0.0, dtype=dtype), solver=Bisection(-1e308, 1e308), max_steps=1200
    )
    assert sol.z.item() == pytest.approx(3, rel=1e-3)


def test_middle_of_huge_ends():
    sol = root_find(lambda z: z / 1e308 - 1.5, column(0.0), solver=Bisection(1e308, 1.7e308), rtol=1e-12)
    assert sol.z.item() == pytest.approx(1.5e308, rel=1e-7)


def test_bracket_without_a_sign_change():
    """It fails by itself; that the start shows two roots inside does not make a bracket of it."""
    shift = torch.tensor([[-1.0, -1.0], [2.0, 2.0], [2.0, -1.0], [2.0, 3.0]], dtype=D)
    z0 = torch.full((4, 2), 0.5, dtype=D)
    sol = root_find(lambda z: z**2 - shift, z0, solver=Bisection(0.0, 2.0), throw=False)
    none = RootStatus.NO_SIGN_CHANGE
    assert sol.status == [none, RootStatus.CONVERGED, none, RootStatus.CONVERGED]
    assert torch.equal(sol.z[::2], z0[::2])
    torch.testing.assert_close(sol.z[1::2], shift[1::2].sqrt(), rtol=1e-7, atol=0)
    two = root_find(lambda z: z**2 - 1, column(0.0), solver=Bisection(-5.0, 5.0), throw=False)
    assert two.status == [none]
    with pytest.raises(BracketError, match="same sign at both ends"):
        two.raise_if_failed()
    unknown = root_find(torch.log, column(2.0), solver=Bisection(-1.0, 5.0), throw=False)
    assert unknown.status == [RootStatus.NON_FINITE]


def test_end_that_is_a_root_or_infinite():
    sol = root_find(lambda z: z**2 - z, column(0.2, 0.2), solver=Bisection(column(0.0, 0.5), column(0.7, 1.0)))
    assert sol.z.flatten().tolist() == [0, 1]
    assert sol.stats.n_steps.tolist() == [1, 1]
    sol = root_find(lambda z: torch.log(z) + 30, column(1.0), solver=Bisection(0.0, 10.0), rtol=1e-12)
    assert sol.z.item() == pytest.approx(math.exp(-30), rel=1e-7)


def test_bracket_is_looked_for_around_the_start():
    g = Recorded(lambda z: z - torch.tensor([[1.05], [-0.3]], dtype=D))
    sol = root_find(g, column(1.0, 20.0), solver="bisection", rtol=1e-10)
    torch.testing.assert_close(sol.z, column(1.05, -0.3), rtol=1e-7, atol=0)
    above, below = zip(*g.points[1:9], strict=True)
    assert above == (1.1, 0.9, 1.2, 0.8, 1.4, 0.6, 1.8, pytest.approx(0.2))
    assert below == (22, 18, 24, 16, 28, 12, 36, 4)
    assert len(g.points) == 1 + 10 + sol.stats.n_steps.max().item() == sol.stats.n_evals.item()


def test_bracket_that_is_looked_for_and_not_found():
    """One without a root; one where the function ends on one side; the nearer of two roots, or the upper one."""
    sol = root_find(
        lambda z: torch.cat([z[:1] ** 2 + 1, torch.log(z[1:2]) - 9, z[2:] ** 2 - 1]),
        column(0.0, 1.0, 0.0, -0.5),
        solver="bisection",
        throw=False,
    )
    assert [status.name for status in sol.status] == ["NO_SIGN_CHANGE", "CONVERGED", "CONVERGED", "CONVERGED"]
    torch.testing.assert_close(sol.z[1:], column(math.exp(9), 1.0, -1.0), rtol=1e-6, atol=0)


def test_samples_that_are_solved_look_for_nothing():
    """The first has no sign change, and a residual within its tolerance."""
    g = lambda z: torch.cat([z[:1] ** 2 + 1e-12, z[1:] - 1])  # noqa: E731
    sol = root_find(g, column(0.0, 1.3), solver="bisection")
    assert sol.stats.n_steps[0].item() == 0
    assert sol.stats.n_evals.item() == 1 + 2 * 3 + sol.stats.n_steps[1].item()  # at distances 0.13, 0.26, 0.52


def test_states_of_any_structure():
    z0 = {"a": torch.zeros(2, dtype=D), "b": torch.zeros(2, 2, 3, dtype=D)}
    for solver in (Bisection(-1.0, 4.0), Bisection()):
        sol = fixed_point(lambda z: {"a": torch.cos(z["a"]), "b": 2 - z["b"]}, z0, solver=solver)
        torch.testing.assert_close(sol.z["a"], torch.full((2,), 0.7390851332, dtype=D), rtol=1e-7, atol=0)
        torch.testing.assert_close(sol.z["b"], torch.ones(2, 2, 3, dtype=D), rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("ends", "error", "message"),
    [
        ((1.0, 1.0), ValueError, "lower: got 1, expected less than upper, 1"),
        (
            (torch.tensor([0.0, 3.0]), 2.0),
            ValueError,
            r"lower: got a tensor of shape \[2\], expected less than upper, 2",
        ),
        ((math.nan, 1.0), ValueError, "lower: got nan, expected finite"),
        ((0.0, math.inf), ValueError, "upper: got inf, expected finite"),
        (
            (torch.zeros(2), torch.tensor([1.0, math.nan])),
            ValueError,
            r"upper: got a tensor of shape \[2\], expected finite",
        ),
        ((torch.zeros(2), torch.ones(3)), ValueError, r"lower: got .*\[2\], expected what broadcasts against upper"),
        ((0.0, None), ValueError, "upper: got None, expected both ends"),
        ((None, 0.0), ValueError, "lower: got None, expected both ends"),
        (("a", 0.0), TypeError, "lower: got a str, expected a number"),
        ((0.0, torch.ones(2, dtype=torch.complex64)), TypeError, "upper: got a tensor of torch.complex64"),
    ],
)
def test_bad_ends_are_refused_at_once(ends, error, message):
    with pytest.raises(error, match=message):
        Bisection(*ends)


def test_bad_use_is_refused():
    with pytest.raises(ValueError, match=r"lower: got shape \[3\], expected one that broadcasts against z0, \[2, 2\]"):
        root_find(lambda z: z, torch.ones(2, 2), solver=Bisection(torch.zeros(3), 1.0))
    with pytest.raises(TypeError, match="upper: got a tensor with a z0 that is a pytree"):
        root_find(lambda z: z, (torch.ones(2, 2),), solver=Bisection(0.0, torch.ones(2)))
    with pytest.raises(TypeError, match="which is for real ones"):
        root_find(lambda z: z, torch.ones(2, 2, dtype=torch.complex64), solver="bisection")
    with pytest.raises(ValueError, match="line_search: got one with Bisection"):
        root_find(lambda z: z, torch.ones(2, 2), solver="bisection", line_search="armijo")
    with pytest.raises(ValueError, match="no gradient flows"):
        root_find(lambda z: z - 2, torch.ones(2, 2, requires_grad=True), solver="bisection")


@pytest.mark.skipif(not is_supported(), reason="this torch cannot compile a solve")
@pytest.mark.parametrize("solver", [Bisection(torch.tensor([-1.0, 0.5], dtype=D), 2.0), "bisection"])
def test_compiled(solver):
    shift = torch.tensor([[1.0, 3.0], [1.2, 1.7], [2.0, 9.0]], dtype=D)

    def solve(z, shift):
        return root_find(lambda z: z**3 - shift, z, solver=solver, rtol=1e-10, atol=1e-10, throw=False)

    torch._dynamo.reset()
    z0 = torch.ones(3, 2, dtype=D)
    found, expected = torch.compile(solve, fullgraph=True)(z0, shift), solve(z0, shift)
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-10)
    assert torch.equal(found.status_code, expected.status_code)
    assert torch.equal(found.stats.n_evals, expected.stats.n_evals)
    assert torch.equal(found.stats.n_steps, expected.stats.n_steps)
