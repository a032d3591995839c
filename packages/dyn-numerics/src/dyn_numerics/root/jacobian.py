"""Jacobians of residuals: one matrix for every sample, by forward-mode differentiation or from the user."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dyn_numerics.linear.jacobian_operator import JacobianOperator
from dyn_numerics.root.root_stepper import Context, FlatFunction
from dyn_numerics.user_jacobian import UserJacobian

__all__ = ["Jacobian"]


class Jacobian:
    """Makes the Jacobian of a residual.

    Args:
        jac: The user's `jac(z, *args)`, `[batch, *shape, *shape]` for a state `[batch, *shape]`, which must be a single
            tensor: derivatives of outputs first, then of inputs. None for forward-mode differentiation, which calls the
            function once, with all unit vectors side by side.

    Raises:
        TypeError: If `jac` cannot be called.
    """

    def __init__(self, jac: Callable[..., Tensor] | None) -> None:
        if jac is not None and not callable(jac):
            raise TypeError(f"jac: got a {type(jac).__name__}, expected a function jac(z, *args) or None")
        self._jac = jac

    @property
    def n_evals(self) -> int:
        """Calls of the residual that a Jacobian takes."""
        return 1 if self._jac is None else 0

    def __call__(self, f: FlatFunction, z: Tensor, context: Context) -> Tensor:
        """The Jacobian at an iterate, `[batch, N, N]`.

        Args:
            f: Residual of flat iterates.
            z: Iterate, `[batch, N]`.
            context: What is known of it.

        Raises:
            TypeError: If the user's is no tensor or has another dtype than the state, or the state is a pytree.
            ValueError: If the user's has another shape.
        """
        if self._jac is None:
            return JacobianOperator(f, z).matrix()
        layout = context.layout
        if not layout.is_single_tensor:
            raise TypeError("jac: got one with a z0 that is a pytree, expected a single tensor; leave jac out")
        shape, size = layout.shapes[0], z.shape[-1]
        found = _OfIterates(self._jac, context.args, layout, "jac")(
            None, z, [*shape, *shape], "derivatives of outputs by inputs"
        )
        return found.reshape(len(z), size, size)


class _OfIterates(UserJacobian):
    symbol = "z"
