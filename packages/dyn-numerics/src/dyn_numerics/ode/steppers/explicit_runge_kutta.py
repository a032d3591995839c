"""The engine that steps every explicit Runge-Kutta table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from dyn_numerics.ode.tableaus.order_conditions import density, node_count, residuals
from dyn_numerics.ode.times import state_time, time_dtype
from dyn_numerics.transforms import in_forward_mode, under_transform

__all__ = ["ExplicitRungeKutta"]

TINY = torch.finfo(torch.float32).tiny


class Coefficients(NamedTuple):
    """A table as tensors in the dtype and on the device of the state.

    Attributes:
        rows: `[s + 1 + e, s]`: the rows of `a`, the weights `b`, and those of each error estimate.
        packed: The rows of the untrained table one after the other, each as long as what it weighs.
        dense: Coefficients of the continuous weights, `[p, s]` and more where there are stages for them alone, or None.
        before_end: `1 - c`, `[s]`, in the dtype of times: a stage lies that share of the step before its end.
        packed_dense: As `packed`, of the stages that are for the dense output alone.
    """

    rows: Tensor
    packed: Tensor
    dense: Tensor | None
    before_end: Tensor
    packed_dense: Tensor


class ExplicitRungeKutta(Stepper):
    """Steps an explicit Runge-Kutta table.

    Args:
        tableau: The method.
        trainable: Whether the coefficients become parameters: `a_entries`, the strictly lower part of `a`, and
            `b_entries`. The nodes `c` stay the row sums of `a`, the weights keep their sum of 1 (what the entries lack is
            spread evenly), and the error weights stay `b` less the table's embedded weights. A trainable method
            evaluates every stage and interpolates by a cubic, in training and after it.

    Raises:
        ValueError: If the table is implicit.

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
        if any(tableau.numbers.diagonal):
            raise ValueError(
                f"tableau: got {tableau.name!r}, which has implicit stages, expected an explicit one; "
                f"try DiagonallyImplicitRungeKutta"
            )
        self.tableau = tableau
        self.trainable = trainable
        self.order = tableau.order
        self.error_order = tableau.error_order
        numbers = tableau.numbers
        self.reuses_last_stage = numbers.reuses_last_stage and not trainable
        self._rows, self._before_end, self._embedded = numbers.rows, numbers.before_end, numbers.embedded
        self._dense = None if trainable else numbers.dense
        self._dense_rows, self._before_end_dense = numbers.dense_rows, numbers.dense_before_end
        self.dense_evals = 0 if trainable else len(self._dense_rows)
        self._weighs_more = len(tableau.dense_stages) > tableau.stages
        self.dense_degree = 3 if self._dense is None else len(self._dense)
        self._lengths = [len(row) for row in self._rows]
        self._coefficients: dict[tuple[torch.dtype, torch.device], Coefficients] = {}
        self._workspaces, self._dense_workspaces = Workspaces(), Workspaces()
        if trainable:
            device = torch.get_default_device()
            self.a_entries = nn.Parameter(_packed(self._rows[: tableau.stages]).to(device))
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
            lower, b = _packed(self._rows[:s]), _float64(self._rows[s])
        a = torch.zeros(s, s, dtype=torch.float64, device=lower.device).index_put((rows, columns), lower)
        return a, b

    def effective_order(self, tolerance: float | None = None) -> int:
        """The order of the method as it stands, trained or not: what its present weights satisfy.

        It is the largest p such that the condition of every rooted tree with up to p nodes holds; 0 if the weights are
        not finite. `order` stays that of the table.

        Args:
            tolerance: By how much a condition `gamma sum_i b_i Phi_i = 1` may be missed. By default the square root of the
                rounding of the parameters, which those of long tables may cost: 1.5e-8 in float64, 3.5e-4 in float32;
                in shorter dtypes the densities of high orders need more.

        Raises:
            ValueError: If the tolerance is not in (0, 1).

        Example:
            >>> import torch
            >>> from dyn_numerics import RungeKutta4
            >>> method = RungeKutta4(trainable=True)
            >>> before = method.effective_order()
            >>> with torch.no_grad():
            ...     _ = method.a_entries.mul_(1.01)
            >>> before, method.effective_order()
            (4, 1)

        References:
            Hairer, Norsett, Wanner: Solving ODEs I, 2nd ed., Theorem 2.13 of section II.2.
        """
        if tolerance is None:
            dtypes = (torch.float64, *(p.dtype for p in self.parameters()))
            tolerance = max(torch.finfo(dtype).eps for dtype in dtypes) ** 0.5
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance: got {tolerance}, expected a number in (0, 1); try 1e-10")
        a, b = (weights.detach().tolist() for weights in self.weights())
        most = self.tableau.stages  # the order of an explicit method is no higher
        conditions = residuals(a, b, most)
        missed = (tree for tree, gap in conditions if not abs(gap) * density(tree) <= tolerance)
        return next((node_count(tree) - 1 for tree in missed), most)

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
        estimates = [(b - _float64(weights).to(b.device)).unsqueeze(0) for weights in self._embedded]
        dense = None if self._dense is None else torch.stack([_float64(row) for row in self._dense])
        before_end = 1 - a.sum(1) if self.trainable else _float64(self._before_end)
        rounding = torch.where(before_end.abs() < 1e-14, before_end, 0).detach()  # a stage at c = 1 is at t1 exactly
        return Coefficients(
            rows=torch.cat([a, b.unsqueeze(0), *estimates]).to(x),
            packed=_packed(self._rows).to(x),
            dense=None if dense is None else dense.to(x),
            before_end=(before_end - rounding).to(dtype=time_dtype(x.device), device=x.device),
            packed_dense=_packed(self._dense_rows).to(x),
        )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_coefficients": {}, "_workspaces": Workspaces(), "_dense_workspaces": Workspaces()}

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

    def measure_error(self, step: Step, norm: Callable[[Tensor], Tensor]) -> Tensor:
        first = norm(step.error)  # type: ignore[arg-type]
        if len(self._embedded) == 1:
            return first
        # Hairer, Norsett, Wanner: Solving ODEs I, section II.10: of higher order than either.
        slopes: Slopes = step.stages
        second = norm(slopes.weighted(len(self._before_end) + 2))
        return first.square() / (first.square() + 0.01 * second.square()).clamp_min(TINY).sqrt()

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
        if _sums_by_element():
            return SlopeList(self._rows, t1 - t0, x)
        count = len(self._before_end)
        return SlopeMatrix(self.coefficients(x).packed, self._lengths, count, t1 - t0, x, self._workspaces)

    def stiffness(self, step: Step) -> Tensor | None:
        # Two slopes at the end of the step differ by the Jacobian times what their states differ by.
        if self.trainable or not self.tableau.numbers.ends_twice or step.carry is None:
            return None
        slopes: Slopes = step.stages
        other = len(self._before_end) - (2 if self.reuses_last_stage else 1)
        before = slopes.after(other)
        rise = norm_at_any_scale(step.carry.to(before.dtype) - slopes[other])
        run = norm_at_any_scale(step.x.to(before.dtype) - before)
        stiffness: Tensor = rise / run.clamp_min(torch.finfo(run.dtype).tiny)
        return stiffness

    def dense_dtype(self, x: Tensor) -> torch.dtype:
        # Powers of theta up to the seventh cancel: the weights of such methods are of some 10^4 in that form.
        wide = super().dense_dtype(x)
        return torch.promote_types(wide, time_dtype(x.device)) if self._weighs_more and not self.trainable else wide

    def complete(self, f: FlatField, t1: Scalar, step: Step) -> Step:
        return step if step.carry is not None else step._replace(carry=f(state_time(t1, step.x), step.x))

    def interpolant(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Tensor:
        # Powers of theta cancel: by some 100 times the rounding of the weights, too much for half precision.
        slopes: Slopes = step.stages
        dtype = self.dense_dtype(x0)
        start, end = x0.to(dtype), step.x.to(dtype)
        if self._dense is None:
            return cubic_hermite(start, end, slopes[0], step.carry.to(dtype), over_state(t1 - t0, start))
        if self._weighs_more:
            slopes = self._dense_slopes(f, t0, t1, x0, step)
        dense = self._dense if isinstance(slopes, SlopeList) else self.coefficients(start).dense
        return torch.stack([start, *slopes.weighted_with(dense)], dim=-2)

    def _dense_slopes(self, f: FlatField, t0: Scalar, t1: Scalar, x0: Tensor, step: Step) -> Slopes:
        """The slopes of a step, that at its end, and those of the stages for the dense output alone."""
        known, dt, wide = step.stages, t1 - t0, self.dense_dtype(x0)
        x = x0.to(wide)
        slopes: Slopes
        if _sums_by_element():
            slopes = SlopeList(self._dense_rows, dt, x)
        else:
            packed, lengths = self.coefficients(x).packed_dense, [len(row) for row in self._dense_rows]
            count = len(self.tableau.dense_stages)
            slopes = SlopeMatrix(packed, lengths, count, dt, x, self._dense_workspaces)
        for slope in known if self.reuses_last_stage else (*known, step.carry):
            slopes.append(slope.to(wide))
        for i, share in enumerate(self._before_end_dense):
            slopes.append(f(state_time(t1 - share * dt, x0), slopes.after(i).to(x0.dtype)).to(wide))
        return slopes


def _sums_by_element() -> bool:
    """Whether somebody differentiates or compiles, so that sums of slopes are not products of matrices."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or under_transform() or in_forward_mode()


def _packed(rows: Sequence[Sequence[float]]) -> Tensor:
    return _float64([entry for row in rows for entry in row])


def _float64(weights: Sequence[float]) -> Tensor:
    return torch.tensor(weights, dtype=torch.float64, device="cpu")
