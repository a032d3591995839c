"""Robertson's autocatalytic reactions: three species, rates of nine orders of magnitude."""

from __future__ import annotations

from dyn_bench.problems.reaction_network import ReactionNetwork
from dyn_bench.problems.reference_problem import ReferenceProblem

__all__ = ["ROBER", "ROBER_TO_1E11"]

ROBER = ReactionNetwork(("A", "B", "C"), ("A -> B", 0.04), ("B + C -> A + C", 1e4), ("2 B -> B + C", 3e7))
"""The reactions; all that there is stays the same, A + B + C.

References:
    H. H. Robertson: The solution of a set of reaction rate equations, in: J. Walsh (ed.), Numerical Analysis: An
    Introduction (1966), 178-182.
"""

ROBER_TO_1E11 = ReferenceProblem(
    name="ROBER",
    field=ROBER,
    start=(1.0, 0.0, 0.0),
    end=1e11,
    last=(2.083340149701255e-08, 8.333360770334713e-14, 0.999999979166505),
    source="Test Set for IVP Solvers, University of Bari",
    floor=1e-6,
)
"""From A alone until hardly anything but C is left."""
