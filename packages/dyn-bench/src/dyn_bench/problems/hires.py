"""HIRES: how light governs the growth of plants, by phytochrome."""

from __future__ import annotations

from dyn_bench.problems.reaction_network import ReactionNetwork
from dyn_bench.problems.reference_problem import ReferenceProblem

__all__ = ["HIRES", "HIRES_TO_322"]

HIRES = ReactionNetwork(
    ("Pr", "Pfr", "PrX", "PfrX", "PrX'", "PfrX'", "PfrX'E", "E"),
    ("-> Pr", 0.0007),
    ("Pr -> Pfr", 1.71),
    ("Pfr -> Pr", 0.43),
    ("Pfr -> PfrX", 8.32),
    ("PrX -> Pr", 8.32),
    ("PrX -> PfrX", 1.71),
    ("PfrX -> PrX", 0.43),
    ("PfrX -> PfrX'", 0.69),
    ("PrX' -> PrX", 0.035),
    ("PrX' -> PfrX'", 1.71),
    ("PfrX' -> PrX'", 0.43),
    ("PfrX' + E -> PfrX'E", 280.0),
    ("PfrX'E -> PfrX' + E", 0.69),
    ("PfrX'E -> PrX' + E", 0.43),
    ("PfrX'E -> E", 0.69),
)
"""Red and far-red absorbing phytochrome, bound to a receptor X, to another X', and to an enzyme E.

References:
    - E. Schäfer: A new approach to explain the "high irradiance responses" of photomorphogenesis on the basis of
      phytochrome, Journal of Mathematical Biology 2 (1975), 41-56.
    - Hairer, Wanner: Solving ODEs II, 2nd ed., section IV.10.
"""

HIRES_TO_322 = ReferenceProblem(
    name="HIRES",
    field=HIRES,
    start=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057),
    end=321.8122,
    last=(
        0.0007371312573325668,
        0.0001442485726316185,
        5.888729740967575e-05,
        0.001175651343283149,
        0.002386356198831331,
        0.006238968252742796,
        0.002849998395185769,
        0.002850001604814231,
    ),
    source="Test Set for IVP Solvers, University of Bari",
    floor=1e-4,
)
"""Until shortly after the enzyme, all bound for long, is set free within a fraction of a unit of time."""
