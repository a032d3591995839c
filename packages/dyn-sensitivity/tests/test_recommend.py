"""The choice for problems of which it is known what suits them, and that it works."""

import os
from math import inf

import pytest
import torch
from torch import nn

from dyn_numerics import Event, ExplicitRungeKutta, NonFiniteError, ReversibleRungeKutta, SolverError
from dyn_numerics.ode.tableaus.explicit import BOSH3
from dyn_sensitivity import Autograd, odeint, recommend
from dyn_sensitivity.ode.odeint import ALGORITHMS

STATE = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(10, 2)
TIMES = [0.0, 3.0]
KEPT = 2000.0  # bytes, less than any of the problems keeps for autograd; a state has 160


@pytest.fixture
def net():
    torch.manual_seed(1)
    layer = nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)
    return nn.Sequential(*layer)


def recommended(f, *, memory, t_span=TIMES, **options):
    """The choice, which must be able to compute the gradient."""
    choice = recommend(f, STATE, t_span, memory=memory, **options)
    odeint(f, STATE, t_span, sensitivity=choice.sensitivity, **options).x[-1].sum().backward()
    return choice


def turn(net):
    """A field whose solutions neither approach each other nor part, in both directions."""
    return lambda t, x: torch.stack([x[..., 1], -x[..., 0]], -1) * (1 + 0 * net(x))


def relax(net):
    return lambda t, x: -8 * x + 0.1 * net(x)


def test_autograd_where_there_is_room(net):
    choice = recommended(turn(net), memory=1e8)
    assert choice.name == "autograd"
    assert choice.others == {}


def test_reversible_where_the_method_is(net):
    choice = recommended(turn(net), memory=KEPT, solver=ReversibleRungeKutta("bosh3"))
    assert choice.name == "reversible"
    assert "with room for 2 kB" in choice.others["autograd"]


def test_forward_for_few_inputs_where_there_is_no_room_for_a_step():
    rate = torch.tensor([1.0, 2.0], requires_grad=True)
    problem = {"f": lambda t, x, rate: rate * x.flip(-1), "args": (rate,)}
    room = recommended(memory=1e9, **problem).survey.step_bytes
    choice = recommended(memory=0.5 * room, **problem)
    assert choice.name == "forward"
    assert "solves for one of each of 2 elements" in choice.reason
    assert recommended(memory=2 * room, **problem).name == "checkpoint"


def test_checkpoints_within_the_budget(net):
    choice = recommended(turn(net), memory=60_000.0, rtol=1e-9)
    found = choice.survey
    assert choice.name == "checkpoint"
    assert 2 <= choice.sensitivity.budget <= (60_000 - found.step_bytes) / found.state_bytes
    assert "no exact inverse step" in choice.others["reversible"]


def test_the_adjoint_where_checkpoints_are_too_few_and_the_state_is_found_again(net):
    options = {"rtol": 1e-10, "atol": 1e-10}
    found = recommend(turn(net), STATE, TIMES, memory=1e9, **options).survey
    # Beside the graph of a step there is room for 3 states with their slopes, of 61 steps.
    choice = recommended(turn(net), memory=found.step_bytes + 1000, **options)
    assert found.n_steps > 50
    assert choice.name == "adjoint"
    assert "stores 3 states" in choice.others["checkpoint"]
    # And where there is none for the graph of a step.
    assert recommended(turn(net), memory=KEPT, **options).name == "adjoint"


@pytest.mark.parametrize(("n_inputs", "name"), [(82, "gauss"), (17, "interpolated_adjoint")])
def test_along_the_dense_solution_where_it_is_not(net, n_inputs, name):
    if n_inputs == 17:
        net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
        assert sum(p.numel() for p in net.parameters()) == 17

    def expensive(t, x):
        return -8 * x + 0.01 * sum(torch.sin(k * net(x)) for k in range(30))

    # There is room for the dense solution, but not for the graph of a step.
    choice = recommended(expensive, memory=8000.0, solver="rk4", step_size=0.3)
    assert choice.name == name
    assert choice.survey.step_bytes > 8000 > 10 * choice.survey.dense_bytes
    assert choice.survey.drift > 1e3


def test_checkpoints_for_want_of_another(net):
    choice = recommended(relax(net), memory=KEPT, rtol=1e-9, atol=1e-9)
    assert choice.name == "checkpoint"
    assert choice.survey.drift > 1e3
    assert set(choice.others) == {"autograd", "reversible", "forward", "checkpoint", "adjoint", "gauss"}


def test_what_an_algorithm_refuses_it_is_not_recommended_for(net):
    solver = ExplicitRungeKutta(BOSH3, trainable=True)
    choice = recommended(turn(net), memory=KEPT, solver=solver, rtol=1e-6)
    assert choice.name == "checkpoint"
    assert "trainable solver" in choice.others["adjoint"]
    event = Event(lambda t, x: x.sum() - 100, terminal=False)
    assert recommended(turn(net), memory=KEPT, events=event, rtol=1e-9).name == "checkpoint"


def test_a_stiff_problem_gets_a_hint(net):
    def stiff(t, x):
        return -1000 * (x - torch.cos(t)) + net(x)

    choice = recommend(stiff, STATE, [0.0, 1.0], memory=1e8)
    assert any('"auto"' in hint for hint in choice.hints)
    choice = recommend(stiff, STATE, [0.0, 5.0], memory=1e8, max_steps=200)
    assert "failed" in choice.hints[0]
    assert not any("auto" in hint for hint in recommend(turn(net), STATE, TIMES, memory=1e8).hints)


def test_a_refusal_is_one_with_the_method_that_the_figures_are_of(net, monkeypatch):
    asked = []

    class Spy(Autograd):
        def solve(self, *problem, **options):
            asked.append(options["solver"])
            return super().solve(*problem, **options)

    monkeypatch.setitem(ALGORITHMS, "autograd", Spy)
    recommend(lambda t, x: -1000 * x + net(x), STATE, [0.0, 5.0], memory=1e8, max_steps=200)
    assert asked[-1] == "auto"


def test_an_undoing_method_is_a_hint_where_memory_is_short(net):
    assert recommend(turn(net), STATE, TIMES, memory=1e8).hints == ()
    (hint,) = recommend(turn(net), STATE, TIMES, memory=KEPT).hints
    assert "ReversibleRungeKutta" in hint
    assert recommend(relax(net), STATE, TIMES, memory=KEPT).hints == ()  # on which it would not be stable


def test_the_explanation_has_the_figures(net):
    text = str(recommend(turn(net), STATE, TIMES, memory=KEPT, rtol=1e-6))
    for part in (
        "sensitivity=",
        "steps of Tsit5",
        "82 elements want a gradient",
        "20 elements",
        "not\n  autograd",
        "consider",
    ):
        assert part in text


def test_half_of_the_memory_unless_nobody_can_tell(net, monkeypatch):
    pages = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", lambda name: pages[name])
    assert recommend(turn(net), STATE, TIMES).memory == 2_048_000

    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", unknown)
    assert recommend(turn(net), STATE, TIMES).memory == inf


def test_misuse_is_refused(net):
    with pytest.raises(ValueError, match="memory"):
        recommend(turn(net), STATE, TIMES, memory=0.0)
    with pytest.raises(TypeError, match="memory"):
        recommend(turn(net), STATE, TIMES, memory="2 GB")
    with pytest.raises(TypeError, match="params: got a Tensor, expected a sequence"):
        recommend(turn(net), STATE, TIMES, params=torch.ones(2))
    with pytest.raises(ValueError, match="nothing that requires a gradient"):
        recommend(lambda t, x: -x, STATE, TIMES)
    with pytest.raises(NonFiniteError):
        recommend(lambda t, x: net(x) / 0, STATE, TIMES)
    with pytest.raises(SolverError):
        recommend(lambda t, x: net(x).square() + x**2, STATE + 1, [0.0, 9.0])
