"""The engine that steps every explicit Runge-Kutta table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dyn_numerics.dtypes import real_dtype, wide_dtype
from dyn_numerics.norms import norm_at_any_scale
from dyn_numerics.ode.interpolants.hermite import cubic_hermite
from dyn_numerics.ode.scalar import Scalar, over_state
from dyn_numerics.ode.stepper import FlatField, Step, Stepper
from dyn_numerics.ode.steppers.slopes import SlopeList, SlopeMatrix, Slopes, Workspaces
from dyn_numerics.ode.tableaus.butcher_tableau import ButcherTableau
from dyn_numerics.ode.times import in_forward_mode, state_time, time_dtype
from dyn_numerics.transforms import under_transform

__all__ = ["ExplicitRungeKutta"]


class Coefficients(NamedTuple):
    """A table as tensors in the dtype and on the device of the state.

    Attributes:
        rows: `[s + 2, s]`: the rows of `a`, the weights `b`, and the error weights, zero if there are none.
        packed: The rows of the untrained table one after the other, each as long as what it weighs.
        dense: Coefficients of the continuous weights, `[p, s]`, or None.
        before_end: `1 - c`, `[s]`, in the dtype of times: a stage lies that share of the step before its end.
    """

    rows: Tensor
    packed: Tensor
    dense: Tensor | None
    before_end: Tensor


class ExplicitRungeKutta(Stepper):
    """Steps an explicit Runge-Kutta table.

    Args:
        tableau: The method.
        trainable: Whether the coefficients become parameters: `a_entries`, the strictly lower part of `a`, and
            `b_entries`. The nodes `c` stay the row sums of `a`, the weights keep their sum of 1 (what the entries lack is
            spread evenly), and the error weights stay `b` less the table's embedded weights. A trainable method
            evaluates every stage and interpolates by a cubic, in training and after it.

    Attributes:
        tableau: The table it was built from.
        order: Order of that table.
        error_order: Order of its error estimate, None without one.

    Example:
        >>> import torch
        >>> from dyn_numerics import ExplicitRungeKutta, odeint
        >>> from dyn_numerics.ode.tableaus.explicit import RK4
        >>> t, x = odeint(lambda t, x: -x, torch.ones(1), [0.0, 1.0], solver=ExplicitRungeKutta(RK4), step_size=0.1)
        >>> round(x[-1].item(), 4)
        0.3679

    References:
        Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., chapter II.
    """

    def __init__(self, tableau: ButcherTableau, trainable: bool = False) -> None:
        super().__init__()
        self.tableau = tableau
        self.trainable = trainable
        self.order = tableau.order
        embedded = tableau.embedded_order
        self.error_order = None if embedded is None else min(tableau.order, embedded)
        numbers = tableau.numbers
        self.reuses_last_stage = numbers.reuses_last_stage and not trainable
        self._rows, self._before_end, self._b_hat = numbers.rows, numbers.before_end, numbers.b_hat
        self._dense = None if trainable else numbers.dense
        self.dense_degree = 3 if self._dense is None else len(self._dense)
        self._lengths = [len(row) for row in self._rows]
        self._coefficients: dict[tuple[torch.dtype, torch.device], Coefficients] = {}
        self._workspaces = Workspaces()
        if trainable:
            device = torch.get_default_device()
            entries = [entry for row in self._rows[: tableau.stages] for entry in row]
            self.a_entries = nn.Parameter(_float64(entries).to(device))
            self.b_entries = nn.Parameter(_float64(self._rows[tableau.stages]).to(device))

    def extra_repr(self) -> str:
        return f"{self.tableau.name}, order={self.order}" + (", trainable=True" if self.trainable else "")

    def weights(self) -> tuple[Tensor, Tensor]:
        """The method as it stands, trained or not: `a` `[s, s]`, strictly lower, and `b` `[s]`, in float64."""
        s = self.tableau.stages
        rows, columns = torch.tril_indices(s, s, offset=-1, device="cpu")
        if self.trainable:
            lower, b = self.a_entries.double(), self.b_entries.double()
            b = b + (1 - b.sum()) / s
        else:
            lower, b = _float64([entry for row in self._rows[:s] for entry in row]), _float64(self._rows[s])
        a = torch.zeros(s, s, dtype=torch.float64, device=lower.device).index_put((rows, columns), lower)
        return a, b

    def coefficients(self, x: Tensor) -> Coefficients:
        """The method as tensors that fit the state `x`; those of an untrainable one are made once."""
        if self.trainable or torch.compiler.is_compiling():
            return self._make_coefficients(x)
        key = (x.dtype, x.device)
        if key not in self._coefficients:
            with torch.inference_mode(False), torch.no_grad():
                self._coefficients[key] = self._make_coefficients(x)
        return self._coefficients[key]

    def _make_coefficients(self, x: Tensor) -> Coefficients:
        a, b = self.weights()
        error = torch.zeros_like(b) if self._b_hat is None else b - _float64(self._b_hat).to(b.device)
        dense = None if self._dense is None else torch.stack([_float64(row) for row in self._dense])
        before_end = 1 - a.sum(1)
        rounding = torch.where(before_end.abs() < 1e-14, before_end, 0).detach()  # a stage at c = 1 is at t1 exactly
        return Coefficients(
            rows=torch.cat([a, b.unsqueeze(0), error.unsqueeze(0)]).to(x),
            packed=_float64([entry for row in self._rows for entry in row]).to(x),
            dense=None if dense is None else dense.to(x),
            before_end=(before_end - rounding).to(dtype=time_dtype(x.device), device=x.device),
        )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_coefficients": {}, "_workspaces": Workspaces()}

    def init(self, f: FlatField, t: Tensor, x: Tensor, slope: Tensor | None) -> Tensor | None:
        return f(t, x) if slope is None and self.reuses_last_stage else slope

    def step(self, f: FlatField, t0: Scalar, t1: Scalar, x: Tensor, carry: Tensor | None) -> Step:
        # Steps and slopes of any size meet here: their product may fit into half precision where they do not.
        narrow = x.dtype
        wide = wide_dtype(narrow)
        start = slope = f(state_time(t0, x), x) if carry is None else carry
        slopes = self._slopes(t0, t1, x.to(wide))
        times, at, count = self._times(t0, t1, x), x, len(self._before_end)
        for i in range(1, count):
            slopes.append(slope if wide is narrow else slope.to(wide))
            at = slopes.after(i) if wide is narrow else slopes.after(i).to(narrow)
            slope = f(times[i], at)
        slopes.append(slope if wide is narrow else slope.to(wide))
        x1 = at if self.reuses_last_stage else slopes.after(count).to(narrow)
        error = None if self.error_order is None else slopes.weighted(count + 1)
        return Step(x1, error, slope if self.reuses_last_stage else None, start, slopes)

    def _times(self, t0: Scalar, t1: Scalar, x: Tensor) -> Sequence[Tensor]:
        """The times of the stages, `[*lead]` each, in the real dtype of the state."""
        dt, dtype = t1 - t0, real_dtype(x.dtype)
        if torch.compiler.is_compiling() and not self.trainable:
            return [state_time(t1 - share * dt, x) for share in self._before_end]
        before_end = self.coefficients(x).before_end
        if isinstance(dt, Tensor) and dt.dim():
            before_end = before_end.unsqueeze(1)
        if isinstance(dt, Tensor):
            return (t1 - before_end * dt).to(dtype).unbind()
        return torch.rsub(before_end, t1, alpha=dt).to(dtype).unbind()

    def _slopes(self, t0: Scalar, t1: Scalar, x: Tensor) -> Slopes:
        """Where the slopes of a step are gathered."""
        if self.trainable:
            return SlopeList(self.coefficients(x).rows, t1 - t0, x)
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or under_transform() or in_forward_mode():
            return SlopeList(self._rows, t1 - t0, x)
        return SlopeMatrix(self.coefficients(x).packed, self._lengths, t1 - t0, x, self._workspaces)

    def stiffness(self, step: Step) -> Tensor | None:
        # Two stages at the end of the step: their slopes differ by the Jacobian times what their states differ by.
        if not (self.reuses_last_stage and self.tableau.numbers.ends_twice):
            return None
        slopes: Slopes = step.stages
        before = slopes.after(len(self._before_end) - 2)
        rise = norm_at_any_scale(slopes[-1] - slopes[-2])
        run = norm_at_any_scale(step.x.to(before.dtype) - before)
        stiffness: Tensor = rise / run.clamp_min(torch.finfo(run.dtype).tiny)
        return stiffness

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return step if step.carry is not None else step._replace(carry=f(state_time(t1, step.x), step.x))

    def interpolant(self, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        # Powers of theta cancel: by some 100 times the rounding of the weights, too much for half precision.
        slopes: Slopes = step.stages
        dtype = slopes[0].dtype
        x0, x1 = x0.to(dtype), step.x.to(dtype)
        if self._dense is None:
            return cubic_hermite(x0, x1, slopes[0], step.carry.to(dtype), over_state(t1 - t0, x0))
        dense = self._dense if isinstance(slopes, SlopeList) else self.coefficients(x0).dense
        return torch.stack([x0, *slopes.weighted_with(dense)], dim=-2)


def _float64(weights: Sequence[float]) -> Tensor:
    return torch.tensor(weights, dtype=torch.float64, device="cpu")
