"""What users hand a method as its Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dyn_numerics.ode.jacobians.dense_jacobian import DenseJacobian
from dyn_numerics.ode.jacobians.field_jacobian import FieldJacobian

__all__ = ["field_jacobian"]


def field_jacobian(jac: FieldJacobian | Callable[..., Any] | None) -> FieldJacobian:
    """The Jacobian that an argument stands for.

    Args:
        jac: None for a full matrix by `torch.func`, a function `jac(t, x, *args)` that returns it (see
            `DenseJacobian`), or a `FieldJacobian`.

    Raises:
        TypeError: If it is something else.

    Example:
        >>> from dyn_numerics.ode.jacobians.by_argument import field_jacobian
        >>> field_jacobian(None)
        DenseJacobian()
    """
    return jac if isinstance(jac, FieldJacobian) else DenseJacobian(jac)
