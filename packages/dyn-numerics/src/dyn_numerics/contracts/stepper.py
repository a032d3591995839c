"""What every stepper promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from unittest import SkipTest

import torch
from torch import Tensor

from dyn_numerics.contracts.copies import copies
from dyn_numerics.contracts.expectation import expect, expect_close
from dyn_numerics.contracts.finite_differences import check_gradients
from dyn_numerics.contracts.measured_order import margin, measured_order
from dyn_numerics.contracts.method_under_test import MethodUnderTest, evenly, is_within
from dyn_numerics.contracts.structure import structure, tensors
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.controllers.fixed_step import FixedStep
from dyn_numerics.ode.scalar import Scalar
from dyn_numerics.ode.split_field import Part
from dyn_numerics.ode.stepper import FlatField, Step, Stepper
from dyn_numerics.ode.times import state_time

__all__ = ["StepperContract"]

GRID = [0.0, 0.2, 0.5, 1.1]
EXACTLY = {"rtol": 1e-12, "atol": 1e-14}  # how far a method that solves equations goes on


class StepperContract(MethodUnderTest):
    """Tests of a stepper; `InterpolantContract` has those of its dense output.

    Attributes:
        differentiable: Whether gradients flow through its steps.
        compiles: Whether it is to be tested inside `torch.compile(fullgraph=True)`, which takes a minute and a torch that
            compiles solves.
        reach: How far beyond its step, in lengths of that, a part of a split field may be evaluated, or any other field `"f"`;
            what is not named may not.

    Example:
        >>> from dyn_numerics import Bosh3
        >>> from dyn_numerics.contracts import StepperContract
        >>> class TestBosh3(StepperContract):
        ...     def make(self):
        ...         return Bosh3()
        >>> TestBosh3().test_order()
    """

    differentiable: bool = True
    compiles: bool = False
    reach: ClassVar[Mapping[str, float]] = {}

    def test_states_its_orders(self) -> None:
        """`order` and `dense_degree` are positive integers, and `error_order` is one or None."""
        stepper = self.made()
        for name in ("order", "error_order", "dense_degree"):
            found = getattr(stepper, name, None)
            fits = found is None if name == "error_order" else False
            expect(
                fits or (type(found) is int and found > 0),
                f"{name}: got {found!r}, expected a positive integer, set by the class or its __init__",
            )

    def test_order(self) -> None:
        """The largest error over a grid falls with the power `order` of the step size."""
        self._check_order(reverse=False)

    def test_order_in_reversed_time(self) -> None:
        """So it does backward in time."""
        self._check_order(reverse=True)

    def test_is_pure(self) -> None:
        """The same input gives the same bits, whatever was stepped meanwhile, and nothing handed in or out is changed."""
        stepper = self.made()
        for t0, t1, x in self.cases():
            t = state_time(t0, x)
            with torch.no_grad():
                carry = stepper.init(self.problem, t, x, self.problem(t, x))
                given = [x, *tensors(carry)]
                before = [tensor.clone() for tensor in given]
                first = stepper.step(self.problem, t0, t1, x, carry)
                found = [tensor.clone() for tensor in _results(first)]
                for other in self.walk(stepper, self.problem, (t1, t1 + (t1 - t0)), 1.5 * x):
                    stepper.interpolant(self.problem, *other)
            for tensor, value in zip(given, before, strict=True):
                expect_close(tensor, value, 0.0, "step: wrote into the state or the carry that it was handed")
            for tensor, value in zip(_results(first), found, strict=True):
                expect_close(tensor, value, 0.0, "step: a later step wrote into what an earlier one had returned")
            with torch.no_grad():
                again = stepper.step(self.problem, t0, t1, x, carry)
            for tensor, value in zip(_results(again), found, strict=True):
                sentence = "step: expected the same result for the same input; what it remembers goes into its carry"
                expect_close(tensor, value, 0.0, sentence)

    def test_stays_within_the_step(self) -> None:
        """`step` and `complete` evaluate the field between `t0` and `t1` only, rounding included."""
        stepper = self.made()
        for t0, t1, x in self.cases():
            times: list[tuple[Tensor, float]] = []

            def f(t: Tensor, x: Tensor, *part: Part, times: list[tuple[Tensor, float]] = times) -> Tensor:
                times.append((t, max(self.reach.get(name, 0.0) for name in part or ("f",))))
                return self.problem(t, x, *part)

            self.single_step(stepper, f, t0, t1, x)
            length = t1 - t0
            outside = [t.tolist() for t, reach in times if not is_within(t, t0 - reach * length, t1 + reach * length)]
            expect(
                not outside,
                f"step: evaluated f at {outside}, expected times within the step [{t0}, {t1}]; take the end to be t1, as "
                f"t0 + (t1 - t0) may round beyond it",
            )

    def test_follows_the_state(self) -> None:
        """The new state has the shape, dtype and device of the old one; `t` reaches `f` as `[*lead]`, in its real dtype."""
        stepper = self.made()
        for dtype in self.dtypes:
            for t0, t1, x in self.cases(dtype):
                seen: list[tuple[Tensor, Tensor]] = []

                def f(t: Tensor, x: Tensor, *part: Part, seen: list[tuple[Tensor, Tensor]] = seen) -> Tensor:
                    seen.append((t, x))
                    return self.problem(t, x, *part)

                step = self.single_step(stepper, f, t0, t1, x).step
                for name, tensor in (("step.x", step.x), *(("x of f(t, x)", x) for _, x in seen)):
                    expect(_kind(tensor) == _kind(x), f"{name}: got {_kind(tensor)}, expected {_kind(x)} as the state")
                time = (x.shape[:-1], real_dtype(dtype), x.device)
                for t, _ in seen:
                    expect(_kind(t) == time, f"t of f(t, x): got {_kind(t)}, expected {time}; try state_time(t, x)")

    def test_accuracy_in_every_dtype(self) -> None:
        """A step in another dtype is that in float64, or complex128, up to rounding."""
        stepper = self.made()
        for dtype in self.dtypes:
            for t0, t1, x in self.cases(dtype):
                precise = x.to(torch.complex128 if dtype.is_complex else torch.float64)
                found = self.single_step(stepper, self.problem, t0, t1, x).step.x
                expected = self.single_step(stepper, self.problem, t0, t1, precise).step.x
                rounding = 100 * torch.finfo(dtype).eps
                sentence = f"step: expected the same state in {dtype} as in {precise.dtype}, up to rounding"
                expect_close(found.to(precise.dtype), expected, rounding, sentence)
                if dtype.is_complex:
                    self._check_imaginary_part(stepper, t0, t1, precise.real)

    def test_rows_do_not_meet(self) -> None:
        """In a batch, no sample depends on another: not on its place to the bit, and not on NaN beside it."""
        stepper = self.made()
        t0, t1, x = self.batch()

        def step(rows: Tensor, x: Tensor) -> list[Tensor]:
            return _results(self.single_step(stepper, self.problem, t0[rows], t1[rows], x[rows]).step)

        in_order = torch.arange(len(x), device=x.device)
        together = step(in_order, x)
        reversed_rows = in_order.flip(0)
        for found, expected in zip(step(reversed_rows, x), together, strict=True):
            sentence = "step: expected the same bits for a sample wherever it stands in the batch"
            expect_close(found, expected[reversed_rows], 0.0, sentence)
        failed = x.clone()
        failed[0] = torch.nan
        for found, expected in zip(step(in_order, failed), together, strict=True):
            expect_close(found[1:], expected[1:], 0.0, "step: expected NaN in one sample to leave the others alone")

    def test_a_batch_is_its_rows(self) -> None:
        """A batch `[batch, N]` takes the steps that its rows `[N]` take alone, each with its own times."""
        stepper = self.made()
        t0, t1, x = self.batch()
        together = _results(self.single_step(stepper, self.problem, t0, t1, x).step)
        for i in range(len(x)):
            alone = self.single_step(stepper, self.problem, t0[i].item(), t1[i].item(), x[i]).step
            for found, expected in zip(together, _results(alone), strict=True):
                expect_close(found[i], expected, 1e-13, f"step: expected for row {i} of a batch what it takes alone")

    def test_estimates_its_error(self) -> None:
        """A step has an error estimate in the shape of the state if there is an `error_order`, and only then."""
        stepper = self.made()
        for case in self.cases():
            error = self.single_step(stepper, self.problem, *case).step.error
            expect(
                (error is None) == (stepper.error_order is None),
                f"step.error: got {'None' if error is None else 'an estimate'} with error_order {stepper.error_order}, "
                f"expected an estimate and its order, or None for both",
            )
            shape = case[2].shape
            expect(
                error is None or error.shape == shape,
                f"step.error: got shape {list(() if error is None else error.shape)}, expected {list(shape)}",
            )

    def test_order_of_the_error_estimate(self) -> None:
        """The estimate of one step falls with the power `error_order + 1` of its size."""
        stepper, error_order = self._with_estimate()
        end, x0 = self.length_of(stepper.order), self.starts()[0]
        starts = evenly(0.0, end, 20)
        states = self.problem.exact(self.numbers(starts), 0.0, x0)

        def error(steps: int) -> float:
            dt = end / (2 * steps)
            estimates = []
            for t0, x in zip(starts, states, strict=True):
                step = self.single_step(stepper, self.problem, t0, t0 + dt, x).step
                estimates.append(stepper.measure_error(step, torch.linalg.vector_norm))
            return torch.stack(estimates).mean().item()

        order = error_order + 1
        with torch.no_grad():
            found = measured_order(error, self.most_steps)
        expect(
            abs(found - order) <= margin(order),
            f"error_order: measured the power {found:.2f} of the step size in the error estimate, expected {order} +- "
            f"{margin(order)}, one more than error_order",
        )

    def test_meets_the_tolerance(self) -> None:
        """An adaptive solve ends within 50 times its tolerance."""
        stepper, _ = self._with_estimate()
        x0 = self.starts()[0]
        for t_span in ([0.0, 2.0], [2.0, 0.0]) if self.reversed_time else ([0.0, 2.0],):
            with torch.no_grad():
                x = self.solve(stepper, self.problem, x0, t_span, rtol=1e-5, atol=1e-5).x
            exact = self.problem.exact(self.numbers(t_span), t_span[0], x0)
            found = ((x - exact).abs() / (1e-5 + 1e-5 * exact.abs())).max().item()
            expect(
                found <= 50,
                f"step.error: a solve from {t_span[0]} to {t_span[1]} ended {found:.0f} tolerances away, expected at most "
                f"50; the estimate is too small",
            )

    def test_carry_and_retry_are_alike(self) -> None:
        """What `init`, an accepted step and a rejected one hand on has one structure, so that samples can be selected.

        A problem of its own, whose times are host numbers, may hand on more for a `retry`.
        """
        stepper = self.made()
        for t0, t1, x in self.cases():
            t = state_time(t0, x)
            carry = stepper.init(self.problem, t, x, self.problem(t, x))
            step = stepper.step(self.problem, t0, t1, x, carry)
            completed = stepper.complete(self.problem, t1, step)
            bare = stepper.init(self.problem, t, x, None)
            bare_step = stepper.step(self.problem, t0, t1, x, bare)
            for name, found, expected, known in (
                ("the carry of a completed step", completed.carry, carry, "the slope at the start"),
                ("the carry of a step that is not completed", bare_step.carry, bare, "None for it"),
                *([("retry", step.retry, carry, "the slope at the start")] if isinstance(t0, Tensor) else []),
            ):
                expect(
                    structure(found) == structure(expected),
                    f"{name}: got {structure(found)}, expected {structure(expected)} as from init, which was handed {known}",
                )

    def test_a_retry_is_a_new_start(self) -> None:
        """A shorter step with the `retry` of a rejected one is the step that starts anew."""
        stepper = self.made()
        for t0, t1, x in self.cases():
            t, shorter = state_time(t0, x), t0 + 0.3 * (t1 - t0)
            carry = stepper.init(self.problem, t, x, self.problem(t, x))
            rejected = stepper.step(self.problem, t0, t1, x, carry)
            found = stepper.step(self.problem, t0, shorter, x, rejected.retry)
            expected = stepper.step(self.problem, t0, shorter, x, carry)
            sentence = "step.retry: expected a shorter step from it to be the one that starts anew"
            expect_close(found.x, expected.x, 1e-14, sentence)

    def test_follows_from_its_start(self) -> None:
        """A step is the one that starts anew from the same state, unless `one_step` says otherwise."""
        stepper = self.made()
        if not stepper.one_step:
            raise SkipTest("one_step = False")
        for t0, t1, x, step in self.walk(stepper, self.problem, GRID, self.starts()[0]):
            anew = self.single_step(stepper, self.problem, t0, t1, x).step
            sentence = "step: expected it to follow from the state at its start; what knows more of before sets one_step = False"
            expect_close(step.x, anew.x, 1e-7, sentence)

    def test_completing_changes_nothing(self) -> None:
        """Steps that are completed lead to the same states as those that are not."""
        stepper = self.made()
        plain = self.walk(stepper, self.problem, GRID, self.starts()[0], complete=False)
        completed = self.walk(stepper, self.problem, GRID, self.starts()[0])
        for bare, full in zip(plain, completed, strict=True):
            sentence = "complete: expected it to leave the state and the steps after it as they are"
            expect_close(full.step.x, bare.step.x, 1e-14, sentence)

    def test_what_completes_a_step_is_reused(self) -> None:
        """Of what completing steps evaluates, the next steps evaluate as much less."""
        stepper = self.made()
        calls = 0

        def f(t: Tensor, x: Tensor, *part: Part) -> Tensor:
            nonlocal calls
            calls += 1
            return self.problem(t, x, *part)

        list(self.walk(stepper, f, GRID, self.starts()[0], complete=False))
        bare, calls = calls, 0
        list(self.walk(stepper, f, GRID, self.starts()[0]))
        expect(
            calls <= bare + 1,
            f"complete: {len(GRID) - 1} steps took {calls} evaluations completed and {bare} without, expected at most 1 "
            f"more, at the end of the last; hand on as carry what was evaluated",
        )

    def test_counts_every_evaluation(self) -> None:
        """The statistics of a solve agree with a counter inside `f`."""
        stepper = self.made()
        modes: list[dict[str, Any]] = [{"step_size": 0.3}, *([{}] if stepper.error_order else [])]
        for options in modes:
            calls = 0

            def f(t: Tensor, x: Tensor, *part: Part) -> Tensor:
                nonlocal calls
                calls += 1
                return self.problem(t, x, *part)

            for _ in range(2):
                calls = 0
                n_evals = self.solve(stepper, f, self.starts()[0], GRID, **options).stats.n_evals.item()
                expect(
                    n_evals == calls,
                    f"stats.n_evals: got {n_evals} where f was called {calls} times, expected as many; call the f that "
                    f"each method is handed, and keep none",
                )

    def test_follows_grad_mode(self) -> None:
        """Under `torch.no_grad` nothing has a gradient."""
        stepper = self.made()
        x = self.starts()[0].requires_grad_()
        with torch.no_grad():
            taken = self.single_step(stepper, self.problem, 0.1, 0.7, x)
            found = [*_results(taken.step), stepper.interpolant(self.problem, 0.1, 0.7, x, taken.step)]
            expect(torch.is_grad_enabled() is False, "step: switched gradients on, expected it to leave the mode alone")
        expect(
            not any(tensor.requires_grad for tensor in found),
            "step: returned a tensor with a gradient under torch.no_grad, expected none; do not switch gradients on",
        )

    def test_gradients_through_its_steps(self) -> None:
        """Gradients to the state, to the field and to its own parameters equal finite differences."""
        self._check_gradients("step", self._states(controller=FixedStep(), **EXACTLY))

    def test_gradients_through_its_interpolant(self) -> None:
        """So they do at times between its steps."""
        self._check_gradients("interpolant", self._states(step_size=0.3, **EXACTLY))

    def test_gradients_of_its_error_estimate(self) -> None:
        """So do those of its error estimate, on which learned controllers and regularisers rest."""
        self._with_estimate()
        self._check_gradients("error", lambda stepper, f, x0: self.single_step(stepper, f, 0.1, 1.3, x0).step.error)

    def test_every_sample_solves_its_own_problem(self) -> None:
        """A solve per sample is the solves of its samples alone: states, steps, and gradients to the field."""
        stepper = self.made()
        spans = [[0.1 * i, 0.6 + 0.2 * i, 1.5] for i in range(len(self.batch()[2]))]
        if self.reversed_time:
            spans[-1] = [1.5, 0.7, 0.1]
        x0, rate = self.starts(), torch.ones((), dtype=torch.float64, device=self.device)
        rate.requires_grad_(self.differentiable)
        options: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3} if stepper.error_order else {"step_size": 0.11}

        def f(t: Tensor, x: Tensor, *part: Part) -> Tensor:
            return rate * self.problem(t, x, *part)

        times = torch.stack([self.numbers(span) for span in spans], dim=1)
        together = self.solve(stepper, f, x0, times, stepping="per_sample", **options)
        for i, span in enumerate(spans):
            alone = self.solve(stepper, f, x0[i], span, **options)
            sentence = f"expected sample {i} of a batch to be solved as if it were alone"
            expect_close(together.x[:, i], alone.x, 1e-10, sentence)
            steps = (together.stats.n_accepted[i].item(), alone.stats.n_accepted.item())
            expect(steps[0] == steps[1], f"{sentence}, got {steps[0]} steps instead of {steps[1]}")
            if self.differentiable:
                found, expected = (
                    torch.autograd.grad(x[-1].sum(), rate, retain_graph=True)[0] for x in (together.x[:, i], alone.x)
                )
                expect_close(found, expected, 1e-9, f"{sentence}, gradients included")

    def test_a_step_of_no_length(self) -> None:
        """A step from `t0` to `t0`, as samples take that have ended, leaves the state alone and has no error."""
        stepper = self.made()
        for t0, _, x in self.cases():
            step = self.single_step(stepper, self.problem, t0, t0, x).step
            expect_close(step.x, x, 0.0, "step: expected a step of no length to return its state")
            if step.error is not None:
                expect_close(step.error, torch.zeros_like(x), 0.0, "step.error: expected 0 for a step of no length")

    def test_inverse_step(self) -> None:
        """`inverse_step` returns to the state at `t0`, or says that there is none."""
        stepper = self.made()
        for t0, t1, x in self.cases():
            step = self.single_step(stepper, self.problem, t0, t1, x).step
            try:
                found, _ = stepper.inverse_step(self.problem, t0, t1, step.x, step.carry)
            except TypeError as error:
                raise SkipTest("the method has no inverse step") from error
            expect_close(found, x, 1e-12, "inverse_step: expected the state at t0 from that at t1")

    def test_copies_step_alike(self) -> None:
        """A deep copy, a pickled one and one that loads its `state_dict` take the same steps, to the bit."""
        stepper = self.made()
        x = self.starts()[0]
        with torch.no_grad():
            expected = _results(self.single_step(stepper, self.problem, 0.1, 0.7, x).step)
            for name, other in copies(stepper, self.made()).items():
                found = _results(self.single_step(other, self.problem, 0.1, 0.7, x).step)
                for tensor, value in zip(found, expected, strict=True):
                    expect_close(tensor, value, 0.0, f"expected {name} to step as the stepper does")

    def test_compiles(self) -> None:
        """A compiled solve gives the states of an eager one."""
        if not self.compiles:
            raise SkipTest("compiles = False")
        stepper, x0 = self.made(), self.starts()[0]
        options: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-7} if stepper.error_order else {"controller": FixedStep()}

        def solve(x0: Tensor, times: Tensor) -> Tensor:
            found: Tensor = self.solve(stepper, self.problem, x0, times, **options).x
            return found

        with torch.no_grad():
            expected = solve(x0, self.numbers(GRID))
            found = torch.compile(solve, fullgraph=True)(x0, self.numbers(GRID))
        expect_close(found, expected, 1e-10, "expected a compiled solve to give the states of an eager one")

    def _check_imaginary_part(self, stepper: Stepper, t0: Scalar, t1: Scalar, x: Tensor) -> None:
        """A small imaginary part of a state grows as a small difference of real ones does."""
        h = 1e-6
        up, down, off = (self.single_step(stepper, self.problem, t0, t1, x + d).step.x for d in (h, -h, 1j * h))
        sentence = "step: expected the imaginary part of a complex state to change with the real part"
        expect_close(off.imag / h, (up - down) / (2 * h), 1e-6, sentence)

    def _check_order(self, reverse: bool) -> None:
        stepper = self.made()
        problem, x0, start, end = self.measured_on(stepper, stepper.order, reverse)

        def error(steps: int) -> float:
            grid = evenly(start, end, steps)
            x = torch.stack([taken.step.x for taken in self.walk(stepper, problem, grid, x0, complete=False)])
            return (x - problem.exact(self.numbers(grid[1:]), start, x0)).abs().max().item()

        with torch.no_grad():
            found = measured_order(error, self.most_steps)
        expect(
            abs(found - stepper.order) <= margin(stepper.order),
            f"order: measured {found:.2f} {'reversed' if reverse else 'forward'} in time, expected {stepper.order} +- "
            f"{margin(stepper.order)}; is every evaluation at its own time?",
        )

    def _with_estimate(self) -> tuple[Stepper, int]:
        stepper = self.made()
        if stepper.error_order is None:
            raise SkipTest("the method has no error estimate")
        return stepper, stepper.error_order

    def _states(self, **options: Any) -> Callable[[Stepper, FlatField, Tensor], Tensor]:
        """The states of a solve, as a function of method, field and start."""

        def solve(stepper: Stepper, f: FlatField, x0: Tensor) -> Tensor:
            x: Tensor = self.solve(stepper, f, x0, GRID, **options).x
            return x

        return solve

    def _check_gradients(self, what: str, measure: Callable[[Stepper, FlatField, Tensor], Any]) -> None:
        if not self.differentiable:
            raise SkipTest("differentiable = False")
        stepper = self.made().to(torch.float64)
        rate = torch.ones((), dtype=torch.float64, device=self.device)
        inputs = {"x0": self.starts()[0], "a factor of f": rate, **dict(stepper.named_parameters())}
        weights = torch.linspace(1, 2, len(inputs["x0"]), dtype=torch.float64, device=self.device)

        def loss() -> Tensor:
            found: Tensor = measure(stepper, lambda *at: rate * self.problem(*at), inputs["x0"])
            return (found.sin() * weights).sum()

        check_gradients(what, loss, inputs)


def _results(step: Step) -> list[Tensor]:
    """The new state, and the error where there is one."""
    return [step.x] if step.error is None else [step.x, step.error]


def _kind(x: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return x.shape, x.dtype, x.device
