"""What the user hears of a solve while it runs: callbacks and progress."""

import sys

import pytest
import torch

from dyn_numerics import Callbacks, odeint

D = torch.float64


def jumpy(t, x):
    return x * torch.cos(t) + torch.sin(40 * t) * torch.where(t > 1.3, 5.0, 0.0)


class Log:
    def __init__(self):
        self.calls = {"step": [], "accept": [], "reject": []}

    def callbacks(self):
        return Callbacks(**{f"on_{kind}": self.logger(kind) for kind in self.calls})

    def logger(self, kind):
        return lambda t, x, dt: self.calls[kind].append((t, x, dt))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_joint_callbacks(reverse):
    log = Log()
    span = [2.0, 0.0] if reverse else [0.0, 2.0]
    sol = odeint(jumpy, torch.ones(2, dtype=D), span, callbacks=log.callbacks(), save="steps")
    assert len(log.calls["step"]) == sol.stats.n_steps
    assert len(log.calls["accept"]) == sol.stats.n_accepted
    assert len(log.calls["reject"]) == sol.stats.n_rejected > 0
    for i, (t, x, dt) in enumerate(log.calls["accept"]):
        assert t.shape == dt.shape == ()
        assert t == sol.t[i]
        assert torch.equal(x, sol.x[i])
        assert (t + dt).item() == pytest.approx(sol.t[i + 1].item(), rel=1e-14)
        assert not x.requires_grad


def test_callbacks_per_sample_receive_the_samples_concerned():
    log = Log()
    x0 = torch.tensor([[1.0], [2.0], [3.0]], dtype=D)
    spans = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 0.1]], dtype=D)
    sol = odeint(jumpy, x0, spans, callbacks=log.callbacks(), stepping="per_sample")
    assert len(log.calls["step"]) == sol.stats.n_steps.max()
    assert sum(len(t) for t, _, _ in log.calls["accept"]) == sol.stats.n_accepted.sum()
    assert sum(len(t) for t, _, _ in log.calls["reject"]) == sol.stats.n_rejected.sum() > 0
    assert all(len(t) == len(x) == len(dt) > 0 for kind in ("accept", "reject") for t, x, dt in log.calls[kind])


def test_an_exception_in_a_callback_ends_the_solve():
    class Stop(Exception):
        pass

    def stop(t, x, dt):
        raise Stop

    with pytest.raises(Stop):
        odeint(jumpy, torch.ones(1), [0.0, 1.0], callbacks=Callbacks(on_accept=stop))


def test_callbacks_come_as_callbacks():
    calls = []
    with pytest.raises(TypeError, match=r"callbacks: got a function, expected Callbacks\(on_step=\.\.\."):
        odeint(lambda t, x: calls.append(t) or -x, torch.ones(1), [0.0, 1.0], callbacks=lambda t, x, dt: None)
    assert not calls


def test_callbacks_must_be_callable():
    with pytest.raises(TypeError, match=r"on_step: got a int, expected a function of \(t, x, dt\), or None"):
        Callbacks(on_step=3)


class Bar:
    def __init__(self):
        self.shares = []
        self.closed = False

    def update(self, n):
        self.shares.append(n)

    def close(self):
        self.closed = True


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
def test_progress_adds_up_to_one(stepping, reverse, monkeypatch):
    monkeypatch.setattr("dyn_numerics.progress.SHORTEST_PAUSE", 0.0)
    bar = Bar()
    odeint(jumpy, torch.ones(3, 1), [2.0, 0.0] if reverse else [0.0, 2.0], stepping=stepping, progress=bar)
    assert sum(bar.shares) == pytest.approx(1)
    assert min(bar.shares) > 0
    assert len(bar.shares) > 5
    assert bar.closed


def test_progress_of_a_failed_solve_stops_where_it_did():
    bar = Bar()
    odeint(lambda t, x: torch.where(t > 0.5, torch.nan, x), torch.ones(1), [0.0, 1.0], progress=bar, throw=False)
    assert sum(bar.shares) == pytest.approx(0.5, abs=1e-6)
    assert bar.closed


@pytest.mark.parametrize("save", ["t_span", "steps"])
@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_progress_of_a_failed_solve_is_of_the_whole_span(stepping, save):
    bar = Bar()
    x0 = torch.ones(1, 1)
    odeint(lambda t, x: x * x, x0, [0.0, 4.0], progress=bar, throw=False, save=save, stepping=stepping)
    assert sum(bar.shares) == pytest.approx(0.25, abs=1e-4)


def test_progress_goes_on_while_samples_leave_a_compact_batch(monkeypatch):
    monkeypatch.setattr("dyn_numerics.progress.SHORTEST_PAUSE", 0.0)
    bar = Bar()
    spans = torch.tensor([[0.0] * 4, [0.1, 0.1, 0.1, 40.0]])
    with torch.no_grad():
        odeint(lambda t, x: torch.cos(t), torch.ones(4, 1), spans, progress=bar, stepping="per_sample", compact=True)
    assert sum(bar.shares) == pytest.approx(1)
    assert max(bar.shares[1:]) < 0.2  # the fourth sample moves it, step by step


@pytest.mark.parametrize("stepping", ["joint", "per_sample"])
def test_a_callback_may_write_into_what_it_receives(stepping):
    x0 = torch.ones(1, 1)
    watch = Callbacks(on_step=lambda t, x, dt: x.zero_())
    x = odeint(lambda t, x: -x, x0, [0.0, 1.0], callbacks=watch, stepping=stepping).x
    assert x0.item() == 1
    assert torch.equal(x, odeint(lambda t, x: -x, x0, [0.0, 1.0], stepping=stepping).x)


def test_true_is_a_tqdm_bar(capsys):
    pytest.importorskip("tqdm")
    odeint(jumpy, torch.ones(1), [0.0, 1.0], progress=True)
    assert "100%" in capsys.readouterr().err


def test_true_without_tqdm_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ValueError, match="progress: got True, which needs tqdm; try pip install tqdm"):
        odeint(jumpy, torch.ones(1), [0.0, 1.0], progress=True)


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match=r"progress: got a int, expected True or an object with update\(n\)"):
        odeint(jumpy, torch.ones(1), [0.0, 1.0], progress=3)
