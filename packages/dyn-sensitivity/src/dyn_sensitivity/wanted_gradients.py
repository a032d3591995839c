"""What the gradient of a solve goes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from dyn_numerics import Save
from dyn_numerics.per_sample import bare_arguments
from dyn_sensitivity.ode.held_tensors import held_parameters

__all__ = ["wanted_gradients"]


def wanted_gradients(
    f: Callable[..., Any],
    x0: Any,
    t_span: Tensor | Sequence[float],
    *,
    args: tuple[Any, ...] = (),
    params: Sequence[Tensor] = (),
    **options: Any,
) -> list[Tensor]:
    """Lists the tensors that a problem has gradients to, each once: all that require one and that can be found.

    Args:
        f: Vector field; the parameters of modules that it is or holds are among them.
        x0: Initial state.
        t_span: Output times.
        args: Further arguments of `f`.
        params: Tensors that `f` captures.
        **options: What else `dyn_sensitivity.odeint` is given; solver, controller and events may have parameters.

    Raises:
        ValueError: If there is none.

    Example:
        >>> import torch
        >>> from dyn_sensitivity.wanted_gradients import wanted_gradients
        >>> net, x0 = torch.nn.Linear(2, 2), torch.ones(5, 2, requires_grad=True)
        >>> [tuple(tensor.shape) for tensor in wanted_gradients(lambda t, x: net(x), x0, [0.0, 1.0])]
        [(5, 2), (2, 2), (2,)]
    """
    save = options.get("save")
    kept = save.fn if isinstance(save, Save) else None
    held = held_parameters((f, *options.values(), kept), options.get("events", ()))
    candidates = [*tree_leaves((x0, bare_arguments(args), t_span)), *params, *held]
    wanted = [leaf for leaf in candidates if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not wanted:
        raise ValueError(
            "x0, f, args, params, t_span: got nothing that requires a gradient, expected at least one tensor that does; "
            "call requires_grad_() on what is to be differentiated"
        )
    return list({id(tensor): tensor for tensor in wanted}.values())
