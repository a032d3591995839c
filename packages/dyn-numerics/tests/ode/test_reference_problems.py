"""Problems with reference solutions from the literature: the error follows the tolerance."""

import pytest
import torch

from dyn_numerics import odeint

ADAPTIVE = ["bosh3", "dopri5", "tsit5", "vern7", "dopri8"]


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def lotka_volterra(t, x, a, b, c, d):
    prey, predators = x.unbind(-1)
    return torch.stack([a * prey - b * prey * predators, -c * predators + d * prey * predators], dim=-1)


LOTKA_VOLTERRA = {
    "rates": (1.5, 1.0, 3.0, 1.0),
    "x0": (1.0, 1.0),
    "end": 10.0,
    # 34-digit extrapolation; gradients of both components by forward sensitivities
    "x": (1.0263447675750894, 0.9096910781360417),
    "gradients": {
        "x0": ((1.9659960547281692, 0.1885687770780593), (-2.743979155920181, 0.21171348914668314)),
        "a": (2.160557523562618, -6.256770517220816),
        "b": (0.1885687770780593, -0.6979775889893585),
        "c": (0.5631827941681977, -1.709017680597935),
        "d": (0.9396512871530798, -2.743979155920181),
    },
}


def arenstorf(t, x):
    """Restricted three-body problem. Hairer, Norsett, Wanner: Solving ODEs I, section II.0: a closed orbit."""
    mu = 0.012277471
    q1, q2, v1, v2 = x.unbind(-1)
    earth, moon = q1 + mu, q1 - (1 - mu)
    d1, d2 = (earth**2 + q2**2) ** 1.5, (moon**2 + q2**2) ** 1.5
    return torch.stack(
        [
            v1,
            v2,
            q1 + 2 * v2 - (1 - mu) * earth / d1 - mu * moon / d2,
            q2 - 2 * v1 - (1 - mu) * q2 / d1 - mu * q2 / d2,
        ],
        dim=-1,
    )


ARENSTORF_X0 = (0.994, 0.0, 0.0, -2.0015851063790824)
ARENSTORF_PERIOD = 17.065216560157964


def lotka_volterra_error(solver, tolerance):
    problem = LOTKA_VOLTERRA
    sol = odeint(
        lotka_volterra,
        vector(*problem["x0"]),
        [0.0, problem["end"]],
        solver=solver,
        rtol=tolerance,
        atol=tolerance,
        args=problem["rates"],
    )
    return (sol.x[-1] - vector(*problem["x"])).abs().max().item(), sol.stats.n_evals.item()


@pytest.mark.parametrize(("solver", "tightest"), [("bosh3", 1e-6), ("dopri5", 1e-8), ("tsit5", 1e-8)])
def test_lotka_volterra(solver, tightest):
    tolerances = [tightest * 1e4, tightest * 1e2, tightest]
    errors, evaluations = zip(*(lotka_volterra_error(solver, tolerance) for tolerance in tolerances), strict=True)
    for error, tolerance in zip(errors, tolerances, strict=True):
        assert 1e-3 * tolerance < error < 200 * tolerance
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert evaluations[0] < evaluations[1] < evaluations[2]


def test_higher_order_is_cheaper_at_tight_tolerance():
    evaluations = {solver: lotka_volterra_error(solver, 1e-6)[1] for solver in ADAPTIVE}
    assert evaluations["bosh3"] > 2 * max(evaluations["dopri5"], evaluations["tsit5"])


@pytest.mark.parametrize(("solver", "tolerance"), [("dopri5", 1e-8), ("tsit5", 1e-9)])
def test_lotka_volterra_gradients(solver, tolerance):
    problem = LOTKA_VOLTERRA
    x0 = vector(*problem["x0"]).requires_grad_()
    rates = [torch.tensor(rate, dtype=torch.float64).requires_grad_() for rate in problem["rates"]]
    options = {"solver": solver, "rtol": tolerance, "atol": tolerance, "args": rates}
    x = odeint(lotka_volterra, x0, [0.0, problem["end"]], **options).x[-1]
    for component in (0, 1):
        found = torch.autograd.grad(x[component], [x0, *rates], retain_graph=True)
        for gradient, expected in zip(found, problem["gradients"].values(), strict=True):
            expected = torch.tensor(expected[component], dtype=torch.float64)
            torch.testing.assert_close(gradient, expected, rtol=0, atol=300 * tolerance)


@pytest.mark.parametrize(
    ("solver", "tolerance"), [("dopri5", 1e-6), ("dopri5", 1e-9), ("tsit5", 1e-6), ("tsit5", 1e-9)]
)
def test_arenstorf_orbit_closes(solver, tolerance):
    x0 = vector(*ARENSTORF_X0)
    sol = odeint(arenstorf, x0, [0.0, ARENSTORF_PERIOD], solver=solver, rtol=tolerance, atol=tolerance)
    error = (sol.x[-1, :2] - x0[:2]).abs().max().item()
    assert tolerance < error < 5e4 * tolerance  # the orbit is unstable: errors grow by some 1e3
    assert sol.stats.n_rejected > 0


def test_arenstorf_there_and_back():
    x0 = vector(*ARENSTORF_X0)
    there = odeint(arenstorf, x0, [0.0, 5.0], rtol=1e-9, atol=1e-9).x[-1]
    back = odeint(arenstorf, there, [5.0, 0.0], rtol=1e-9, atol=1e-9).x[-1]
    assert (there - x0).abs().max() > 0.1
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-5)
