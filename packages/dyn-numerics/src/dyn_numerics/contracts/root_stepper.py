"""What every iterative method for roots promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, ClassVar
from unittest import SkipTest

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_structure

from dyn_numerics.contracts.copies import copies
from dyn_numerics.contracts.expectation import expect, expect_close
from dyn_numerics.contracts.finite_differences import check_gradients
from dyn_numerics.contracts.reference_system import ReferenceSystem
from dyn_numerics.contracts.sine_system import SineSystem
from dyn_numerics.contracts.structure import structure, tensors
from dyn_numerics.contracts.watched_root_stepper import WatchedRootStepper
from dyn_numerics.root.root_find import root_find
from dyn_numerics.root.root_solution import RootSolution
from dyn_numerics.root.root_status import RootStatus
from dyn_numerics.root.root_stepper import RootStepper

__all__ = ["RootStepperContract"]

TOLERANCE = 1e-10
SOLVABLE, ROOTLESS, NAN, NAN_ELSEWHERE = range(4)


class RootStepperContract:
    """Tests of a method for `root_find` and `fixed_point`.

    What the method says of itself counts: gradients are tested if it is `differentiable`, line searches if it `searches`,
    complex numbers if it `takes_complex`.

    Attributes:
        problem: Equations that the method solves; set others for a method that solves those of one kind only.
        dtypes: Dtypes of the iterates that it takes.
        device: Where it is tested.
        reads: Whether its steps read tensors on the host, as loops within a step do. On a GPU each such read waits for all
            that was launched before.
        compiles: Whether it is to be tested inside `torch.compile(fullgraph=True)`, which takes many seconds and a torch
            that compiles solves.

    Example:
        >>> from dyn_numerics import Anderson
        >>> from dyn_numerics.contracts import RootStepperContract
        >>> class TestAnderson(RootStepperContract):
        ...     def make(self):
        ...         return Anderson(m=3)
        >>> TestAnderson().test_finds_the_root_of_every_sample()
    """

    problem: ReferenceSystem = SineSystem()
    dtypes: ClassVar[Sequence[torch.dtype]] = (torch.float64, torch.float32, torch.complex128)
    device: str = "cpu"
    reads: bool = False
    compiles: bool = False

    def make(self) -> RootStepper:
        """Makes the method under test, in the same state every time."""
        raise NotImplementedError(
            f"{type(self).__name__}.make: expected a method that returns the root stepper to test"
        )

    def made(self) -> RootStepper:
        """The method under test, on the device."""
        return self.make().to(self.device)

    def starts(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Starts of the problem, `[batch, N]`; complex ones are off the real axis."""
        z = torch.tensor(self.problem.starts, dtype=torch.float64, device=self.device)
        return (z * (1 + 0.1j)).to(dtype) if dtype.is_complex else z.to(dtype)

    def test_finds_the_root_of_every_sample(self) -> None:
        """Every search ends at the root, in every dtype, and says so."""
        stepper = self.made()
        for dtype in self._dtypes(stepper):
            z0, tolerance = self.starts(dtype), _tolerance(dtype)
            found = _search(self.problem, z0, stepper, rtol=tolerance, atol=tolerance)
            expect(
                bool(found.converged.all()),
                f"step: searches in {dtype} ended with {[status.name for status in found.status]}, expected them to "
                f"converge to {tolerance:.0e}; is it a method for problem?",
            )
            sentence = f"step: expected the search to end at the root, in {dtype}"
            expect_close(found.z, self.problem.root(z0), 10 * tolerance, sentence)

    def test_starts_at_a_state_like_the_users(self) -> None:
        """`start` returns a state like the one that it is handed, the same each time."""
        stepper = self.made()
        for dtype in self._dtypes(stepper):
            z0 = self.starts(dtype)
            with torch.no_grad():
                start, again = stepper.start(z0), stepper.start(z0)
            expect(structure(start) == structure(z0), f"start: got {structure(start)}, expected {structure(z0)} as z0")
            expect_close(again, start, 0.0, "start: expected the same start for the same z0")

    def test_leaves_what_it_is_handed_alone(self) -> None:
        """Neither `init` nor a step writes into an iterate or a residual, now or later; only into its `carry`."""
        watched = self._watched(self.starts())
        for tensor, before in watched.given:
            sentence = (
                "step: wrote into the iterate or the residual that it was handed, expected it to write into the carry "
            )
            expect_close(tensor, before, 0.0, f"{sentence}only; try a clone in init")

    def test_is_repeatable(self) -> None:
        """The same search gives the same bits, whatever was searched meanwhile."""
        stepper, z0 = self.made(), self.starts()
        first = _search(self.problem, z0, stepper)
        _search(self.problem, 1.5 * z0[:2], stepper)
        again = _search(self.problem, z0, stepper)
        sentence = "step: expected the same search to give the same result; what it remembers goes into its carry"
        _expect_same(_rows(again), _rows(first), 0.0, sentence)

    def test_follows_the_state(self) -> None:
        """What a step proposes has the shape, dtype and device of the iterate, or one entry for each sample."""
        stepper = self.made()
        for dtype in self._dtypes(stepper):
            for z, _, _, proposal in self._watched(self.starts(dtype)).steps:
                for name, tensor in (("z", proposal.z), ("value", proposal.value)):
                    expect(
                        tensor is None or _kind(tensor) == _kind(z),
                        f"proposal.{name}: got {tensor is not None and _kind(tensor)}, expected {_kind(z)} as the iterate; "
                        f"try parameter.to(z)",
                    )
                status = proposal.status
                expect(
                    status is None or (status.shape == z.shape[:1] and status.dtype == torch.int64),
                    f"proposal.status: got {None if status is None else structure(status)}, expected int64 codes of "
                    f"RootStatus, {list(z.shape[:1])}",
                )
                for leaf in tree_leaves(proposal.internals):
                    expect(
                        isinstance(leaf, Tensor) and leaf.shape[:1] == z.shape[:1],
                        f"proposal.internals: got {structure(leaf)} in it, expected tensors that lead with the batch, {len(z)}",
                    )

    def test_value_is_the_residual_of_the_proposal(self) -> None:
        """Where a method hands on the residual, it is that of where it goes, and no line search comes between."""
        watched = self._watched(self.starts())
        for _, _, _, proposal in watched.steps:
            if proposal.value is None:
                continue
            expect(
                not watched.searches,
                "searches: got True with a value in the proposal, which no line search can shorten; set searches = False, "
                "or leave the value out",
            )
            sentence = "proposal.value: expected the residual at proposal.z"
            expect_close(proposal.value, self.problem(proposal.z), 1e-13, sentence)

    def test_carry_keeps_its_structure(self) -> None:
        """What `init` makes and steps hand on has one structure; tensors in it lead with the batch, and all else stays."""
        z0 = self.starts()
        steps = self._watched(z0).steps
        first = steps[0].carry
        for step in steps:
            carry = step.proposal.carry
            expect(
                tree_structure(carry) == tree_structure(first) and structure(carry) == structure(first),
                f"carry: got {structure(carry)}, expected {structure(first)} as init makes it",
            )
            for leaf, made in zip(tree_leaves(carry), tree_leaves(first), strict=True):
                is_tensor = isinstance(leaf, Tensor)
                expect(
                    leaf.shape[:1] == z0.shape[:1] if is_tensor else leaf == made,
                    f"carry: got {structure(leaf) if is_tensor else leaf} in it, expected tensors that lead with the batch, "
                    f"{len(z0)}, and no other value that changes; steps are counted by context.n_steps",
                )

    def test_rows_do_not_meet(self) -> None:
        """The result of a sample is the same to the bit, wherever it stands in the batch."""
        stepper, z0 = self.made(), self.starts()
        order = torch.arange(len(z0), device=z0.device).roll(1).flip(0)
        for line_search, max_steps in product(
            _line_searches(stepper), (2, 200)
        ):  # at the root rounding may be forgotten
            options: dict[str, Any] = {"line_search": line_search, "max_steps": max_steps}
            there = _search(self.problem, z0[order], stepper, **options)
            here = _search(self.problem, z0, stepper, **options)
            sentence = "step: expected the same bits wherever a sample stands; reduce over dim=-1 only"
            _expect_same(_rows(there), _rows(here, order), 0.0, sentence)

    def test_a_sample_alone_is_as_in_a_batch(self) -> None:
        """A sample takes the same steps alone as in a batch of a thousand."""
        stepper, starts = self.made(), self.starts()
        z0 = starts.repeat(1000 // len(starts), 1)
        batch = _search(self.problem, z0, stepper)
        for i in range(len(starts)):
            place = torch.tensor([len(z0) - 1 - i], device=z0.device)
            alone = _search(self.problem, z0[place], stepper)
            sentence = "step: expected a sample alone to be searched for as in a batch, up to rounding"
            _expect_same(_rows(alone), _rows(batch, place), 1e-12, sentence)

    def test_failing_neighbours_change_nothing(self) -> None:
        """Beside samples without a root, that are not finite, or that have ended, a search finds the same bits."""
        stepper, starts = self.made(), self.starts()
        root = self.problem.root(starts[:1])
        z0 = torch.cat([starts[:1], starts[:1], starts[:1], starts[:1], root, starts[-1:]])
        kinds = [SOLVABLE, ROOTLESS, NAN, NAN_ELSEWHERE, SOLVABLE, SOLVABLE]
        good = torch.tensor([0, 4, 5], device=z0.device)
        for line_search in _line_searches(stepper):
            expected = _search(self._mixed(z0, [SOLVABLE] * 6), z0, stepper, line_search=line_search)
            found = _search(self._mixed(z0, kinds), z0, stepper, line_search=line_search)
            sentence = "step: expected samples to be searched for as if their neighbours had not failed"
            _expect_same(_rows(found, good), _rows(expected, good), 0.0, sentence)
            status = [found.status[i] for i in (1, 2, 3)]
            expect(
                RootStatus.CONVERGED not in status,
                f"step: samples without a root ended with {[each.name for each in status]}, expected that none converged",
            )

    def test_counts_its_evaluations(self) -> None:
        """`n_evals` of its proposals and the statistics agree with a counter inside `f`."""
        stepper = self.made()
        for _ in range(2):
            watched, counted = WatchedRootStepper(stepper), _Counted(self.problem)
            found = _search(counted, self.starts(), watched)
            n_evals = 1 + sum(
                int(step.proposal.n_evals) + (step.proposal.value is None) for step in watched.steps
            )  # at the start, in steps, and where they lead
            for name, count in (("proposal.n_evals", n_evals), ("stats.n_evals", found.stats.n_evals.item())):
                expect(
                    count == counted.calls,
                    f"{name}: counts {count} in all where f was called {counted.calls} times, expected as many; call the "
                    f"f that step is handed, and keep none",
                )

    def test_leaves_the_host_alone(self) -> None:
        """No step reads a tensor on the host."""
        if self.reads:
            raise SkipTest("reads = True")
        found = self._watched(self.starts()).reads
        expect(
            not found,
            f"step: read tensors on the host by {', '.join(sorted(set(found)))}, expected no such operation, for which a "
            f"GPU waits; try torch.where, or functions whose names end in _ex",
        )

    def test_compact_finds_the_same(self) -> None:
        """Searches from which ended samples leave find the same."""
        stepper, starts = self.made(), self.starts()
        z0 = torch.cat([starts, self.problem.root(starts)])
        expected = _search(self.problem, z0, stepper)
        found = _search(self.problem, z0, stepper, compact=True)
        sentence = "step: expected compact=True to change nothing; size what you make by the iterate"
        _expect_same(_rows(found), _rows(expected), 1e-12, sentence)

    def test_takes_states_of_any_shape(self) -> None:
        """A state of several dimensions and a pytree of two tensors are searched for as a vector is."""
        stepper, z0 = self.made(), self.starts()
        expected = _search(self.problem, z0, stepper).z

        def joined(state: Any) -> Tensor:
            return torch.cat([state["rest"], state["first"].unsqueeze(-1)], dim=-1).roll(1, dims=-1)

        def split(z: Tensor) -> dict[str, Tensor]:
            return {"rest": z[:, 1:], "first": z[:, 0]}

        deep = _search(lambda z: self.problem(z.flatten(1)).reshape(z.shape), z0.unsqueeze(1), stepper).z
        tree = _search(lambda state: split(self.problem(joined(state))), split(z0), stepper).z
        for kind, found in (("[batch, 1, N]", deep.flatten(1)), ("a dictionary", joined(tree))):
            sentence = f"step: expected a state that is {kind} to be searched for as a vector is"
            expect_close(found, expected, 10 * TOLERANCE, sentence)

    def test_follows_grad_mode(self) -> None:
        """Under `torch.no_grad` nothing has a gradient."""
        for _, _, _, proposal in self._watched(self.starts().requires_grad_()).steps:
            expect(
                not any(tensor.requires_grad for tensor in tensors((proposal.z, proposal.value))),
                "step: proposed a tensor with a gradient under torch.no_grad, expected none; do not switch gradients on",
            )

    def test_gradients_through_its_steps(self) -> None:
        """Gradients to the start, to the problem and to its own parameters equal finite differences."""
        stepper = self.made().to(torch.float64)
        if not stepper.differentiable:
            raise SkipTest("differentiable = False")
        z0 = self.starts()
        shift = torch.full_like(z0[0], 0.01)
        weights = torch.linspace(1, 2, z0.shape[-1], dtype=torch.float64, device=self.device)
        inputs = {"z0": z0, "what f adds": shift, **dict(stepper.named_parameters())}
        for n_steps in (1, 3):

            def loss(n_steps: int = n_steps) -> Tensor:
                options: dict[str, Any] = {"rtol": 1e-15, "atol": 0.0, "max_steps": n_steps, "throw": False}
                z: Tensor = root_find(lambda z: self.problem(z) + shift, z0, solver=stepper, **options).z
                return (z.sin() * weights).sum()

            check_gradients(f"step, taken {n_steps} times", loss, inputs)

    def test_vmap(self) -> None:
        """Under `torch.func.vmap` every problem is solved as alone."""
        stepper = self.made()
        z0 = self.starts()
        shifts = torch.tensor([0.0, 0.01, -0.02], dtype=torch.float64, device=self.device)

        def solve(shift: Tensor) -> Tensor:
            z: Tensor = _search(lambda z: self.problem(z) + shift, z0, stepper).z
            return z

        found, expected = torch.func.vmap(solve)(shifts), torch.stack([solve(shift) for shift in shifts])
        expect_close(
            found, expected, 10 * TOLERANCE, "step: expected each lane of torch.func.vmap to be solved as alone"
        )

    def test_copies_step_alike(self) -> None:
        """A deep copy, a pickled one and one that loads its `state_dict` take the same steps, to the bit."""
        stepper, z0 = self.made(), self.starts()
        expected = _search(self.problem, z0, stepper)
        for name, other in copies(stepper, self.made()).items():
            sentence = f"expected {name} to step as the method does"
            _expect_same(_rows(_search(self.problem, z0, other)), _rows(expected), 0.0, sentence)

    def test_compiles(self) -> None:
        """A compiled search finds what an eager one does, at the same price."""
        if not self.compiles:
            raise SkipTest("compiles = False")
        stepper, z0 = self.made(), self.starts()

        def solve(z0: Tensor) -> RootSolution:
            return _search(self.problem, z0, stepper)

        expected = solve(z0)
        found = torch.compile(solve, fullgraph=True)(z0)
        _expect_same(
            _rows(found), _rows(expected), TOLERANCE, "expected a compiled search to find what an eager one does"
        )
        counts = (found.stats.n_evals.item(), expected.stats.n_evals.item())
        expect(
            counts[0] == counts[1],
            f"proposal.n_evals: counts {counts[0]} in all inside torch.compile and {counts[1]} outside, expected as many",
        )

    def _dtypes(self, stepper: RootStepper) -> list[torch.dtype]:
        """The dtypes that the method takes."""
        return [dtype for dtype in self.dtypes if stepper.takes_complex or not dtype.is_complex]

    def _watched(self, z0: Tensor) -> WatchedRootStepper:
        """The method after a search."""
        watched = WatchedRootStepper(self.made())
        _search(self.problem, z0, watched, rtol=_tolerance(z0.dtype), max_steps=20)
        expect(watched.steps, "step: was never called, expected starts to be no solution")
        return watched

    def _mixed(self, z0: Tensor, kinds: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """The problem, spoiled for some of the samples."""
        kind = torch.tensor(kinds, device=z0.device).unsqueeze(-1)

        def f(z: Tensor) -> Tensor:
            value = self.problem(z)
            value = torch.where(kind == ROOTLESS, 1 + value * value, value)
            elsewhere = (kind == NAN_ELSEWHERE) & (z != z0).any(dim=-1, keepdim=True)
            return torch.where((kind == NAN) | elsewhere, torch.nan, value)

        return f


class _Counted:
    """Counts the calls of a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self.calls = 0

    def __call__(self, z: Tensor) -> Tensor:
        self.calls += 1
        return self._function(z)


def _tolerance(dtype: torch.dtype) -> float:
    """A tolerance that every method reaches."""
    return float(torch.finfo(dtype).eps ** 0.75)


def _search(f: Callable[[Any], Any], z0: Any, stepper: RootStepper, **options: Any) -> RootSolution:
    """A search without gradient, with whatever end."""
    options = {"rtol": TOLERANCE, "atol": TOLERANCE, **options}
    with torch.no_grad():
        return root_find(f, z0, solver=stepper, throw=False, **options)


def _line_searches(stepper: RootStepper) -> list[str | None]:
    return [None, "armijo"] if stepper.searches else [None]


def _rows(found: RootSolution, samples: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Iterates, steps and status, of some of the samples or of all."""
    parts = found.z, found.stats.n_steps, found.status_code
    return parts if samples is None else tuple(part[samples] for part in parts)  # type: ignore[return-value]


def _expect_same(found: Sequence[Tensor], expected: Sequence[Tensor], atol: float, sentence: str) -> None:
    """Expects searches to have found the same iterates in the same steps, with the same status."""
    __tracebackhide__ = True
    for tolerance, one, other in zip((atol, 0.0, 0.0), found, expected, strict=True):
        expect_close(one, other, tolerance, sentence)


def _kind(z: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return z.shape, z.dtype, z.device
