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
def test_the_first_step_is_no_longer_either(stepping):
    controller = PIDController(first_step=1.0, max_step=0.1)
    sol = odeint(
        lambda t, x: -x, torch.ones(1, 1, dtype=D), [0.0, 1.0], controller=controller, stepping=stepping, save="steps"
    )
    assert sol.t[1].max().item() == 0.1


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


def growth(t, x):
    return x * torch.cos(t)


def final(controller, x0=(1.0,), field=growth, **options):
    x0 = torch.tensor(x0, dtype=D)
    return odeint(field, x0, [0.0, 1.5], solver="bosh3", rtol=1e-2, atol=1e-2, controller=controller, **options)


def differences(controller, solve, h=1e-6):
    """Derivatives of the sum of the last states with respect to the controller's parameters."""
    found = []
    for parameter in controller.parameters():
        sols = []
        for shift in (h, -h):
            with torch.no_grad():
                parameter.add_(shift)
            sols.append(solve(controller))
            with torch.no_grad():
                parameter.sub_(shift)
        assert torch.equal(sols[0].status_code, sols[1].status_code)
        arrived = sols[0].status_code == Status.SUCCESS.code
        assert torch.equal(sols[0].stats.n_steps[arrived], sols[1].stats.n_steps[arrived])
        found.append(((sols[0].x[-1] - sols[1].x[-1]).nansum() / (2 * h)).item())
    assert all(abs(difference) > 1e-6 for difference in found)
    return found


def learned_gradients(controller, solve):
    x = solve(controller).x[-1]
    return torch.autograd.grad(torch.where(x.isnan(), 0, x).sum(), list(controller.parameters()))


@pytest.mark.parametrize("save", ["t_span", "steps", "dense"])
@pytest.mark.parametrize("stepping", MODES)
def test_gradients_reach_a_controller_through_the_step_sizes(stepping, save):
    def solve(controller):
        return final(controller, [[1.0], [0.1], [4.0]], stepping=stepping, save=save)

    controller = Learned()
    assert 3 < solve(controller).stats.n_steps.min() <= solve(controller).stats.n_steps.max() < 100
    torch.testing.assert_close(
        [g.item() for g in learned_gradients(controller, solve)], differences(controller, solve), rtol=1e-4, atol=0
    )


def test_each_sample_teaches_the_controller_as_if_it_were_alone():
    controller, starts = Learned(), [[1.0], [0.1], [4.0]]
    together = learned_gradients(controller, lambda c: final(c, starts, stepping="per_sample"))
    alone = [learned_gradients(controller, lambda c, x0=x0: final(c, x0)) for x0 in starts]
    for i, gradient in enumerate(together):
        assert gradient.item() == pytest.approx(sum(g[i].item() for g in alone), rel=1e-9)


def test_a_sample_that_fails_teaches_nothing_and_one_that_retries_does():
    """The second sample never gets beyond its singularity, the third has a first step that is not finite."""

    def field(t, x):
        lost = torch.tensor([[False], [True], [False]]) & (t > 0.7)
        pull = torch.tensor([[0.0], [0.0], [100.0]], dtype=D) * (t < 0.1)
        floor = torch.tensor([[-9.0], [-9.0], [2.0]], dtype=D)
        slope = x * torch.cos(t) - pull * (x - 3) + 0.01 * torch.sqrt(x - floor)
        return slope * torch.where(lost, torch.nan, 1.0)

    def solve(controller):
        return final(controller, [[1.0], [0.1], [4.0]], field, stepping="per_sample", throw=False)

    controller = Learned()
    sol = solve(controller)
    assert [status.name for status in sol.status] == ["SUCCESS", "NON_FINITE", "SUCCESS"]
    assert sol.stats.n_rejected[2] > 0
    assert sol.stats.n_rejected[0] == 0
    gradients = [g.item() for g in learned_gradients(controller, solve)]
    torch.testing.assert_close(gradients, differences(controller, solve), rtol=1e-4, atol=0)


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


@pytest.mark.parametrize("stepping", MODES)
def test_a_learned_controller_without_gradients_takes_the_same_steps(stepping):
    with torch.no_grad():
        sol = final(Learned(), [[1.0], [0.1]], stepping=stepping)
    assert torch.equal(sol.stats.n_steps, final(Learned(), [[1.0], [0.1]], stepping=stepping).stats.n_steps)
    torch.testing.assert_close(
        sol.x, final(Learned(), [[1.0], [0.1]], stepping=stepping).x.detach(), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("stepping", MODES)
def test_gradients_across_an_attempt_that_is_not_finite(stepping):
    """A step of learned length ends where the field is infinite; the same gradients, whichever way the solve steps."""

    def solve(controller):
        controller.first_step = 0.1
        field = lambda t, x: torch.where(x < 0.12, torch.inf, -2 * x)  # noqa: E731
        x0 = torch.ones(1, 1, dtype=D)
        return odeint(
            field, x0, [0.0, 1.0], solver="bosh3", rtol=1e-2, atol=1e-2, controller=controller, stepping=stepping
        )

    controller = Learned()
    with torch.no_grad():
        controller.scale.fill_(2.0)
    sol = solve(controller)
    assert sol.stats.n_rejected.max() == 1
    assert sol.stats.n_accepted.max() == 4
    gradients = [g.item() for g in learned_gradients(controller, solve)]
    torch.testing.assert_close(gradients, differences(controller, solve), rtol=1e-4, atol=0)


def test_parameters_that_would_not_be_trained_are_refused():
    class Forgotten(Learned):
        differentiable = False

    with pytest.raises(ValueError, match=r"controller: got Forgotten.* set its attribute differentiable to True"):
        final(Forgotten())
    with torch.no_grad():
        assert final(Forgotten()).x.isfinite().all()
    assert final(Forgotten().requires_grad_(False)).x.isfinite().all()


def test_other_controllers_have_no_gradient_through_step_sizes():
    x0 = torch.tensor([1.0], dtype=D, requires_grad=True)
    x = odeint(lambda t, x: x * torch.cos(t), x0, [0.0, 1.5], solver="bosh3").x[-1]
    (gradient,) = torch.autograd.grad(x, x0)
    assert gradient.item() == pytest.approx(x.item(), rel=1e-12)  # of a linear problem, with the steps held fixed


@pytest.mark.parametrize("stepping", MODES)
def test_where_it_cannot_be_trained_it_says_so(stepping):
    def solve(x0):
        return odeint(lambda t, x: -x, x0, [0.0, 1.0], controller=Learned(), stepping=stepping).x

    with pytest.raises(ValueError, match="controller: got one that is trained through the solve"):
        torch.func.vmap(solve)(torch.ones(2, 1, 1))
    with torch.no_grad():
        assert torch.func.vmap(solve)(torch.ones(2, 1, 1, dtype=D)).isfinite().all()


@pytest.mark.parametrize("solver", ["tsit5", "vern7", "dopri8"])
def test_a_sample_at_rest_poisons_no_gradient(solver):
    """Its error is zero at every step, which the norms of a method with two estimates must not divide by."""
    rate = torch.tensor(0.7, dtype=D, requires_grad=True)
    controller = Learned()
    gradients = []
    for x0 in ([[0.0], [1.0]], [[1.0]]):
        sol = odeint(
            lambda t, x: -rate * x * torch.cos(t),
            torch.tensor(x0, dtype=D),
            [0.0, 2.0],
            solver=solver,
            controller=controller,
            stepping="per_sample",
        )
        gradients.append(torch.autograd.grad(sol.x[-1].sum(), rate)[0].item())
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-12)
    assert abs(gradients[1]) > 0.1
