"""Peers that are missing, and those that are there against a closed form."""

import sys
from types import SimpleNamespace

import pytest
import torch

from dyn_bench.peers import diffrax as diffrax_module
from dyn_bench.peers.diffrax import diffrax_solve
from dyn_bench.peers.missing import PeerMissingError
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
