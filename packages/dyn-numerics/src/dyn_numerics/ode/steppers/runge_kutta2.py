"""The family of explicit two-stage methods of order 2."""

from __future__ import annotations

import math
from fractions import Fraction
from numbers import Real

import torch
from torch import Tensor, nn

from dyn_numerics.ode.steppers.explicit_runge_kutta import ExplicitRungeKutta
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau

__all__ = ["RungeKutta2"]


class RungeKutta2(ExplicitRungeKutta):
    """The family of explicit two-stage methods of order 2: midpoint at alpha = 1/2, Ralston at 2/3, Heun at 1.

    Its table is `c = (0, alpha)`, `a_21 = alpha`, `b = (1 - 1 / (2 alpha), 1 / (2 alpha))`, of order 2 whatever alpha is.

    Args:
        alpha: Position of the second stage within the step, not zero; in [1/2, 1] for sensible weights. Beyond [0, 1] it
            evaluates the field outside the step.
        trainable: Whether `alpha` becomes a parameter, trained through the solve.

    Attributes:
        alpha: `[]`, float64; a parameter if trainable, otherwise for information.

    Raises:
        TypeError: If `alpha` is not a number.
        ValueError: If `alpha` is zero or not finite.

    Example:
        >>> from dyn_numerics import RungeKutta2
        >>> [name for name, _ in RungeKutta2(alpha=0.5, trainable=True).named_parameters()]
        ['alpha']

    References:
        - J. C. Butcher: Numerical Methods for Ordinary Differential Equations, 3rd ed. (2016), section 232.
        - M. Poli et al.: TorchDyn: Implicit Models and Neural Numerical Methods in PyTorch (2021), section 4.
    """

    alpha: Tensor

    def __init__(self, alpha: float, trainable: bool = False) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, Real):
            raise TypeError(f"alpha: got a {type(alpha).__name__}, expected a number; try 0.5")
        if not math.isfinite(alpha) or alpha == 0:
            raise ValueError(
                f"alpha: got {alpha}, expected a finite number other than 0; try 0.5 (midpoint) or 1 (Heun)"
            )
        alpha = float(alpha)
        exact = Fraction(alpha)
        last = 1 / (2 * exact)
        source = "J. C. Butcher: Numerical Methods for Ordinary Differential Equations (2016), section 232"
        super().__init__(
            ButcherTableau(name=f"rk2({alpha:g})", order=2, a=[[], [exact]], b=[1 - last, last], source=source)
        )
        self.trainable = trainable
        value = torch.tensor(alpha, dtype=torch.float64)
        self.alpha = nn.Parameter(value) if trainable else value

    def extra_repr(self) -> str:
        return f"alpha={self.weights()[0][1, 0].item():g}" + (", trainable=True" if self.trainable else "")

    def weights(self) -> tuple[Tensor, Tensor]:
        if not self.trainable:
            return super().weights()
        alpha = self.alpha.double()
        last = 1 / (2 * alpha)
        zero = torch.zeros_like(alpha)
        return torch.stack([zero, zero, alpha, zero]).reshape(2, 2), torch.stack([1 - last, last])
