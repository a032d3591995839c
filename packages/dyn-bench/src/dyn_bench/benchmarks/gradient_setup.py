"""What gradients are measured on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALGORITHM_TABLE", "GRADIENT_MEMORY", "SEMINORM", "MemorySetup", "SeminormSetup", "TableSetup"]


@dataclass(frozen=True)
class SeminormSetup:
    """The settings of adjoints whose parameters steer their steps, or do not.

    Args:
        networks: Number of networks; a few steps more or less would make too much of one.
        size: Number of elements of a state.
        width: Width of the networks' hidden layer.
        end: End of the solve, which starts at 0.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
    """

    networks: int = 10
    size: int = 4
    width: int = 64
    end: float = 10.0
    rtol: float = 1e-3
    atol: float = 1e-6


@dataclass(frozen=True)
class MemorySetup:
    """The settings of solves that are weighed.

    Args:
        elements: Number of elements of the state.
        steps: Numbers of fixed steps.
        budget: Number of states that a checkpointed gradient may store.
        reversible: Names of methods that undo their steps, beside a reversible one of `rk4`.
    """

    elements: int = 1000
    steps: tuple[int, int, int] = (50, 500, 5000)
    budget: int = 20
    reversible: tuple[str, ...] = ("reversible_heun", "alf")


@dataclass(frozen=True)
class TableSetup:
    """The settings of one problem for every algorithm.

    Args:
        batch: Number of initial states.
        end: End of the solve, which starts at 0.
        tolerance: Relative and absolute tolerance.
        drag: Rate at which velocities of the problem with friction approach each other.
        repeats: How often each gradient is timed.
        seed: Seed of the initial states.
    """

    batch: int = 256
    end: float = 10.0
    tolerance: float = 1e-6
    drag: float = 2.0
    repeats: int = 5
    seed: int = 0


SEMINORM = SeminormSetup()
"""The adjoint in the benchmark."""

GRADIENT_MEMORY = MemorySetup()
"""The solves that are weighed in the benchmark."""

ALGORITHM_TABLE = TableSetup()
"""The problems for every algorithm in the benchmark."""
