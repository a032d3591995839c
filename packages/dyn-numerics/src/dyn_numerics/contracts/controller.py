"""What every step-size controller promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import inf
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from dyn_numerics.contracts.copies import copies
from dyn_numerics.contracts.expectation import expect, expect_close
from dyn_numerics.contracts.structure import structure
from dyn_numerics.ode.controllers.controller import Controller, Verdict
from dyn_numerics.ode.odeint import odeint
from dyn_numerics.status import Status

__all__ = ["ControllerContract"]

HISTORIES = [(0.5, 0.2), (1e-12, 0.9), (7.0, 0.3), (0.3, 7.0), (0.0, inf), (inf, 1e-12)]
ERRORS = [0.0, 1e-12, 0.3, 1.0, 1.001, 7.0, 1e30, inf]
RUNS = [(*history, error) for history, error in product(HISTORIES, ERRORS)]
"""Errors of attempts in a row, in units of the tolerance."""


class ControllerContract:
    """Tests of a controller.

    Attributes:
        error_order: Order of the error estimate that it is told of.
        solver: Method of the solves that it controls.
        device: Where it is tested.

    Example:
        >>> from dyn_numerics import PIDController
        >>> from dyn_numerics.contracts import ControllerContract
        >>> class TestPI(ControllerContract):
        ...     def make(self):
        ...         return PIDController(p=0.4, i=0.3)
        >>> TestPI().test_every_retry_is_shorter()
    """

    error_order: int = 4
    solver: str = "dopri5"
    device: str = "cpu"

    def make(self) -> Controller:
        """Makes the controller under test, in the same state every time."""
        raise NotImplementedError(f"{type(self).__name__}.make: expected a method that returns the controller to test")

    def made(self) -> Controller:
        """The controller under test, on the device."""
        return self.make().to(self.device)

    def test_every_factor_is_positive(self) -> None:
        """Whatever the error, the step is multiplied with a positive number."""
        for errors, verdict in self._verdicts(self.made()):
            expect(verdict.factor > 0, f"factor: got {verdict.factor} after errors {errors}, expected more than 0")

    def test_accepts_what_has_no_error(self) -> None:
        """An attempt whose error is 0 stands."""
        for errors, verdict in self._verdicts(self.made()):
            sentence = f"accept: got {verdict.accept} after errors {errors}, expected True where the last is 0"
            expect(errors[-1] > 0 or verdict.accept, sentence)

    def test_rejects_what_is_not_finite(self) -> None:
        """An attempt that was not finite, whose error is infinite, does not stand."""
        for errors, verdict in self._verdicts(self.made()):
            sentence = f"accept: got {verdict.accept} after errors {errors}, expected False where the last is infinite"
            expect(errors[-1] < inf or not verdict.accept, sentence)

    def test_every_retry_is_shorter(self) -> None:
        """After a rejection the step is multiplied with less than 1, or the same attempt would be made again."""
        controller = self.made()
        if not controller.adaptive:
            raise SkipTest("adaptive = False: a rejection ends the solve")
        for errors, verdict in self._verdicts(controller):
            sentence = f"factor: got {verdict.factor} after errors {errors}, the last rejected, expected less than 1"
            expect(verdict.accept or verdict.factor < 1, sentence)

    def test_is_pure(self) -> None:
        """The same error and memory give the same verdict, whatever was judged meanwhile."""
        controller = self.made()
        for errors in RUNS:
            memory = self._run(controller, errors[:-1])[-1].memory
            first = self._judge(controller, errors[-1], memory)
            for other in ERRORS:
                self._judge(controller, other, memory)
            again = self._judge(controller, errors[-1], memory)
            expect(
                _values(again) == _values(first),
                f"judge: got {again} after {first} for errors {errors} and one memory, expected the same; what it learns "
                f"from errors goes into its memory, not into attributes",
            )

    def test_memory_keeps_its_structure(self) -> None:
        """The memory after every attempt has the structure of that before the first, for numbers and for tensors."""
        controller = self.made()
        for lead in (None, ()):
            expected = structure(self._first_memory(controller, lead))
            for errors, verdict in self._verdicts(controller, lead):
                found = structure(verdict.memory)
                sentence = f"memory: got {found} after errors {errors}, expected {expected} as init makes it"
                expect(found == expected, sentence)

    def test_numbers_and_tensors_agree(self) -> None:
        """It judges tensors as it judges host numbers: solves per sample hand it tensors, joint ones numbers."""
        controller = self.made()
        numbers, on_tensors = self._verdicts(controller), self._verdicts(controller, ())
        for (errors, one), (_, other) in zip(numbers, on_tensors, strict=True):
            sentence = (
                f"judge: got {one} for numbers and {other} for tensors, of the errors {errors}, expected the same"
            )
            expect(bool(one.accept) == bool(other.accept), sentence)
            expect_close(self._tensor(other.factor), self._tensor(one.factor), 1e-12, sentence)

    def test_samples_do_not_meet(self) -> None:
        """On tensors `[batch]` every sample is judged alone: on its own errors, and to the bit wherever it stands."""
        controller = self.made()
        together, turned = self._judge_batch(controller, RUNS), self._judge_batch(controller, RUNS[::-1])
        for name, found, other in zip(("accept", "factor"), together, turned, strict=True):
            expect(torch.equal(found, other.flip(0)), f"{name}: expected the same bits wherever a sample stands")
        for errors, *judged in zip(RUNS, *together, strict=True):
            alone = self._run(controller, errors, ())[-1]
            for value, expected in zip(judged, (alone.accept, alone.factor), strict=True):
                sentence = f"judge: expected for a sample in a batch, with errors {errors}, the verdict on it alone"
                expect_close(self._tensor(value), self._tensor(expected), 1e-12, sentence)

    def test_gradients_are_finite(self) -> None:
        """Gradients of a factor are finite, at the errors 0 and infinity too, if the controller is differentiable."""
        controller = self.made()
        if not controller.differentiable:
            raise SkipTest("differentiable = False")
        for errors in RUNS:
            given = [self._tensor(error).requires_grad_() for error in errors]
            factor = self._run(controller, given)[-1].factor
            found = torch.autograd.grad(self._tensor(factor), [*given, *controller.parameters()], allow_unused=True)
            expect(
                all(gradient is None or bool(gradient.isfinite().all()) for gradient in found),
                f"factor: got a gradient that is not finite at errors {errors}, expected finite ones; clip an error "
                f"before anything else",
            )

    def test_solves_end(self) -> None:
        """Solves with rejected attempts reach their end, forward and reversed, jointly and per sample."""
        x0 = torch.tensor([[1.0], [0.1]], dtype=torch.float64, device=self.device)
        times = torch.linspace(0, 1, 21, dtype=torch.float64).tolist()

        def pulse(t: Tensor, x: Tensor) -> Tensor:
            return 50 * torch.exp(-((200 * (t - 0.4)) ** 2)) - x

        for stepping, t_span in product(("joint", "per_sample"), (times, times[::-1])):
            options: dict[str, Any] = {"solver": self.solver, "stepping": stepping, "max_steps": 1000, "throw": False}
            with torch.no_grad():
                solution = odeint(pulse, x0, t_span, controller=self.made(), **options)
            expect(
                bool((solution.status_code == Status.SUCCESS.code).all()),
                f"a {stepping} solve from {t_span[0]} to {t_span[-1]} ended with {solution.status}, expected it to succeed",
            )

    def test_copies_judge_alike(self) -> None:
        """A deep copy, a pickled one, one that loads its `state_dict` and one with another norm judge alike."""
        controller = self.made()
        others = {**copies(controller, self.made()), "one from with_norm": controller.with_norm(None)}
        for (name, other), errors in product(others.items(), RUNS):
            found, expected = self._run(other, errors)[-1], self._run(controller, errors)[-1]
            sentence = f"judge: got {found} for errors {errors} from {name}, expected {expected} as from the controller"
            expect(_values(found) == _values(expected), sentence)

    def _verdicts(
        self, controller: Controller, lead: tuple[int, ...] | None = None
    ) -> Iterator[tuple[tuple[float, ...], Verdict]]:
        """Errors in a row, and the verdict on the last."""
        for errors in RUNS:
            for i, verdict in enumerate(self._run(controller, errors, lead), start=1):
                yield errors[:i], verdict

    def _run(self, controller: Controller, errors: Sequence[Any], lead: tuple[int, ...] | None = None) -> list[Verdict]:
        """The verdicts on attempts in a row, of tensors `lead`, or of what a joint solve hands over."""
        verdicts: list[Verdict] = []
        for error in errors:
            memory = verdicts[-1].memory if verdicts else self._first_memory(controller, lead)
            verdicts.append(self._judge(controller, error, memory, lead))
        return verdicts

    def _judge_batch(self, controller: Controller, runs: Sequence[tuple[float, ...]]) -> tuple[Tensor, Tensor]:
        """Whether the last attempts are accepted, and their factors, `[batch]`."""
        lead = (len(runs),)
        verdict = self._run(controller, list(zip(*runs, strict=True)), lead)[-1]
        return self._tensor(verdict.accept).expand(lead), self._tensor(verdict.factor).expand(lead)

    def _judge(self, controller: Controller, error: Any, memory: Any, lead: tuple[int, ...] | None = None) -> Verdict:
        on_tensors = controller.differentiable or lead is not None
        return controller.judge(self._tensor(error) if on_tensors else error, self.error_order, memory)

    def _first_memory(self, controller: Controller, lead: tuple[int, ...] | None) -> Any:
        memory = controller.init()
        return self._lifted(memory, lead or ()) if controller.differentiable or lead is not None else memory

    def _lifted(self, memory: Any, lead: tuple[int, ...]) -> Any:
        """The memory of several problems, a tensor `lead` for each number, as a solve makes it."""
        if isinstance(memory, tuple):
            parts = [self._lifted(part, lead) for part in memory]
            return type(memory)(*parts) if hasattr(memory, "_fields") else tuple(parts)
        if isinstance(memory, (bool, int, float)):
            dtype = torch.bool if isinstance(memory, bool) else torch.float64
            return torch.full(lead, memory, dtype=dtype, device=self.device)
        return memory

    def _tensor(self, value: Any) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=self.device)


def _values(value: Any) -> Any:
    """The numbers of a verdict, comparable."""
    if isinstance(value, tuple):
        return tuple(_values(part) for part in value)
    return value.tolist() if isinstance(value, Tensor) else value
