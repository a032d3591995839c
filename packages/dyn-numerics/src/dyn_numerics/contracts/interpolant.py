"""What the dense output of every stepper promises."""

from __future__ import annotations

from unittest import SkipTest

import torch
from torch import Tensor

from dyn_numerics.contracts.expectation import expect, expect_close
from dyn_numerics.contracts.measured_order import margin, measured_order
from dyn_numerics.contracts.method_under_test import MethodUnderTest, Taken, evenly, is_within
from dyn_numerics.ode.interpolants.polynomial import evaluate, evaluate_derivative
from dyn_numerics.ode.scalar import over_state
from dyn_numerics.ode.split_field import Part
from dyn_numerics.ode.stepper import Stepper
from dyn_numerics.ode.times import state_time

__all__ = ["InterpolantContract"]


class InterpolantContract(MethodUnderTest):
    """Tests of a stepper's `interpolant`; inherit them beside those of `StepperContract`.

    Attributes:
        dense_order: Order of the value between the steps; None for what the degree of the polynomial allows, up to the
            order of the method.
        derivative_order: Order of the derivative between the steps; None for what the degree allows.
        smooth: Whether the derivative meets the field at both ends of a step, so that it is continuous.

    Example:
        >>> from dyn_numerics import Bosh3
        >>> from dyn_numerics.contracts import InterpolantContract
        >>> class TestBosh3(InterpolantContract):
        ...     def make(self):
        ...         return Bosh3()
        >>> TestBosh3().test_meets_the_states_at_both_ends()
    """

    dense_order: int | None = None
    derivative_order: int | None = None
    smooth: bool = True

    def test_is_a_polynomial_of_the_stated_degree(self) -> None:
        """The coefficients are `[*lead, dense_degree + 1, N]`, in the dtype of the state or a wider one."""
        stepper = self.made()
        for dtype in self.dtypes:
            for t0, t1, x in self.cases(dtype):
                found = self._coefficients(stepper, self.single_step(stepper, self.problem, t0, t1, x))
                expected = (*x.shape[:-1], stepper.dense_degree + 1, x.shape[-1])
                expect(
                    found.shape == expected,
                    f"interpolant: got coefficients {list(found.shape)} for a state {list(x.shape)}, expected "
                    f"{list(expected)}: [*lead, dense_degree + 1, N], lowest power of theta first",
                )
                expect(
                    torch.promote_types(found.dtype, dtype) == found.dtype,
                    f"interpolant: got coefficients in {found.dtype} for a state in {dtype}, expected {dtype} or wider",
                )

    def test_meets_the_states_at_both_ends(self) -> None:
        """At theta = 0 it is the state at `t0`, at theta = 1 that at `t1`: the dense solution is continuous."""
        stepper = self.made()
        for case in self.cases():
            taken = self.single_step(stepper, self.problem, *case)
            polynomial = self._coefficients(stepper, taken)
            for theta, state, end in ((0.0, taken.x0, "t0"), (1.0, taken.step.x, "t1")):
                found = self._at(polynomial, theta).to(state.dtype)
                expect_close(found, state, 1e-12, f"interpolant: expected the state at {end} at theta = {theta:.0f}")

    def test_its_derivative_meets_the_field_at_both_ends(self) -> None:
        """Its derivative is `f` at both ends, so that the derivative of the dense solution is continuous."""
        if not self.smooth:
            raise SkipTest("smooth = False")
        stepper = self.made()
        for case in self.cases():
            taken = self.single_step(stepper, self.problem, *case)
            polynomial = self._coefficients(stepper, taken)
            dt = over_state(taken.t1 - taken.t0, taken.x0)
            for theta, t, x in ((0.0, taken.t0, taken.x0), (1.0, taken.t1, taken.step.x)):
                found = self._at(polynomial, theta, derivative=True) / dt
                field = self.problem(state_time(t, x), x)
                expect_close(
                    found.to(x.dtype),
                    field,
                    1e-11,
                    f"interpolant: expected the slope f at theta = {theta:.0f}; its derivative is over theta, so that it "
                    f"is dt times the slope. One that is not smooth sets smooth = False",
                )

    def test_order_between_the_steps(self) -> None:
        """The value between the steps converges with `dense_order`."""
        self._check_dense_order(reverse=False, derivative=False)

    def test_order_between_the_steps_in_reversed_time(self) -> None:
        """So it does backward in time."""
        self._check_dense_order(reverse=True, derivative=False)

    def test_order_of_the_derivative_between_the_steps(self) -> None:
        """The derivative between the steps converges with `derivative_order`."""
        self._check_dense_order(reverse=False, derivative=True)

    def test_order_of_the_derivative_between_the_steps_in_reversed_time(self) -> None:
        """So it does backward in time."""
        self._check_dense_order(reverse=True, derivative=True)

    def test_counts_its_evaluations(self) -> None:
        """It evaluates the field `dense_evals` times, within the step."""
        stepper = self.made()
        times: list[Tensor] = []

        def f(t: Tensor, x: Tensor, *part: Part) -> Tensor:
            times.append(t)
            return self.problem(t, x, *part)

        for t0, t1, x in self.cases():
            taken = self.single_step(stepper, f, t0, t1, x)
            times.clear()
            stepper.interpolant(f, t0, t1, x, taken.step)
            expect(
                len(times) == stepper.dense_evals,
                f"interpolant: evaluated f {len(times)} times, expected {stepper.dense_evals} as dense_evals says",
            )
            outside = [t.tolist() for t in times if not is_within(t, t0, t1)]
            expect(not outside, f"interpolant: evaluated f at {outside}, expected times within the step [{t0}, {t1}]")

    def test_rows_do_not_meet_between_the_steps(self) -> None:
        """In a batch, the polynomial of a sample depends on no other sample, to the bit."""
        stepper = self.made()
        t0, t1, x = self.batch()

        def polynomials(rows: Tensor, x: Tensor) -> Tensor:
            return self._coefficients(stepper, self.single_step(stepper, self.problem, t0[rows], t1[rows], x[rows]))

        in_order = torch.arange(len(x), device=x.device)
        together, turned = polynomials(in_order, x), in_order.flip(0)
        sentence = "interpolant: expected the same bits for a sample wherever it stands in the batch"
        expect_close(polynomials(turned, x), together[turned], 0.0, sentence)
        failed = x.clone()
        failed[0] = torch.nan
        sentence = "interpolant: expected NaN in one sample to leave the others alone"
        expect_close(polynomials(in_order, failed)[1:], together[1:], 0.0, sentence)

    def _coefficients(self, stepper: Stepper, taken: Taken) -> Tensor:
        return stepper.interpolant(self.problem, taken.t0, taken.t1, taken.x0, taken.step)

    @staticmethod
    def _at(polynomial: Tensor, theta: float, derivative: bool = False) -> Tensor:
        where = torch.full(polynomial.shape[:-2], theta, dtype=torch.float64, device=polynomial.device)
        return evaluate_derivative(polynomial, where) if derivative else evaluate(polynomial, where)

    def _check_dense_order(self, reverse: bool, derivative: bool) -> None:
        stepper = self.made()
        allowed = stepper.dense_degree + (0 if derivative else 1)
        claimed = self.derivative_order if derivative else self.dense_order
        order = min(stepper.order, allowed) if claimed is None else claimed
        problem, x0, start, end = self.measured_on(stepper, order, reverse)
        theta = (torch.arange(5, dtype=torch.float64, device=x0.device) + 0.3) / 5

        def error(steps: int) -> float:
            errors = []
            for taken in self.walk(stepper, problem, evenly(start, end, steps), x0):
                dt = taken.t1 - taken.t0
                t = taken.t0 + theta * dt
                exact = problem.exact(t, start, x0)
                polynomial = stepper.interpolant(problem, *taken).expand(len(theta), -1, -1)
                found = evaluate(polynomial, theta)
                if derivative:
                    found, exact = evaluate_derivative(polynomial, theta) / dt, problem(t, exact)
                errors.append((found - exact).abs().max())
            return torch.stack(errors).max().item()

        # Of derivatives, rounding over the step size is seen at high order.
        steps = min(self.most_steps, 50) if derivative and stepper.order > 5 else self.most_steps
        with torch.no_grad():
            found = measured_order(error, steps)
        what = "derivative_order" if derivative else "dense_order"
        expect(
            abs(found - order) <= margin(order),
            f"{what}: measured {found:.2f} between the steps, {'reversed' if reverse else 'forward'} in time, expected "
            f"{order} +- {margin(order)}; set {what} if the dense output is meant to be of another order",
        )
