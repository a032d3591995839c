"""What every line search promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dyn_numerics.batch import take_rows
from dyn_numerics.contracts.copies import copies
from dyn_numerics.contracts.expectation import expect, expect_close
from dyn_numerics.contracts.finite_differences import check_gradients
from dyn_numerics.contracts.reference_system import ReferenceSystem
from dyn_numerics.contracts.sine_system import SineSystem
from dyn_numerics.contracts.watched_root_stepper import WatchedRootStepper
from dyn_numerics.norms import rms_norm
from dyn_numerics.root.fixed_point_iteration import FixedPointIteration
from dyn_numerics.root.line_search import LineSearch, Searched
from dyn_numerics.root.newton import Newton
from dyn_numerics.root.root_find import root_find
from dyn_numerics.root.root_stepper import Context, FlatFunction

__all__ = ["LineSearchContract"]

FAR = [[0.5, 0.2], [2.0, -1.0], [3.0, 2.0], [1.5, -3.0], [-4.0, 1.0], [-2.0, -2.5]]
"""Starts, from most of which whole steps of Newton's method for `arctan z = 0` lead away."""


class _Way(NamedTuple):
    """What a line search is asked.

    Attributes:
        z: Iterate, `[batch, N]`.
        direction: Where a method wants to go, `[batch, N]`.
        context: What is known of the iterate.
    """

    z: Tensor
    direction: Tensor
    context: Context


class LineSearchContract:
    """Tests of a line search, on steps of Newton's method for `arctan z = 0` that are too long.

    Attributes:
        problem: Equations along whose residual the first length that is tried is accepted, so that gradients can be compared
            with finite differences: what a length depends on that is found by trial has none.
        dtypes: Dtypes of the iterates that it takes.
        device: Where it is tested.

    Example:
        >>> from dyn_numerics import Armijo
        >>> from dyn_numerics.contracts import LineSearchContract
        >>> class TestArmijo(LineSearchContract):
        ...     def make(self):
        ...         return Armijo()
        >>> TestArmijo().test_leads_to_the_root_from_afar()
    """

    problem: ReferenceSystem = SineSystem()
    dtypes: ClassVar[Sequence[torch.dtype]] = (torch.float64, torch.float32, torch.complex128)
    device: str = "cpu"

    def make(self) -> LineSearch:
        """Makes the line search under test, in the same state every time."""
        raise NotImplementedError(f"{type(self).__name__}.make: expected a method that returns the line search to test")

    def made(self) -> LineSearch:
        """The line search under test, on the device."""
        return self.make().to(self.device)

    def test_leads_to_the_root_from_afar(self) -> None:
        """Newton's method finds the root from starts from which it diverges by itself."""
        search = self.made()
        for dtype in self.dtypes:
            with torch.no_grad():
                found = root_find(torch.atan, self._far(dtype), solver=Newton(), line_search=search, throw=False)
            expect(
                bool(found.converged.all()),
                f"accepts: searches in {dtype} ended with {[status.name for status in found.status]}, expected them to "
                f"converge; is some length accepted wherever the residual falls?",
            )

    def test_residuals_fall(self) -> None:
        """The residual of every sample is smaller than before, or the sample stays where it was."""
        for way, found in self._answers():
            norm = rms_norm(torch.atan(found.z), dim=-1)
            stays = (found.z == way.z).all(dim=-1)
            expect(
                bool(((norm < way.context.norm) | stays).all()),
                f"search: led from residuals of {way.context.norm.tolist()} to {norm.tolist()}, expected smaller ones, or "
                f"samples that stay; override first_length, accepts and next_length, not search",
            )

    def test_goes_along_the_step(self) -> None:
        """It shortens or lengthens the step, and goes nowhere else; what it returns is like the iterate."""
        for way, found in self._answers():
            moved = found.z - way.z
            along = (way.direction.conj() * moved).sum(dim=-1).real / way.direction.abs().square().sum(dim=-1)
            expect(bool((along >= 0).all()), f"search: went {along.tolist()} times the steps, expected no less than 0")
            rounding = 100 * torch.finfo(way.z.dtype).eps * way.z.abs().max().item()
            sentence = "search: expected z + length * direction, with one length for each sample"
            expect_close(found.z, way.z + along.unsqueeze(-1) * way.direction, rounding, sentence)

    def test_value_is_the_residual(self) -> None:
        """It hands on the residual of where it leads."""
        for way, found in self._answers():
            rounding = 10 * torch.finfo(way.z.dtype).eps
            expect_close(found.value, torch.atan(found.z), rounding, "searched.value: expected the residual at z")

    def test_counts_its_evaluations(self) -> None:
        """`n_evals` equals a counter inside `f`, and is at most `max_trials`."""
        search = self.made()
        for way in self._ways(torch.float64):
            calls = 0

            def f(z: Tensor) -> Tensor:
                nonlocal calls
                calls += 1
                return torch.atan(z)

            n_evals = _answer(search, way, f).n_evals
            expect(
                n_evals == calls <= search.max_trials,
                f"searched.n_evals: got {n_evals} where f was called {calls} times, expected as many, and at most "
                f"max_trials, {search.max_trials}",
            )

    def test_a_sample_with_nowhere_to_go_stays(self) -> None:
        """So does one whose step is not finite, or leads up or where `f` is not; others do not notice."""
        search = self.made()
        for way in self._ways(torch.float64):
            expected = _answer(search, way)
            direction = way.direction.clone()
            direction[1] *= -1
            direction[2] = 0
            direction[3], direction[4, 0] = torch.inf, torch.nan
            start = way.z[5]

            def f(z: Tensor, start: Tensor = start) -> Tensor:
                value = torch.atan(z)
                value[5] = torch.where(z[5] == start, value[5], torch.nan)
                return value

            found = _answer(search, way._replace(direction=direction), f)
            sentence = "search: expected samples without a smaller residual along their steps to stay where they are"
            expect_close(found.z[1:], way.z[1:], 0.0, sentence)
            expect_close(found.value[1:], way.context.value[1:], 0.0, f"{sentence}, with their residuals")
            sentence = "search: expected a sample to go as far as if its neighbours had somewhere to go"
            expect_close(found.z[0], expected.z[0], 0.0, sentence)

    def test_rows_do_not_meet(self) -> None:
        """How far a sample goes is the same to the bit, wherever it stands in the batch."""
        search, order = self.made(), torch.arange(len(FAR), device=self.device).roll(1).flip(0)
        for way in self._ways(torch.float64):
            found, expected = _answer(search, take_rows(way, order)), _answer(search, way)
            sentence = "search: expected the same bits wherever a sample stands; reduce over dim=-1 only"
            expect_close(found.z, expected.z[order], 0.0, sentence)

    def test_gradients(self) -> None:
        """Gradients to the start, to the problem and to its own parameters equal finite differences."""
        search = self.made().to(torch.float64)
        z0 = torch.tensor(self.problem.starts, dtype=torch.float64, device=self.device)
        shift = torch.full_like(z0[0], 0.01)
        options: dict[str, Any] = {"rtol": 1e-15, "atol": 0.0, "max_steps": 2, "throw": False}

        def loss() -> Tensor:
            z: Tensor = root_find(
                lambda z: self.problem(z) + shift, z0, solver=FixedPointIteration(), line_search=search, **options
            ).z
            return z.sin().sum()

        check_gradients("search", loss, {"z0": z0, "what f adds": shift, **dict(search.named_parameters())})

    def test_copies_search_alike(self) -> None:
        """A deep copy, a pickled one and one that loads its `state_dict` go as far, to the bit."""
        search = self.made()
        others = copies(search, self.made())
        for way in self._ways(torch.float64):
            expected = _answer(search, way).z
            for name, other in others.items():
                expect_close(_answer(other, way).z, expected, 0.0, f"expected {name} to go as far as the search does")

    def _far(self, dtype: torch.dtype) -> Tensor:
        z = torch.tensor(FAR, dtype=torch.float64, device=self.device)
        return (z * (1 + 0.1j)).to(dtype) if dtype.is_complex else z.to(dtype)

    def _ways(self, dtype: torch.dtype) -> list[_Way]:
        """The first steps of Newton's method from afar."""
        watched = WatchedRootStepper(Newton())
        with torch.no_grad():
            root_find(torch.atan, self._far(dtype), solver=watched, line_search="armijo", max_steps=3, throw=False)
        return [_Way(step.z, step.proposal.z - step.z, step.context) for step in watched.steps]

    def _answers(self) -> list[tuple[_Way, Searched]]:
        """What is asked, and where the line search leads, in every dtype."""
        search = self.made()
        return [(way, _answer(search, way)) for dtype in self.dtypes for way in self._ways(dtype)]


def _answer(search: LineSearch, way: _Way, f: FlatFunction = torch.atan) -> Searched:
    with torch.no_grad():
        return search.search(f, way.z, way.direction, way.context)
