"""The interface of a sensitivity algorithm for roots and fixed points."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dyn_numerics import RootSolution
from dyn_sensitivity.root.root_problem import RootProblem

__all__ = ["RootSensitivity"]


class RootSensitivity(ABC):
    """How the gradient of a root is computed. Algorithms are interchangeable: none changes the values that are found."""

    @abstractmethod
    def solve(self, problem: RootProblem) -> RootSolution:
        """Finds the root so that it can be differentiated.

        Args:
            problem: What is looked for, and how.
        """
