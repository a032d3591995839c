"""Least and greatest steps, and a controller that is trained through the solve."""

import pytest
import torch
from torch import nn

from dyn_numerics import Controller, PIDController, Status, Verdict, odeint

D = torch.float64
MODES = ["joint", "per_sample"]


def oscillation(t, x):
    return torch.cos(5 * t) * 5 + 0 * x


@pytest.mark.parametrize("stepping", MODES)
def test_no_step_is_longer_than_the_greatest(stepping):
    sol = odeint(
        lambda t, x: 0 * x,
        torch.ones(2, 1, dtype=D),
        [0.0, 3.0],
        controller=PIDController(max_step=0.25),
        stepping=stepping,
        save="steps",
    )
    assert sol.t.diff(dim=0).max() <= 0.25 * 1.01 + 1e-12  # the last one may be stretched to the end
    assert sol.stats.n_steps.max() >= 12


@pytest.mark.parametrize("stepping", MODES)
def test_no_step_is_shorter_than_the_least_but_the_last(stepping):
    controller = PIDController(min_step=0.05)
    sol = odeint(
        oscillation, torch.zeros(2, 1, dtype=D), [0.0, 2.0], controller=controller, stepping=stepping, save="steps"
    )
    assert sol.t.diff(dim=0)[:-1].min() >= 0.05
    free = odeint(oscillation, torch.zeros(2, 1, dtype=D), [0.0, 2.0], stepping=stepping, save="steps")
    assert free.t.diff(dim=0).min() < 0.05  # the first step, for one


@pytest.mark.parametrize("stepping", MODES)
def test_a_solve_that_needs_shorter_steps_fails(stepping):
    sol = odeint(
        lambda t, x: torch.cos(500 * t) * 500 + 0 * x,
        torch.zeros(1, 1, dtype=D),
        [0.0, 2.0],
        rtol=1e-8,
        atol=1e-8,
        controller=PIDController(min_step=0.1),
        stepping=stepping,
        throw=False,
    )
    status = sol.status if stepping == "joint" else sol.status[0]
    assert status in (Status.STEP_UNDERFLOW, Status.DISCONTINUITY_SUSPECTED, Status.STIFFNESS_SUSPECTED)
    assert sol.x[-1].isnan().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_step": -1.0}, "min_step: got -1.0, expected a number of at least 0"),
        ({"min_step": float("inf")}, "min_step: got inf"),
        ({"max_step": 0.0}, "max_step: got 0.0, expected more than min_step"),
        ({"min_step": 1.0, "max_step": 0.5}, "max_step: got 0.5, expected more than min_step, which is 1.0"),
    ],
)
def test_limits_that_no_step_meets(options, message):
    with pytest.raises(ValueError, match=message):
        PIDController(**options)


class Learned(Controller):
    """Accepts everything and multiplies the step by a power of the error that it learns."""

    differentiable = True

    def __init__(self):
        super().__init__()
        self.first_step = 0.05
        self.power = nn.Parameter(torch.tensor(0.1, dtype=D))
        self.scale = nn.Parameter(torch.tensor(0.9, dtype=D))

    def judge(self, error, error_order, memory):
        # Without gradient the error is a host number.
        error = torch.as_tensor(error, dtype=torch.float64)
        factor = self.scale * torch.exp(-self.power * torch.log(error.clamp(1e-6, 1e6)))
        return Verdict(error < float("inf"), factor, memory)


def final(controller, x0=1.0, **options):
    x0 = torch.tensor([x0], dtype=D)
    field = lambda t, x: x * torch.cos(t)  # noqa: E731
    return odeint(field, x0, [0.0, 1.5], solver="bosh3", rtol=1e-2, atol=1e-2, controller=controller, **options)


def test_gradients_reach_a_controller_through_the_step_sizes():
    controller = Learned()
    sol = final(controller)
    assert 3 < sol.stats.n_steps < 100
    gradients = torch.autograd.grad(sol.x[-1].sum(), list(controller.parameters()))
    for parameter, gradient in zip(controller.parameters(), gradients, strict=True):
        values = []
        for shift in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(shift)
            values.append(final(controller))
            with torch.no_grad():
                parameter.sub_(shift)
        assert values[0].stats.n_steps == values[1].stats.n_steps
        difference = (values[0].x[-1] - values[1].x[-1]).item() / 2e-6
        assert abs(difference) > 1e-6
        assert gradient.item() == pytest.approx(difference, rel=1e-4)


def test_a_controller_that_is_trained_gets_better():
    """To a smaller error of the result, with the number of steps held down by the scale alone."""
    controller = Learned()
    exact = torch.exp(torch.sin(torch.tensor(1.5, dtype=D)))
    optimiser = torch.optim.Adam(controller.parameters(), lr=2e-3)
    errors = []
    for _ in range(15):
        optimiser.zero_grad()
        error = (final(controller).x[-1] - exact).pow(2).sum()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < errors[0]


def test_other_controllers_have_no_gradient_through_step_sizes():
    x0 = torch.tensor([1.0], dtype=D, requires_grad=True)
    x = odeint(lambda t, x: x * torch.cos(t), x0, [0.0, 1.5], solver="bosh3").x[-1]
    (gradient,) = torch.autograd.grad(x, x0)
    assert gradient.item() == pytest.approx(x.item(), rel=1e-12)  # of a linear problem, with the steps held fixed


@pytest.mark.parametrize("stepping", ["per_sample"])
def test_where_it_cannot_be_trained_it_says_so(stepping):
    with pytest.raises(ValueError, match="controller: got one that is trained through the solve"):
        odeint(lambda t, x: -x, torch.ones(1, 1), [0.0, 1.0], controller=Learned(), stepping=stepping)
    with torch.no_grad():
        assert (
            odeint(lambda t, x: -x, torch.ones(1, 1).double(), [0.0, 1.0], controller=Learned(), stepping=stepping)
            .x.isfinite()
            .all()
        )
