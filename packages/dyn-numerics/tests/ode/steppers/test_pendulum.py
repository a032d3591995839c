"""The energy of a pendulum under symplectic methods, over many periods: it swings, and does not drift."""

import math

import pytest
import torch

from dyn_numerics import SplitField, odeint
from dyn_numerics.loop import is_supported

D = torch.float64
AMPLITUDES = torch.linspace(0.1, 2.0, 16, dtype=D)
PENDULUM = SplitField(lambda t, p: p, lambda t, q: -torch.sin(q))
START = AMPLITUDES.unsqueeze(1), torch.zeros(16, 1, dtype=D)


def period(amplitude):
    """By the arithmetic-geometric mean of 1 and cos(amplitude / 2)."""
    a, b = 1.0, math.cos(amplitude / 2)
    for _ in range(8):
        a, b = (a + b) / 2, math.sqrt(a * b)
    return 2 * math.pi / a


PERIODS = torch.tensor([period(amplitude) for amplitude in AMPLITUDES.tolist()], dtype=D)


def check(x):
    """In ten parts of the time, one after the other, the energy goes as far up and down, about the same mean."""
    q, p = (part.squeeze(-1) for part in x)
    energy = p**2 / 2 + 1 - torch.cos(q)
    error = (energy / energy[0] - 1)[1:]  # [T, 16]
    swing = error.amax(0) - error.amin(0)
    parts = error.reshape(10, -1, 16)
    highest, means = parts.abs().amax(1), parts.mean(1)
    assert swing.max() < 0.2
    assert swing.min() > 1e-4  # steps are so long that there is something to see
    assert (highest.amax(0) < 1.02 * highest.amin(0)).all()
    assert ((means - means[0]).abs().amax(0) < 0.02 * swing).all()


@pytest.mark.parametrize("solver", ["verlet", "yoshida4"])
def test_a_thousand_periods(solver):
    """Of 16 amplitudes, each with steps of its own, ten to a period."""
    t = 0.097 * torch.arange(10_311, dtype=D).unsqueeze(1) * PERIODS  # in no simple ratio to the period
    with torch.no_grad():
        check(odeint(PENDULUM, START, t, solver=solver, stepping="per_sample").x)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not is_supported(), reason="this torch compiles no solves")
@pytest.mark.parametrize("solver", ["verlet", "yoshida4"])
def test_a_hundred_thousand_periods_compiled(solver):
    """Of the slowest amplitude, and more of the others; the energy is looked at in every 61st step."""

    def solve(q, p, t):
        return odeint(PENDULUM, (q, p), t, solver=solver, step_size=0.6, max_steps=10**8).x

    n = math.ceil(1e5 * PERIODS.max().item() / 0.6 / 610) * 10
    t = 0.6 * 61 * torch.arange(n + 1, dtype=D)
    with torch.no_grad():
        check(torch.compile(solve, fullgraph=True)(*START, t))
