"""Solves that are as good as each other, whatever each of them makes of its tolerance."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from dyn_bench.protocols.solve import Solve, values_of
from dyn_numerics import SolverError

__all__ = ["loosest_solve", "loosest_tolerance"]


def loosest_solve(prepare: Callable[[float], Solve], tolerances: Sequence[float], bound: float) -> Solve:
    """Prepares a solve with the loosest of some tolerances at which all of its values are within a bound.

    Libraries hold their tolerances against different things, and return what is better than what they tested. Times and
    evaluations say nothing unless the errors are alike.

    Args:
        prepare: Prepares a solve at a tolerance; its values are errors, measured apart from it.
        tolerances: Tolerances, the loosest first. The last is taken where none other will do, even if it will not either:
            its values tell.
        bound: What no value may exceed.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.equal_error import loosest_solve
        >>> from dyn_bench.protocols.solve import Solve
        >>> careful = lambda tolerance: Solve(lambda: torch.tensor([tolerance / 3]), lambda error: error)
        >>> loosest_solve(careful, [0.4, 0.2, 0.1, 0.05], bound=0.1).run()
        tensor([0.0667])
    """
    return prepare(loosest_tolerance(prepare, tolerances, bound))


def loosest_tolerance(prepare: Callable[[float], Solve], tolerances: Sequence[float], bound: float) -> float:
    """The loosest of some tolerances at which all values of a solve are within a bound.

    It is of use where the solve that is to be measured is another with the same values: the compiled one of an eager one.

    Args:
        prepare: As for `loosest_solve`.
        tolerances: As there.
        bound: As there.

    Example:
        >>> import torch
        >>> from dyn_bench.protocols.equal_error import loosest_tolerance
        >>> from dyn_bench.protocols.solve import Solve
        >>> careful = lambda tolerance: Solve(lambda: torch.tensor([tolerance / 3]), lambda error: error)
        >>> loosest_tolerance(careful, [0.4, 0.2, 0.1, 0.05], bound=0.1)
        0.2
    """

    def reaches(tolerance: float) -> bool:
        try:
            return bool((values_of(prepare(tolerance)) <= bound).all())
        except SolverError:
            return False

    return tolerances[bisect_left(tolerances[:-1], True, key=reaches)]
