"""Chemical reactions, whose speeds are products of concentrations."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Reaction", "ReactionNetwork"]


class Reaction(NamedTuple):
    """One reaction.

    Attributes:
        reactants: Places of the species that react, once for every molecule.
        changes: What the concentration of a species gains, by its place; species that gain nothing are left out.
    """

    reactants: tuple[int, ...]
    changes: dict[int, int]


class ReactionNetwork:
    """Species that react with each other by the law of mass action, as a field of their concentrations.

    A reaction is as fast as the product of its rate constant and the concentrations of what reacts.

    Args:
        species: Names of the species, the order of which is that of the state.
        reactions: Each as what becomes what, with its rate constant: `("A + 2 B -> C", 0.1)`.

    Attributes:
        species: Names of the species, n of them.
        rates: Rate constants, m of them.
        reactions: The reactions, in the same order.

    Raises:
        ValueError: If a reaction has no arrow, or speaks of a species that there is not.

    Example:
        >>> import torch
        >>> from dyn_bench.problems.reaction_network import ReactionNetwork
        >>> network = ReactionNetwork(("A", "B"), ("2 A -> B", 0.5), ("B -> A", 3.0))
        >>> network(torch.tensor(0.0), torch.tensor([[4.0, 1.0]]))  # 8 reactions of the first kind, 3 of the second
        tensor([[-13.,   5.]])

    References:
        P. Waage, C. M. Guldberg: Studier over Affiniteten, Forhandlinger i Videnskabs-Selskabet i Christiania (1864).
    """

    def __init__(self, species: tuple[str, ...], *reactions: tuple[str, float]) -> None:
        self.species = species
        self.rates = tuple(rate for _, rate in reactions)
        self.reactions = tuple(_parse(species, equation) for equation, _ in reactions)

    def components(self, *numbers: Any) -> list[Any]:
        """The slopes of all concentrations, in arithmetic that any array library does.

        Args:
            numbers: The n concentrations, and the m rate constants if they are others than the network's.
        """
        x, rates = self._split(numbers)
        slopes: list[Any] = [0.0] * len(self.species)
        for reaction, rate in zip(self.reactions, rates, strict=True):
            speed = rate
            for place in reaction.reactants:
                speed = speed * x[place]
            for place, change in reaction.changes.items():
                slopes[place] = slopes[place] + change * speed
        return slopes

    def partials(self, *numbers: Any) -> list[list[Any]]:
        """The derivatives of every slope by every concentration, row by row, in the same arithmetic.

        Args:
            numbers: As for `components`.
        """
        x, rates = self._split(numbers)
        rows: list[list[Any]] = [[0.0] * len(self.species) for _ in self.species]
        for reaction, rate in zip(self.reactions, rates, strict=True):
            for i, by in enumerate(reaction.reactants):
                partial = rate
                for place in (*reaction.reactants[:i], *reaction.reactants[i + 1 :]):
                    partial = partial * x[place]
                for place, change in reaction.changes.items():
                    rows[place][by] = rows[place][by] + change * partial
        return rows

    def perturbed_rates(self, count: int, share: float, seed: int) -> Tensor:
        """Draws rate constants, `[count, m]`, float64, each uniform within a share of the network's own."""
        generator = torch.Generator().manual_seed(seed)
        u = 2 * torch.rand(count, len(self.rates), dtype=torch.float64, generator=generator) - 1
        return torch.tensor(self.rates, dtype=torch.float64) * (1 + share * u)

    def __call__(self, t: Tensor, x: Tensor, rates: Tensor | None = None) -> Tensor:
        """The field at states `[..., n]`, with rate constants `[..., m]` if they are others than the network's."""
        others = () if rates is None else rates.unbind(-1)
        return torch.stack(self.components(*x.unbind(-1), *others), -1)

    def _split(self, numbers: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        n = len(self.species)
        return numbers[:n], numbers[n:] or self.rates


def _parse(species: tuple[str, ...], equation: str) -> Reaction:
    before, arrow, after = equation.partition("->")
    if not arrow:
        raise ValueError(f"reactions: got {equation!r}, expected what becomes what, such as 'A + 2 B -> C'")
    reactants, products = _places(species, before), _places(species, after)
    change = Counter(products)
    change.subtract(reactants)
    return Reaction(tuple(reactants), {place: gain for place, gain in change.items() if gain})


def _places(species: tuple[str, ...], side: str) -> list[int]:
    """The places of the species on one side of an equation, once for every molecule."""
    places = []
    for term in filter(None, map(str.strip, side.split("+"))):
        *count, name = term.split()
        if name not in species:
            raise ValueError(f"reactions: got the species {name!r}, expected one of {', '.join(species)}")
        places += [species.index(name)] * (int(*count) if count else 1)
    return places
