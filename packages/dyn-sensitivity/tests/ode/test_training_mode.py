"""Dropout and batch normalisation in training mode, where solver or gradient do not go with them."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
import torch
from torch import nn

from dyn_sensitivity import Backsolve, odeint

FIXED = {"solver": "rk4", "step_size": 0.5}


def field(kind):
    return nn.Sequential(nn.Linear(2, 2), kind)


def solve(net, **options):
    return odeint(lambda t, x: net(x), torch.randn(4, 2), [0.0, 1.0], **{"rtol": 0.5, "atol": 10.0, **options})


@pytest.mark.parametrize(
    ("kind", "doing"),
    [
        (nn.Dropout(0.1), "draws other numbers"),
        (nn.Dropout1d(0.1), "draws other numbers"),
        (nn.BatchNorm1d(2), "mixes"),
    ],
)
@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, "in an adaptive solve"),
        ({"sensitivity": "checkpoint"}, "in an adaptive solve"),
        ({"sensitivity": "adjoint", **FIXED}, "in an adjoint"),
        ({"sensitivity": Backsolve(), **FIXED}, "in an adjoint"),
    ],
)
def test_warns_once_and_names_the_module(kind, doing, options, place):
    net = field(type(kind)(kind.p if hasattr(kind, "p") else 2))
    with pytest.warns(UserWarning, match=rf"net\.1 \({type(kind).__name__}\) is in training mode {place}\. It {doing}"):
        solve(net, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(net, **options)


QUIET = {
    "eval mode": (field(nn.Dropout(0.5)).eval(), {}),
    "a dropout of nothing": (field(nn.Dropout(0.0)), {}),
    "fixed steps with autograd": (field(nn.Dropout(0.5)), FIXED),
    "fixed steps with checkpoint": (field(nn.Dropout(0.5)), {"sensitivity": "checkpoint", **FIXED}),
    "other modules": (field(nn.LayerNorm(2)), {"sensitivity": "adjoint"}),
}


@pytest.mark.parametrize("which", QUIET)
def test_is_quiet_where_nothing_is_wrong(which):
    net, options = QUIET[which]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(net.double(), **options)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.cell = kind(2, 2, batch_first=True, **options)

    def forward(self, x):
        return self.cell(x.unsqueeze(1))[0].squeeze(1)


class Attention(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.heads = nn.MultiheadAttention(2, 1, dropout=dropout)

    def forward(self, x):
        return self.heads(x, x, x)[0]


def transformer(dropout):
    return nn.TransformerEncoderLayer(2, 1, 4, dropout)


RANDOM = {
    "attention": (lambda: Attention(0.1), ["heads (MultiheadAttention)"]),
    "attention of a transformer": (
        lambda: transformer(0.1),
        ["self_attn (MultiheadAttention)", "dropout (Dropout)", "dropout1 (Dropout)", "dropout2 (Dropout)"],
    ),
    "LSTM": (lambda: Recurrent(nn.LSTM, num_layers=2, dropout=0.1), ["cell (LSTM)"]),
    "GRU": (lambda: Recurrent(nn.GRU, num_layers=2, dropout=0.1), ["cell (GRU)"]),
    "RReLU": (lambda: nn.Sequential(nn.RReLU()), ["0 (RReLU)"]),
    "attention without dropout": (lambda: Attention(0.0), []),
    "transformer without dropout": (lambda: transformer(0.0), []),
    "LSTM without dropout": (lambda: Recurrent(nn.LSTM, num_layers=2), []),
    "LSTM without a layer to drop": (lambda: Recurrent(nn.LSTM, dropout=0.1), []),
    "RReLU of one slope": (lambda: nn.Sequential(nn.RReLU(0.1, 0.1)), []),
}


@pytest.mark.parametrize("which", RANDOM)
def test_whatever_draws_is_named(which):
    """And nothing else: a field that is named has two values at one place, and one that is not has one."""
    make, named = RANDOM[which]
    x = torch.randn(50, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = make()
        solve(net)
    ours = [str(w.message).partition(" is in training mode")[0] for w in caught if "training mode" in str(w.message)]
    assert ours == [f"net.{name}" for name in named]
    assert torch.equal(net(x), net(x)) == (not named)


def test_is_quiet_where_there_is_no_backward_solve():
    net = field(nn.Dropout(0.5))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        solve(net, sensitivity="adjoint", **FIXED)


def test_looks_into_the_loss_as_well():
    cost = field(nn.Dropout(0.5))
    with pytest.warns(UserWarning, match=r"cost\.1 \(Dropout\)"):
        odeint(lambda t, x: -x, torch.ones(3, 2), [0.0, 1.0], integral_loss=lambda t, x: cost(x).sum(), atol=10.0)


def test_keeps_no_module_alive():
    net = field(nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="Dropout"):
        solve(net)
    gone = weakref.ref(net[1])
    del net
    gc.collect()
    assert gone() is None
