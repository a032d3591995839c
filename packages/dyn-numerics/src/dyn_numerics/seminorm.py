"""A norm that looks at some parts of a state alone."""

from __future__ import annotations

from typing import Any

from torch.utils._pytree import tree_leaves, tree_unflatten

from dyn_numerics.pytree_state import StateLayout

__all__ = ["Seminorm"]


class Seminorm:
    """Root mean square over all elements of some parts of the state, for each sample where samples are problems.

    The error of the other parts does not steer the step size: a quadrature that nothing depends on, say. An attempt in
    which they are not finite is rejected all the same.

    Args:
        *parts: Each the key of a dictionary, the index in a sequence or the name of a field, or a tuple of such that leads
            further in; a part that is a structure stands for all of its leaves.

    Raises:
        TypeError: If a part is a list, a set or a dictionary.
        ValueError: If there is no part.

    Example:
        >>> import torch
        >>> from dyn_numerics import PIDController, Seminorm, odeint
        >>> def field(t, x):
        ...     return {"position": -x["position"], "work": torch.cos(1000 * t) * x["position"]}
        >>> x0 = {"position": torch.ones(1), "work": torch.zeros(1)}
        >>> norm = PIDController(norm=Seminorm("position"))
        >>> odeint(field, x0, [0.0, 1.0], controller=norm).stats.n_steps < odeint(field, x0, [0.0, 1.0]).stats.n_steps
        tensor(True)

    References:
        P. Kidger, R. T. Q. Chen, T. Lyons: "Hey, that's not an ODE": Faster ODE adjoints via seminorms, ICML 2021.
    """

    def __init__(self, *parts: Any) -> None:
        if not parts:
            raise ValueError("parts: got none, expected at least one key, index or name of a part of the state")
        for part in parts:
            if isinstance(part, (list, set, dict)):
                raise TypeError(
                    f"parts: got {part!r}, expected keys, indices or names; name several as Seminorm('a', 'b')"
                )
        self.parts = parts

    def __repr__(self) -> str:
        return f"Seminorm({', '.join(map(repr, self.parts))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seminorm) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def columns(self, layout: StateLayout) -> list[slice]:
        """Where the parts lie in the vectors `[*lead, N]` of a layout.

        Raises:
            ValueError: If the state has no such part.
        """
        numbers = list(range(len(layout.sizes)))
        pattern = None if layout.structure is None else tree_unflatten(numbers, layout.structure)
        chosen = {leaf for part in self.parts for leaf in self._leaves(pattern, part)}
        ends = [sum(layout.sizes[: i + 1]) for i in numbers]
        return [slice(ends[i] - layout.sizes[i], ends[i]) for i in numbers if i in chosen]

    def _leaves(self, pattern: Any, part: Any) -> list[int]:
        within = pattern
        for key in part if isinstance(part, tuple) else (part,):
            within = _child(within, key)
            if within is None:
                state = "a tensor" if pattern is None else f"the state {pattern}, leaves counted,"
                raise ValueError(f"norm: got {self} for {state} which has no part {part!r}")
        return tree_leaves(within)


def _child(within: Any, key: Any) -> Any:
    """What lies under a key, or None."""
    if isinstance(within, dict):
        return within.get(key)
    if isinstance(within, (list, tuple)) and isinstance(key, int):
        return within[key] if -len(within) <= key < len(within) else None
    return getattr(within, key, None) if isinstance(key, str) and isinstance(within, tuple) else None
