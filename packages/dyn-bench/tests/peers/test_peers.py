"""Peers that are missing, and those that are there against a closed form."""

import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dyn_bench.peers import diffrax as diffrax_module
from dyn_bench.peers.diffrax import diffrax_gradient, diffrax_solve
from dyn_bench.peers.missing import PeerMissingError
from dyn_bench.peers.scipy import scipy_roots, scipy_solve, scipy_stiff_solve
from dyn_bench.peers.torchdeq import torchdeq_fixed_point, torchdeq_gradient
from dyn_bench.peers.torchdiffeq import torchdiffeq_gradient, torchdiffeq_solve
from dyn_bench.peers.torchode import torchode_solve
from dyn_bench.problems.perceptron import Perceptron
from dyn_bench.problems.rober import ROBER
from dyn_bench.problems.root.equilibrium_network import EquilibriumNetwork
from dyn_bench.problems.van_der_pol import VanDerPol
from dyn_bench.protocols.root_solve import dyn_fixed_point_gradient
from dyn_bench.protocols.solve import dyn_gradient, values_of

X0 = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])
T = torch.linspace(0, 3, 5, dtype=torch.float64)
OSCILLATOR = VanDerPol(mu=0.0)


def loss(x):
    return (x * x).mean()  # torch and jax have this in common


SOLVES = {
    "torchdiffeq": lambda: torchdiffeq_solve(OSCILLATOR, X0, T, tolerance=1e-6),
    "torchode": lambda: torchode_solve(OSCILLATOR, X0, T, tolerance=1e-6),
    "diffrax": lambda: diffrax_solve(OSCILLATOR.components, X0, T, tolerance=1e-6),
}


def test_a_missing_scipy_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.integrate", None)
    with pytest.raises(PeerMissingError, match=r"^scipy is not installed: pip install 'dyn-bench\[peers\]'$"):
        scipy_solve(OSCILLATOR, X0[0].double(), T, tolerance=1e-8)


def test_scipy_is_asked_for_dense_output_only_between_the_ends(monkeypatch):
    asked = []

    def solve_ivp(fun, t_span, y0, **options):
        asked.append((t_span, options))
        steps = np.stack([y0, y0 + fun(t_span[0], y0), y0 + fun(t_span[1], y0), y0 * 0], 1)
        return SimpleNamespace(y=steps, nfev=7)

    monkeypatch.setitem(sys.modules, "scipy", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "scipy.integrate", SimpleNamespace(solve_ivp=solve_ivp))
    x0 = torch.tensor([1.0, 2.0], dtype=torch.float64)
    ends = scipy_solve(OSCILLATOR, x0, T[[0, -1]], tolerance=1e-8)
    more = scipy_solve(OSCILLATOR, x0, T[:4], tolerance=1e-7, method="RK45")
    assert ends.values(ends.run()).tolist() == [[1, 2], [0, 0]]
    assert more.values(more.run()).tolist() == [[1, 2], [3, 1], [3, 1], [0, 0]]
    assert ends.evaluations(SimpleNamespace(nfev=7)) == 7
    assert asked[0] == ((0, 3), {"method": "DOP853", "t_eval": None, "rtol": 1e-8, "atol": 1e-8})
    assert asked[1][1].pop("t_eval").tolist() == T[:4].tolist()
    assert asked[1] == ((0, 2.25), {"method": "RK45", "rtol": 1e-7, "atol": 1e-7})


@pytest.mark.parametrize("method", ["DOP853", "RK45"])
def test_an_installed_scipy_solves_the_oscillator(method):
    pytest.importorskip("scipy")
    solve = scipy_solve(OSCILLATOR, torch.tensor([1.0, 0.0], dtype=torch.float64), T, tolerance=1e-10, method=method)
    result = solve.run()
    torch.testing.assert_close(solve.values(result), torch.stack([T.cos(), -T.sin()], -1), atol=1e-8, rtol=0)
    assert 50 < solve.evaluations(result) < 1000


def test_scipy_solves_stiff_samples_one_at_a_time(monkeypatch):
    asked = []

    def solve_ivp(fun, t_span, y0, jac, **options):
        asked.append((t_span, y0.tolist(), options))
        for _ in range(int(y0[0])):
            slope = fun(0.5, y0)
        jacobian = None if jac is None else jac(0.5, y0).tolist()
        return SimpleNamespace(y=np.stack([y0, slope], 1), t=[0, 1, 3], nfev=1, nlu=5, jacobian=jacobian)

    monkeypatch.setitem(sys.modules, "scipy", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "scipy.integrate", SimpleNamespace(solve_ivp=solve_ivp))
    x0 = torch.tensor([[1.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
    mu = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    field = VanDerPol(mu=0.0)
    given = scipy_stiff_solve(
        field.components, x0, T, tolerance=1e-6, floor=1e-2, args=mu, partials=field.partials, method="BDF"
    )
    results = given.run()
    assert given.values(results).tolist() == [x0.tolist(), [[2, -1], [0, -2]]]
    assert [result.jacobian for result in results] == [[[0, 1], [-13, 0]], [[0, 1], [-1, -12]]]
    assert given.evaluations(results) == 1 + 2 + 2
    assert given.counts(results) == {"steps": 2, "factorisations": 10, "evaluations without Jacobians": 2}
    assert asked == [((0, 3), x.tolist(), {"method": "BDF", "rtol": 1e-6, "atol": 1e-8}) for x in x0]
    bare = scipy_stiff_solve(field.components, x0, T, tolerance=1e-6)
    results = bare.run()
    assert bare.values(results)[1].tolist() == [[2, -1], [0, -2]]
    assert [result.jacobian for result in results] == [None, None]
    assert asked[-1][-1] == {"method": "Radau", "rtol": 1e-6, "atol": 1e-6}


def test_scipy_may_be_missing_for_stiff_problems_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.integrate", None)
    with pytest.raises(PeerMissingError, match=r"^scipy is not installed"):
        scipy_stiff_solve(OSCILLATOR.components, X0, T, tolerance=1e-6)


@pytest.fixture
def stiff_ensemble():
    """Two of Robertson's with rates of their own, and where they end."""
    pytest.importorskip("scipy")
    x0 = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64).repeat(2, 1)
    t, rates = torch.tensor([0.0, 40.0], dtype=torch.float64), ROBER.perturbed_rates(2, share=0.2, seed=0)
    exact = scipy_stiff_solve(ROBER.components, x0, t, tolerance=1e-10, floor=1e-6, args=rates, partials=ROBER.partials)
    return x0, t, rates, values_of(exact)


def test_an_installed_scipy_calls_a_stiff_field_as_often_as_it_says(stiff_ensemble):
    x0, t, rates, exact = stiff_ensemble
    options = {"tolerance": 1e-6, "floor": 1e-6, "args": rates}
    given = scipy_stiff_solve(ROBER.components, x0, t, partials=ROBER.partials, **options)
    results = given.run()
    torch.testing.assert_close(given.values(results), exact, rtol=1e-5, atol=1e-12)
    assert given.evaluations(results) == sum(result.nfev + result.njev for result in results)
    differences = scipy_stiff_solve(ROBER.components, x0, t, **options)
    results = differences.run()
    torch.testing.assert_close(differences.values(results), exact, rtol=1e-5, atol=1e-12)
    # Three differences for every Jacobian, more where one is repeated.
    assert differences.evaluations(results) >= sum(result.nfev + 3 * result.njev for result in results)


def test_an_installed_diffrax_solves_stiff_samples_in_double_precision(stiff_ensemble):
    pytest.importorskip("diffrax")
    x0, t, rates, exact = stiff_ensemble
    options = {"tolerance": 1e-8, "floor": 1e-6, "args": rates, "stepping": "per_sample"}
    solve = diffrax_solve(ROBER.components, x0, t, method="Kvaerno5", **options)
    x = values_of(solve)
    assert x.dtype == torch.float64
    torch.testing.assert_close(x, exact, rtol=1e-7, atol=1e-14)
    assert solve.evaluations is None  # it counts steps


def test_scipy_finds_roots_one_at_a_time(monkeypatch):
    asked = []

    def root(g, z, **options):
        asked.append(options)
        return SimpleNamespace(x=z - g(z), nfev=3)

    def jac(z):
        return np.eye(2)

    monkeypatch.setitem(sys.modules, "scipy", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "scipy.optimize", SimpleNamespace(root=root))
    solve = scipy_roots(lambda z: z / 2, X0.double(), tolerance=1e-6, jac=jac)
    results = solve.run()
    assert solve.values(results).tolist() == (X0 / 2).tolist()
    assert solve.evaluations(results) == 9
    assert asked == [{"jac": jac, "method": "hybr", "tol": 1e-6}] * 3
    scipy_roots(lambda z: z, X0[:1].double(), tolerance=1e-3, method="lm").run()
    assert asked[-1] == {"jac": None, "method": "lm", "tol": 1e-3}


@pytest.mark.parametrize("method", ["hybr", "lm"])
def test_an_installed_scipy_finds_roots(method):
    pytest.importorskip("scipy")
    solve = scipy_roots(lambda z: z**2 - [2, 3], X0.double().abs() + 1, tolerance=1e-12, method=method)
    results = solve.run()
    torch.testing.assert_close(solve.values(results), torch.tensor([2.0, 3.0]).double().sqrt().expand(3, 2))
    assert 15 < solve.evaluations(results) < 150


def test_scipy_may_be_missing_for_roots_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(PeerMissingError, match=r"^scipy is not installed"):
        scipy_roots(lambda z: z, X0, tolerance=1e-6)


@pytest.fixture
def torchdeq(monkeypatch):
    """What torchdeq's solvers are asked."""
    asked = []

    def solver(name):
        def solve(h, z0, **options):
            assert not torch.is_grad_enabled()
            asked.append((name, options))
            return h(h(z0)), [], {}

        return solve

    monkeypatch.setitem(sys.modules, "torchdeq", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchdeq.solver", SimpleNamespace())
    for name in ("anderson", "broyden"):
        module = SimpleNamespace(**{f"{name}_solver": solver(name)})
        monkeypatch.setitem(sys.modules, f"torchdeq.solver.{name}", module)
    return asked


@pytest.mark.parametrize("solver", ["anderson", "broyden"])
def test_torchdeq_is_called_at_the_relative_tolerance_and_counted(torchdeq, solver):
    half = torch.tensor(0.5)
    solve = torchdeq_fixed_point(lambda z, rate: rate * z, X0, tolerance=1e-4, solver=solver, args=(half,), max_iter=70)
    result = solve.run()
    assert torchdeq == [(solver, {"max_iter": 70, "tol": 1e-4, "stop_mode": "rel"})]
    assert solve.values(result).tolist() == (X0 / 4).tolist()
    assert solve.evaluations(result) == 2


def test_a_missing_torchdeq_says_how_to_get_it(monkeypatch):
    for module in ("torchdeq", "torchdeq.solver", "torchdeq.solver.anderson"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PeerMissingError, match=r"^torchdeq is not installed: pip install 'dyn-bench\[peers\]'$"):
        torchdeq_fixed_point(torch.cos, X0, tolerance=1e-5)


@pytest.mark.parametrize("solver", ["anderson", "broyden"])
def test_an_installed_torchdeq_finds_fixed_points(solver):
    pytest.importorskip("torchdeq")
    solve = torchdeq_fixed_point(torch.cos, X0.double(), tolerance=1e-9, solver=solver)
    result = solve.run()
    torch.testing.assert_close(solve.values(result), torch.full_like(X0, 0.7390851332).double(), atol=1e-7, rtol=0)
    assert 5 < solve.evaluations(result) <= 50


@pytest.mark.parametrize("peer", SOLVES)
def test_a_missing_peer_says_how_to_get_it(peer, monkeypatch):
    monkeypatch.setitem(sys.modules, peer, None)
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.raises(PeerMissingError, match=rf"^{peer} is not installed: pip install 'dyn-bench\[peers\]'$"):
        SOLVES[peer]()


@pytest.mark.parametrize(("peer", "gradient"), [("torchdiffeq", torchdiffeq_gradient), ("diffrax", diffrax_gradient)])
def test_the_gradient_of_a_missing_peer(peer, gradient, monkeypatch):
    monkeypatch.setitem(sys.modules, peer, None)
    with pytest.raises(PeerMissingError):
        gradient(Perceptron(), X0, T, tolerance=1e-5, loss=loss)


def test_diffrax_is_told_to_use_one_thread_beside_what_it_was_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=somewhere")
    for _ in range(2):
        with pytest.raises(PeerMissingError):
            SOLVES["diffrax"]()
    assert diffrax_module.os.environ["XLA_FLAGS"] == f"--xla_dump_to=somewhere {diffrax_module.ONE_THREAD}"


def test_torchdiffeq_is_called_at_the_tolerance_and_counted(monkeypatch):
    calls = []

    def odeint(field, x0, t, **options):
        calls.append(options)
        assert not torch.is_grad_enabled()
        assert t.dtype == x0.dtype
        return torch.stack([x0, x0 + field(t[0], x0), x0 - field(t[1], x0)])

    monkeypatch.setitem(sys.modules, "torchdiffeq", SimpleNamespace(odeint=odeint))
    solve = torchdiffeq_solve(OSCILLATOR, X0, T, tolerance=1e-7)
    result = solve.run()
    assert calls == [{"rtol": 1e-7, "atol": 1e-7, "method": "dopri5"}]
    assert solve.evaluations(result) == 2
    torchdiffeq_solve(OSCILLATOR, X0, T, tolerance=1e-7, method="dopri8").run()
    assert calls[-1]["method"] == "dopri8"


@pytest.mark.parametrize("peer", [*SOLVES, "diffrax per sample"])
def test_an_installed_peer_solves_the_oscillator(peer):
    pytest.importorskip(peer.split()[0])
    if peer == "diffrax per sample":
        solve = diffrax_solve(OSCILLATOR.components, X0, T, tolerance=1e-6, stepping="per_sample")
    else:
        solve = SOLVES[peer]()
    result = solve.run()
    (p, v), t = X0.T, T.float()[:, None]
    expected = torch.stack([p * t.cos() + v * t.sin(), v * t.cos() - p * t.sin()], -1)
    torch.testing.assert_close(solve.values(result), expected, atol=2e-5, rtol=0)
    assert 20 < solve.evaluations(result) < 500


@pytest.mark.parametrize(
    ("peer", "gradient"),
    [
        ("torchdiffeq", torchdiffeq_gradient),
        ("torchdiffeq", partial(torchdiffeq_gradient, adjoint=False)),
        ("diffrax", diffrax_gradient),
        ("diffrax", partial(diffrax_gradient, adjoint="backsolve")),
    ],
)
def test_an_installed_peer_has_the_gradient(peer, gradient):
    pytest.importorskip(peer)
    field = Perceptron(width=8)
    found = gradient(field, X0, T, tolerance=1e-6, loss=loss)
    ours = dyn_gradient(field, X0, T, tolerance=1e-6, loss=loss)
    torch.testing.assert_close(values_of(found), values_of(ours), atol=1e-4, rtol=0)


def test_torchdeq_differentiates_implicitly_at_the_relative_tolerance(monkeypatch):
    """Both of its iterations by one method, at one tolerance and with one limit."""
    asked = {}

    def get_deq(**options):
        asked.update(options)
        return SimpleNamespace(train=lambda: None)

    monkeypatch.setitem(sys.modules, "torchdeq", SimpleNamespace(get_deq=get_deq))
    torchdeq_gradient(nn.Linear(2, 2), X0, tolerance=1e-4, loss=loss, solver="broyden", max_iter=70)
    assert asked.pop("ift")
    assert asked == {
        f"{way}_{name}": value
        for way in "fb"
        for name, value in (("solver", "broyden"), ("tol", 1e-4), ("max_iter", 70), ("stop_mode", "rel"))
    }


def test_a_missing_torchdeq_has_no_gradient(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdeq", None)
    with pytest.raises(PeerMissingError, match="torchdeq is not installed"):
        torchdeq_gradient(nn.Linear(2, 2), X0, tolerance=1e-5, loss=loss)


@pytest.mark.parametrize("solver", ["anderson", "broyden", "fixed_point_iter"])
def test_an_installed_torchdeq_has_our_gradient(solver):
    pytest.importorskip("torchdeq")
    layer = EquilibriumNetwork(8, 8, contraction=0.5).double()
    x, _ = layer.inputs(20)
    options = {"loss": loss, "args": (x,)}
    z0 = torch.zeros(20, 8, dtype=torch.float64)
    gradient = values_of(torchdeq_gradient(layer, z0, tolerance=1e-10, solver=solver, **options))
    expected = values_of(dyn_fixed_point_gradient(layer, z0, tolerance=1e-12, **options))
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-7 * expected.norm().item())


def test_torchdiffeq_is_asked_for_the_gradient_that_is_meant(monkeypatch):
    asked = []

    def record(name):
        def odeint(field, x0, t, **options):
            asked.append((name, options))
            return torch.stack([x0, x0 + field(t[0], x0)])

        return odeint

    peer = SimpleNamespace(odeint=record("odeint"), odeint_adjoint=record("odeint_adjoint"))
    monkeypatch.setitem(sys.modules, "torchdiffeq", peer)
    for adjoint in (True, False):
        solve = torchdiffeq_gradient(Perceptron(width=8), X0, T, tolerance=1e-7, loss=loss, adjoint=adjoint)
        assert values_of(solve).shape == (8 * 2 + 8 + 8 * 8 + 8 + 8 * 2 + 2,)
    options = {"rtol": 1e-7, "atol": 1e-7, "method": "dopri5"}
    assert asked == [("odeint_adjoint", options), ("odeint", options)]
