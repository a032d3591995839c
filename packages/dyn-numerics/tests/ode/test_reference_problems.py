"""Problems with reference solutions from the literature: the error follows the tolerance."""

import pytest
import torch

from dyn_numerics import odeint


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


TOLERANCES = [1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10]
# At these tolerances. Those of dopri5 and dopri8 are SciPy's, of its RK45 and DOP853 (1.17, `solve_ivp`, no outputs), which
# evaluates the field at the new state in rejected attempts of DOP853 too. The others were measured here.
EVALUATIONS = {
    "lotka_volterra": {
        "bosh3": [461, 884, 1814, 3908, 8414, 18128, 39053],
        "dopri5": [284, 416, 620, 866, 1268, 1904, 2978],
        "tsit5": [296, 410, 602, 866, 1226, 1910, 2996],
        "vern7": [397, 535, 627, 831, 1050, 1287, 1727],
        "dopri8": [410, 482, 518, 710, 998, 1202, 1526],
    },
    "arenstorf": {
        "bosh3": [590, 1211, 2477, 5321, 11465],
        "dopri5": [494, 752, 1004, 1382, 2114, 3056, 4772],
        "tsit5": [986, 770, 1112, 1460, 2156, 3110, 4898],
        "vern7": [689, 937, 1248, 1604, 2117, 2656, 3527],
        "dopri8": [674, 842, 1070, 1406, 1778, 2234, 2870],
    },
}


def solves(problem):
    """Every method at every tolerance, and what it is to take."""
    return [
        (solver, tolerance, count)
        for solver, counts in EVALUATIONS[problem].items()
        for tolerance, count in zip(TOLERANCES, counts, strict=False)
    ]


def error_in_tolerances(x, expected, tolerance):
    """The largest error of a state, on the scale that the solver has for it."""
    return ((x - expected).abs() / (tolerance + tolerance * expected.abs())).max().item()


def count_as_scipy_does(stats, solver):
    return stats.n_evals.item() + (stats.n_rejected.item() if solver == "dopri8" else 0)


@pytest.mark.parametrize(("solver", "tolerance", "evaluations"), solves("lotka_volterra"))
def test_lotka_volterra(solver, tolerance, evaluations):
    problem, options = LOTKA_VOLTERRA, {"solver": solver, "rtol": tolerance, "atol": tolerance}
    x0 = vector(*problem["x0"])
    sol = odeint(lotka_volterra, x0, [0.0, problem["end"]], args=problem["rates"], **options)
    assert 0.1 < error_in_tolerances(sol.x[-1], vector(*problem["x"]), tolerance) < 50
    assert count_as_scipy_does(sol.stats, solver) == pytest.approx(evaluations, rel=0.01)


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


@pytest.mark.parametrize(("solver", "tolerance", "evaluations"), solves("arenstorf"))
def test_arenstorf_orbit_closes(solver, tolerance, evaluations):
    """It is unstable: an error after a tenth of the period is 5e4 times as large at the end, one at the start 3e6 times."""
    x0, options = vector(*ARENSTORF_X0), {"solver": solver, "rtol": tolerance, "atol": tolerance}
    sol = odeint(arenstorf, x0, [0.0, ARENSTORF_PERIOD], **options)
    assert 100 < error_in_tolerances(sol.x[-1], x0, tolerance) < 5e4
    assert count_as_scipy_does(sol.stats, solver) == pytest.approx(evaluations, rel=0.01)
    assert sol.stats.n_rejected > 0 or solver == "bosh3"  # which steps so short that none is


def test_arenstorf_there_and_back():
    x0 = vector(*ARENSTORF_X0)
    there = odeint(arenstorf, x0, [0.0, 5.0], rtol=1e-9, atol=1e-9).x[-1]
    back = odeint(arenstorf, there, [5.0, 0.0], rtol=1e-9, atol=1e-9).x[-1]
    assert (there - x0).abs().max() > 0.1
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-5)
