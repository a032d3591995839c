"""Prothero and Robinson's problem, which shows what is left of a method's order when a problem is stiff."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["ProtheroRobinson"]


@dataclass(frozen=True, eq=False)
class ProtheroRobinson:
    """`x' = rate (x - sin t) + cos t`: a solution attracts its neighbours, the faster the stiffer.

    Args:
        rate: Negative for a problem that is stable, per unit of time: a number, or `[...]` for states `[...]`.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.prothero_robinson import ProtheroRobinson
        >>> problem = ProtheroRobinson(rate=-1e6)
        >>> t = torch.tensor(0.5)
        >>> bool(problem(t, problem.solution(t)) == t.cos())
        True

    References:
        A. Prothero, A. Robinson: On the stability and accuracy of one-step methods for solving stiff systems of ordinary
        differential equations, Mathematics of Computation 28 (1974), 145-162.
    """

    rate: float | Tensor

    def solution(self, t: Tensor) -> Tensor:
        """The solution that starts at 0, `[...]`, at times `[...]`."""
        return t.sin()

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """The field at times that broadcast against states `[...]`."""
        return self.rate * (x - self.solution(t)) + t.cos()
