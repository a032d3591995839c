"""Proportional-integral-derivative control of the step size."""

from __future__ import annotations

from math import inf, isfinite
from numbers import Real
from typing import NamedTuple

from dyn_numerics.ode.controllers.controller import Controller, Norm, Verdict
from dyn_numerics.ode.scalar import Flag, Scalar, clip, negate, power, where
from dyn_numerics.seminorm import Seminorm

__all__ = ["PIDController"]

SMALLEST_ERROR = 1e-10  # an error of zero asks for an infinite step; the limiter acts long before this bound


class Memory(NamedTuple):
    """Errors of the last two accepted steps, the newer first, and whether the last attempt was rejected."""

    error: Scalar
    error_before: Scalar
    rejected: Flag


class PIDController(Controller):
    """Steps as long as the tolerance allows: I, PI or PID control by its coefficients.

    With `k = error_order + 1` and the scaled errors `e_n` of the attempt and `e_(n-1)`, `e_(n-2)` of the accepted steps
    before, the next step is the present one times

        safety * e_n^(-(p + i + d) / k) * e_(n-1)^((p + 2 d) / k) * e_(n-2)^(-d / k),

    limited to `[factor_min, factor_max]`, to at most 1 after a rejection, and for the retry itself to at most `safety`.

    Args:
        p: Proportional coefficient; 0 by default.
        i: Integral coefficient; 1 by default. `p=0, i=1, d=0` is the classical controller; `p=0.4, i=0.3` is a PI
            controller that suits problems at the edge of stability.
        d: Derivative coefficient; 0 by default.
        safety: Factor below 1 that leaves room for the error of the estimate, and makes every retry shorter.
        factor_min: Least factor between two attempts.
        factor_max: Greatest factor between two attempts.
        first_step: Magnitude of the first step in time units; estimated when None.
        min_step: Least step that a rejection may ask for, in time units: a solve that would need a shorter one fails.
        max_step: Greatest step, in time units; one that lands on a time may be 1 % longer.
        norm: Norm of the scaled error: a function from the error, in the structure of the state, to a tensor `[]`, or
            `[batch]` under `stepping="per_sample"`; or a `Seminorm`, which leaves parts of the state out. The default
            is the root mean square over all elements of all leaves.

    Raises:
        TypeError: If one of them is not a number, or the norm no function.
        ValueError: If a coefficient, the safety, a factor or the first step is out of its range.

    Example:
        >>> import torch
        >>> from dyn_numerics import PIDController, odeint
        >>> pi = PIDController(p=0.4, i=0.3)
        >>> odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], controller=pi).status.name
        'SUCCESS'

    References:
        - G. Söderlind: Digital filters in adaptive time-stepping, ACM Trans. Math. Softw. 29 (2003), 1-26.
        - Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., section II.4.
    """

    def __init__(
        self,
        p: float = 0.0,
        i: float = 1.0,
        d: float = 0.0,
        *,
        safety: float = 0.9,
        factor_min: float = 0.2,
        factor_max: float = 10.0,
        first_step: float | None = None,
        min_step: float = 0.0,
        max_step: float = inf,
        norm: Norm | Seminorm | None = None,
    ) -> None:
        super().__init__()
        numbers = {"p": p, "i": i, "d": d, "safety": safety, "factor_min": factor_min, "factor_max": factor_max}
        numbers.update(min_step=min_step, max_step=max_step)
        if first_step is not None:
            numbers["first_step"] = first_step
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name}: got a {type(value).__name__}, expected a number")
        if not (norm is None or callable(norm) or isinstance(norm, Seminorm)):
            raise TypeError(
                f"norm: got a {type(norm).__name__}, expected a function of the scaled error, a Seminorm, or None"
            )
        for name, value in (("p", p), ("i", i), ("d", d)):
            if not isfinite(value):
                raise ValueError(f"{name}: got {value}, expected a finite number")
        if not p + i + d > 0:
            raise ValueError(f"p + i + d: got {p + i + d}, expected more than 0, or steps would grow with the error")
        if not 0 < safety < 1:
            raise ValueError(f"safety: got {safety}, expected a number in (0, 1)")
        if not 0 < factor_min < 1:
            raise ValueError(f"factor_min: got {factor_min}, expected a number in (0, 1)")
        if not factor_max > 1:
            raise ValueError(f"factor_max: got {factor_max}, expected a number above 1")
        if first_step is not None and not (isfinite(first_step) and first_step > 0):
            raise ValueError(f"first_step: got {first_step}, expected a positive number; its sign follows t_span")
        if not (isfinite(min_step) and min_step >= 0):
            raise ValueError(f"min_step: got {min_step}, expected a number of at least 0; its sign follows t_span")
        if not max_step > min_step:
            raise ValueError(f"max_step: got {max_step}, expected more than min_step, which is {min_step}")
        self.p, self.i, self.d = p, i, d
        self.safety = safety
        self.factor_min, self.factor_max = factor_min, factor_max
        self.first_step = first_step
        self.min_step, self.max_step = min_step, max_step
        self.norm = norm

    def extra_repr(self) -> str:
        return f"p={self.p}, i={self.i}, d={self.d}"

    def init(self) -> Memory:
        return Memory(1.0, 1.0, False)

    def judge(self, error: Scalar, error_order: int, memory: Memory) -> Verdict:
        k = error_order + 1
        accept = error <= 1
        e = clip(error, low=SMALLEST_ERROR)
        factor = self.safety * power(e, -(self.p + self.i + self.d) / k)
        if self.p + 2 * self.d != 0:
            factor = factor * power(memory.error, (self.p + 2 * self.d) / k)
        if self.d != 0:
            factor = factor * power(memory.error_before, -self.d / k)
        factor = clip(factor, self.factor_min, self.factor_max)
        factor = where(memory.rejected, clip(factor, high=1.0), factor)
        if self.p == 0 and self.d == 0:  # errors of earlier steps do not matter
            return Verdict(accept, factor, memory._replace(rejected=negate(accept)))
        factor = where(accept, factor, clip(factor, high=self.safety))  # whatever the errors before: retries end
        errors = where(accept, (e, memory.error), (memory.error, memory.error_before))
        return Verdict(accept, factor, Memory(*errors, negate(accept)))
