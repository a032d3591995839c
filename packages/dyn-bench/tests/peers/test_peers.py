"""Peers that are missing, and those that are there against a closed form."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dyn_bench.peers import diffrax as diffrax_module
from dyn_bench.peers.diffrax import diffrax_solve
from dyn_bench.peers.missing import PeerMissingError
from dyn_bench.peers.scipy import scipy_solve
from dyn_bench.peers.torchdiffeq import torchdiffeq_gradient, torchdiffeq_solve
from dyn_bench.peers.torchode import torchode_solve
from dyn_bench.problems.perceptron import Perceptron
from dyn_bench.problems.van_der_pol import VanDerPol
from dyn_bench.protocols.solve import dyn_gradient, values_of

X0 = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])
T = torch.linspace(0, 3, 5, dtype=torch.float64)
OSCILLATOR = VanDerPol(mu=0.0)


def loss(x):
    return x.square().mean()


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


@pytest.mark.parametrize("peer", SOLVES)
def test_a_missing_peer_says_how_to_get_it(peer, monkeypatch):
    monkeypatch.setitem(sys.modules, peer, None)
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.raises(PeerMissingError, match=rf"^{peer} is not installed: pip install 'dyn-bench\[peers\]'$"):
        SOLVES[peer]()


def test_the_gradient_of_a_missing_peer(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(PeerMissingError):
        torchdiffeq_gradient(Perceptron(), X0, T, tolerance=1e-5, loss=loss)


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


def test_an_installed_torchdiffeq_has_the_gradient():
    pytest.importorskip("torchdiffeq")
    field = Perceptron(width=8)
    found = torchdiffeq_gradient(field, X0, T, tolerance=1e-6, loss=loss)
    ours = dyn_gradient(field, X0, T, tolerance=1e-6, loss=loss)
    torch.testing.assert_close(values_of(found), values_of(ours), atol=1e-4, rtol=0)
