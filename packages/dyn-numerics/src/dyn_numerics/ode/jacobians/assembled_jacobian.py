"""What Jacobians share that are made as tensors of numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from dyn_numerics.arguments import kind_of
from dyn_numerics.dtypes import real_dtype
from dyn_numerics.ode.jacobians.field_jacobian import FieldJacobian, Linearisation
from dyn_numerics.ode.jacobians.forward_products import forward_products
from dyn_numerics.ode.solve_context import SolveContext
from dyn_numerics.ode.stepper import FlatField
from dyn_numerics.transforms import any_lane, under_transform
from dyn_numerics.user_function import check_signature
from dyn_numerics.user_jacobian import UserJacobian

__all__ = ["AssembledJacobian", "trial_vector"]


class AssembledJacobian(FieldJacobian):
    """A Jacobian whose entries are found by products with a few directions, or by the user.

    A subclass says which directions tell its entries apart, where it stores these, and how to solve with them.

    Args:
        jac: The user's `jac(t, x, *args)`; None for forward-mode differentiation. The state must be a single tensor.
        check: Whether every Jacobian is compared with the field: its product with one vector, which comes along with the
            call of the field, and one host read. Inside of `torch.compile` and `torch.func`, where values cannot be read,
            nothing is compared.

    Raises:
        TypeError: If `jac` cannot be called.
    """

    def __init__(self, jac: Callable[..., Any] | None = None, check: bool = False) -> None:
        super().__init__()
        if jac is not None and (isinstance(jac, type) or not callable(jac)):
            raise TypeError(f"jac: got {kind_of(jac)}, expected a function jac(t, x, *args), a FieldJacobian or None")
        self.jac = jac
        self.check = check
        self.structured = jac is not None
        self._user: UserJacobian | None = None
        self._shape: tuple[int, ...] = ()

    def extra_repr(self) -> str:
        name = getattr(self.jac, "__name__", type(self.jac).__name__)
        return ", ".join(([] if self.jac is None else [f"jac={name}"]) + (["check=True"] if self.check else []))

    def on(self, context: SolveContext) -> Self:
        """Returns the one for such a solve.

        Raises:
            TypeError: If there is a `jac` and the state is a pytree, or `jac` takes other arguments than the field.
            ValueError: If the state is none for this structure.
        """
        layout = context.layout
        self.check_size(layout.size)
        if self.jac is None:
            return self
        if not layout.is_single_tensor:
            raise TypeError("jac: got one with an x0 that is a pytree, expected a single tensor; leave jac out")
        if not torch.compiler.is_compiling():
            check_signature(self.jac, len(context.args), "jac", "Jacobian")
        twin = type(self).__new__(type(self))  # copy.copy, as far as torch.compile can trace it
        twin.__dict__.update(self.__dict__)
        twin._user = UserJacobian(self.jac, context.args, layout, "jac")
        twin._shape = layout.shapes[0]
        return twin

    def of_the_field(self) -> AssembledJacobian:
        if self.jac is None:
            return self
        twin = type(self).__new__(type(self))  # copy.copy, as far as torch.compile can trace it
        twin.__dict__.update(self.__dict__)
        twin._modules = {name: module for name, module in self._modules.items() if name != "jac"}
        twin.__dict__.update(jac=None, check=False, _user=None)
        return twin

    def linearise(self, f: FlatField, t: Tensor, x: Tensor, with_rate: bool = False) -> Linearisation:
        size = x.shape[-1]
        directions = self.directions(x) if self.jac is None else x.new_zeros(0, size)
        checks = self.check and not (torch.compiler.is_compiling() or under_transform())
        if checks:
            directions = torch.cat([directions, trial_vector(x).unsqueeze(0)])
        slope, rate, products = forward_products(f, t, x, directions, with_rate)
        if self.jac is None:
            jacobian = self.assemble(products[: len(products) - checks])
        elif self._user is None:
            raise ValueError("jac: got one outside of a solve, expected to be told of one; try on(context) first")
        else:
            form, meaning = self.form(self._shape)
            jacobian = self.arrange(self._user(t, x, form, meaning), x)
        if checks:
            with torch.no_grad():
                self._compare(f, t.detach(), x.detach(), jacobian.detach(), products[-1].detach())
        return Linearisation(slope, rate, jacobian)

    def check_size(self, size: int) -> None:
        """Refuses states of N elements that the structure does not fit, with a ValueError.

        Args:
            size: N.
        """

    @abstractmethod
    def directions(self, x: Tensor) -> Tensor:
        """The directions, `[m, N]`, whose products tell all entries apart.

        Args:
            x: A state, `[*lead, N]`.
        """

    @abstractmethod
    def assemble(self, products: Tensor) -> Tensor:
        """The Jacobian, a tensor that leads with `lead`, from its products with the directions, `[m, *lead, N]`."""

    @abstractmethod
    def form(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
        """The shape in which the user returns a Jacobian, without `lead`, and what its dimensions are in words.

        Args:
            shape: Shape of the user's state, without `lead`.
        """

    @abstractmethod
    def arrange(self, found: Tensor, x: Tensor) -> Tensor:
        """The Jacobian from what the user returned.

        Args:
            found: `[*lead, *form]`.
            x: State, `[*lead, N]`.
        """

    @abstractmethod
    def product(self, jacobian: Tensor, v: Tensor) -> Tensor:
        """The product with vectors `[*lead, N]`."""

    def _compare(self, f: FlatField, t: Tensor, x: Tensor, jacobian: Tensor, expected: Tensor) -> None:
        """Compares the product with the trial vector, and refuses a Jacobian that disagrees."""
        v = trial_vector(x).expand_as(x)
        difference = (self.product(jacobian, v) - expected).abs()
        size = self.product(jacobian.abs(), v.abs()) + expected.abs()
        excess = difference / (size.amax(-1, keepdim=True) + torch.finfo(size.dtype).tiny)
        limit = torch.finfo(size.dtype).eps ** 0.5
        if not any_lane(excess > limit):
            return
        place = int(excess.nan_to_num(nan=0.0).argmax())
        sample, row = divmod(place, x.shape[-1])
        one = torch.zeros_like(x)
        one.view(-1)[place] = 1

        def entries(product: Callable[[Tensor], Tensor]) -> Tensor:
            found: Tensor = torch.func.vjp(product, x)[1](one)[0]
            found = found.reshape(-1, x.shape[-1])[sample]
            return found.conj() if found.is_complex() else found

        got, true = entries(lambda v: self.product(jacobian, v)), entries(lambda x: f(t, x))
        column = int((got - true).abs().argmax())
        whose = f" of sample {sample}" if x.dim() > 1 else ""
        got_one, remedy = f"a {self}", "declare what the field has, or try DenseJacobian()"
        if self.jac is not None:
            got_one, remedy = "a function", "correct it, or leave it out"
        raise ValueError(
            f"jac: got {got_one} whose derivative of element {row}{whose} by element {column} is "
            f"{got[column].item():.6g}, expected {true[column].item():.6g}, which the field has; {remedy}"
        )


def trial_vector(x: Tensor) -> Tensor:
    """A vector with which no wrong entries are likely to cancel, `[N]`: always the same one, as results repeat."""
    golden = 0.6180339887498949
    v = (golden * torch.arange(1, x.shape[-1] + 1, dtype=real_dtype(x.dtype), device=x.device)).frac() + 0.5
    # Of a complex state both parts move: a field that is not holomorphic has no Jacobian to agree with.
    return (torch.complex(v, v.flip(-1)) if x.is_complex() else v).to(x.dtype)
