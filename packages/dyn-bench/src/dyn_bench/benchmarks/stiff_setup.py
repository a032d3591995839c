"""How large stiff problems are, and how they are solved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "CURVES",
    "GRID",
    "OSCILLATORS",
    "POLLU_ENSEMBLE",
    "ROBER_ENSEMBLE",
    "CurveSetup",
    "EnsembleSetup",
    "GridSetup",
    "OscillatorSetup",
]


@dataclass(frozen=True)
class EnsembleSetup:
    """The settings of a network of reactions whose rate constants differ from sample to sample.

    Args:
        title: What it is called.
        batch: Number of samples.
        end: End of the solve, which starts at 0.
        error: The largest error of a sample at the end, scaled as tolerances are.
        solver: This library's method.
        of_scipy: Which share of the time of SciPy it is to need at most.
        of_diffrax: Which share of that of diffrax.
        spread: By which share of themselves rate constants are perturbed at most.
        first_call_s: How many seconds the first call is to take at most.
        repeats: Rounds in which all solves are timed.
        seed: Seed of the rate constants.
    """

    title: str
    batch: int
    end: float
    error: float
    solver: str = "rodas5p"
    of_scipy: float = 1.0
    of_diffrax: float = 1.0
    spread: float = 0.2
    first_call_s: float = 60.0
    repeats: int = 3
    seed: int = 0


@dataclass(frozen=True)
class CurveSetup:
    """The settings of work and precision.

    Args:
        methods: This library's methods.
        counted: That of them whose evaluations and factorisations are held against SciPy's Radau.
        counted_error: At which error.
        loosest: Decimal exponent of the loosest relative tolerance.
        tightest: That of the tightest.
        per_decade: Tolerances in every decade.
        max_steps: Greatest number of steps: a solve that takes more is left out, and so are those at tighter tolerances.
    """

    methods: tuple[str, ...] = ("rosenbrock23", "rodas5p", "kvaerno3", "kvaerno5", "auto")
    counted: str = "rodas5p"
    counted_error: float = 1e-8
    loosest: float = -4.0
    tightest: float = -9.0
    per_decade: int = 1
    max_steps: int = 10_000

    @property
    def tolerances(self) -> list[float]:
        """The tolerances, the loosest first."""
        last = round((self.loosest - self.tightest) * self.per_decade)
        return [float(f"{10 ** (self.loosest - i / self.per_decade):.3g}") for i in range(last + 1)]


@dataclass(frozen=True)
class OscillatorSetup:
    """The settings of Van der Pol's oscillators, and how they are solved.

    Args:
        batch: Number of oscillators.
        mildest: Decimal exponent of the smallest `mu`.
        stiffest: That of the largest.
        end: End of the solve, which starts at 0.
        tolerance: Relative and absolute tolerance.
        explicit: Method for those that are not stiff.
        implicit: Method for those that are.
        automatic: The method that chooses.

    Example:
        >>> from dyn_bench.benchmarks.stiff_setup import OscillatorSetup
        >>> OscillatorSetup(batch=4).mu.tolist()
        [1.0, 10.0, 100.0, 1000.0]
    """

    batch: int = 64
    mildest: float = 0.0
    stiffest: float = 3.0
    end: float = 2000.0
    tolerance: float = 1e-6
    explicit: str = "dopri5"
    implicit: str = "rodas5p"
    automatic: str = "auto"

    @property
    def mu(self) -> Tensor:
        """The dampings, `[batch]`, evenly spaced on a logarithmic scale, float64."""
        return torch.logspace(self.mildest, self.stiffest, self.batch, dtype=torch.float64)


@dataclass(frozen=True)
class GridSetup:
    """The settings of a reaction with diffusion on a line, `Brusselator`.

    Args:
        points: Number of points of the timed solves.
        end: Their end; they start at 0.
        tolerance: Relative and absolute tolerance.
        weighed: Numbers of points whose solves are weighed.
        weighed_end: End of those.
        compiles: Whether solves are compiled too.
        repeats: Rounds in which the solves are timed.
    """

    points: int = 500
    end: float = 10.0
    tolerance: float = 1e-5
    weighed: tuple[int, ...] = (250, 500, 1000)
    weighed_end: float = 0.2
    compiles: bool = True
    repeats: int = 3


# The errors are those that SciPy's Radau and diffrax's Kvaerno5 make at a relative tolerance of 1e-6.
ROBER_ENSEMBLE = EnsembleSetup("1024 ROBER", 1024, end=1e4, error=2e-8, of_scipy=1 / 150, of_diffrax=1 / 8)
"""Robertson's reactions: three species, small matrices."""

POLLU_ENSEMBLE = EnsembleSetup("256 POLLU", 256, end=60.0, error=1e-7, of_scipy=1 / 20, of_diffrax=1.0)
"""Verwer's air pollution: twenty species."""

CURVES = CurveSetup()
"""Work and precision of all methods for stiff problems."""

OSCILLATORS = OscillatorSetup()
"""Van der Pol's oscillators in the benchmark."""

GRID = GridSetup()
"""The Brusselator in the benchmark."""
