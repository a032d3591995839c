"""A choice of algorithm for the gradient of a solve, and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import comb, inf, isnan
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from dyn_numerics.arguments import extra_arguments, positive
from dyn_sensitivity.declared_tensors import declared_tensors
from dyn_sensitivity.ode.algorithm import SensitivityAlgorithm
from dyn_sensitivity.ode.backward_solve import MOST_DRIFT
from dyn_sensitivity.ode.odeint import ALGORITHMS, odeint
from dyn_sensitivity.problem_survey import ProblemSurvey, survey

__all__ = ["Recommendation", "recommend"]

FEW_INPUTS = 16  # for each of which forward mode solves for a tangent
FEW_REPETITIONS = 4  # of a step, for a gradient that is exact
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class Candidate:
    """An algorithm, whether it is fit for the problem as far as figures tell, what it promises, and these figures."""

    name: str
    fits: bool
    promise: str
    figures: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """What speaks for it."""
        return f"{self.promise}; {self.figures}"

    @property
    def sensitivity(self) -> SensitivityAlgorithm:
        """The algorithm with its settings."""
        return ALGORITHMS[self.name](**self.settings)


@dataclass(frozen=True)
class Recommendation:
    """An algorithm for a gradient, and what speaks for it; prints as an explanation.

    Attributes:
        name: Name of the algorithm.
        sensitivity: The algorithm with its settings, for `odeint(..., sensitivity=...)`.
        reason: Why this one.
        others: Why not those before it, by name.
        hints: What a change of method would bring.
        survey: The figures that all of it rests on.
        memory: Bytes that the gradient may take.
    """

    name: str
    sensitivity: SensitivityAlgorithm
    reason: str
    others: dict[str, str]
    hints: tuple[str, ...]
    survey: ProblemSurvey
    memory: float

    def __str__(self) -> str:
        found = self.survey
        reach = "" if found.stiffness is None else f"; |eigenvalue| x step about {found.stiffness:.2g}"
        drift = "" if isnan(found.drift) else f"; solved back, it misses its start by {found.drift:.2g} tolerances"
        figures = [
            f"{found.n_steps} steps of {found.solver}{reach}",
            f"a state of {found.n_state} elements{drift}",
            f"{found.n_inputs} elements want a gradient",
            f'"autograd" keeps {_size(found.step_bytes)} a step, {_size(found.autograd_bytes)} in all, of {_size(self.memory)}',
        ]
        lines = [f"sensitivity={self.sensitivity!r}", f"  {self.reason}", "because"]
        lines += [f"  {figure}" for figure in figures]
        for title, sentences in (("not", [f"{n}: {why}" for n, why in self.others.items()]), ("consider", self.hints)):
            lines += [title, *(f"  {sentence}" for sentence in sentences)] if sentences else []
        return "\n".join(lines)


def recommend(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    *,
    memory: float | None = None,
    args: Sequence[Any] = (),
    params: Sequence[Tensor] = (),
    **options: Any,
) -> Recommendation:
    """Chooses an algorithm for the gradient of a solve, from what the solve is like.

    The problem is solved once without gradient, once back to its start, and over a few steps with gradient. Of the algorithms
    that fit into the memory, an exact one is taken before an approximate one, and the one with less work before the others.

    Args:
        f: Vector field, as in `dyn_sensitivity.odeint`.
        x0: Initial state, as there.
        t_span: Output times, as there.
        memory: Bytes that the gradient may take; half of what a GPU has free, or the machine has, when None.
        args: Further arguments of `f`.
        params: Tensors that `f` captures and that want gradients.
        **options: Everything else that `odeint` takes.

    Returns:
        The algorithm, ready for use, and the reasons; prints as an explanation.

    Raises:
        SolverError: If the solve does not reach its end, but for a suspicion of stiffness.
        TypeError: If the memory is no number, or the params are no tensors.
        ValueError: If nothing requires a gradient, the span has no length, or the memory is not positive.

    Example:
        >>> import torch
        >>> from dyn_sensitivity import recommend
        >>> net, x0 = torch.nn.Linear(2, 2), torch.ones(5, 2)
        >>> recommend(lambda t, x: net(x), x0, [0.0, 1.0], memory=1e9).name
        'autograd'
    """
    room = (
        _half_the_memory(tree_leaves(x0)[0].device)
        if memory is None
        else positive("memory", memory, "a positive number of bytes")
    )
    problem = {
        "f": f,
        "x0": x0,
        "t_span": t_span,
        "args": extra_arguments(args),
        "params": declared_tensors(params),
        **options,
    }
    found = survey(**problem)
    if found.failed_as_stiff:
        problem["solver"] = "auto"
    *candidates, last = _candidates(found, room)
    passed = {}
    for candidate in candidates:
        refusal = _refusal(candidate, problem, found.opening) if candidate.fits else candidate.figures
        if refusal is None:
            chosen = candidate
            break
        passed[candidate.name] = refusal
    else:
        chosen = last
    return Recommendation(
        name=chosen.name,
        sensitivity=chosen.sensitivity,
        reason=chosen.reason,
        others=passed,
        hints=_hints(found, chosen.name),
        survey=found,
        memory=room,
    )


def _candidates(found: ProblemSurvey, room: float) -> list[Candidate]:
    """The algorithms, the best first; the last one does for want of another.

    Args:
        found: Figures of the problem.
        room: Bytes that the gradient may take.
    """
    there = f"with room for {_size(room)}"
    link = max(2 * found.state_bytes, 1)  # a state, and the slope that most methods carry along
    budget = int(min(max((room - found.step_bytes) / link, 2), max(found.n_steps, 2)))
    passes = next(r for r in range(found.n_steps + 1) if comb(budget + r, r) >= found.n_steps) + 1
    checkpoint = Candidate(
        "checkpoint",
        found.step_bytes + 2 * link <= room and passes <= FEW_REPETITIONS,
        "exact",
        f"keeps {_size(found.step_bytes)} of a step, stores {budget} states, {_size(budget * link)}, and takes each step up to {passes} times",
        {"budget": budget},
    )
    # What is solved back, or undone, where solutions approach each other, is soon somewhere else.
    tracks = found.drift <= MOST_DRIFT
    back = f"solved back, the state misses its start by {found.drift:.2g} tolerances"
    if isnan(found.drift):
        back = "nobody knows how well the state can be solved back"
    dense_bytes = found.n_steps * found.dense_bytes
    return [
        Candidate(
            "autograd",
            found.autograd_bytes <= room,
            "exact, takes no step again",
            f"keeps {_size(found.autograd_bytes)}, {there}",
        ),
        # Where nobody knows the drift, as beside events, the algorithm itself says whether it is one for the problem.
        Candidate("reversible", tracks or isnan(found.drift), "exact but for rounding, in constant memory", back),
        checkpoint,
        Candidate(
            "forward",
            found.n_inputs <= FEW_INPUTS,
            "exact, keeps the outputs' tangents alone",
            f"solves for one of each of {found.n_inputs} elements",
        ),
        Candidate("adjoint", tracks, "approximate, in constant memory", back),
        Candidate(
            # Stages of the backward solve hold as many elements as want a gradient, unless these are integrated on the side.
            "gauss" if found.n_inputs > found.n_state else "interpolated_adjoint",
            dense_bytes <= room,
            "approximate",
            f"keeps the dense solution, {_size(dense_bytes)}, {there}",
        ),
        checkpoint,
    ]


def _refusal(candidate: Candidate, problem: dict[str, Any], opening: Tensor) -> str | None:
    """The sentence by which an algorithm refuses a problem, of which it is given the first step; None if it does not."""
    try:
        with torch.enable_grad():
            odeint(**{**problem, "t_span": opening, "sensitivity": candidate.sensitivity})
    except (TypeError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def _hints(found: ProblemSurvey, name: str) -> tuple[str, ...]:
    """What a change of method would bring."""
    hints = []
    if found.failed_as_stiff:
        hints.append('solver="auto": the solve failed, as a stiff one does; all figures are of this method')
    elif found.is_stiff:
        hints.append('solver="auto" or "kvaerno5": stability decides about the steps, not the tolerance')
    elif found.drift <= MOST_DRIFT and name not in ("autograd", "reversible"):
        hints.append(
            'solver=ReversibleRungeKutta("tsit5"): undoes its steps, for "reversible", exact in constant memory'
        )
    return tuple(hints)


def _half_the_memory(device: torch.device) -> float:
    """Half of what a GPU has free, or of what the machine has, in bytes; no bound where nobody can tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (AttributeError, ValueError):  # a system that does not tell
        return inf


def _size(n_bytes: float) -> str:
    """Bytes, to be read: `12 kB`."""
    unit, name = next(((u, n) for u, n in UNITS if n_bytes >= u), (1.0, "B"))
    return f"{n_bytes / unit:.3g} {name}"
