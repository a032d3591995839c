"""Errors over evaluations, a panel for each problem, once for the methods and once beside the peers."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from dyn_bench.protocols.work_precision import Curve

__all__ = ["draw_work_precision"]

# Okabe and Ito's colours, which colour-blind readers tell apart; a peer has that of the method that is its like.
STYLES = {
    "rk4": ("#000000", "x", ":"),
    "bosh3": ("#CC79A7", "v", "-"),
    "dopri5": ("#0072B2", "o", "-"),
    "tsit5": ("#56B4E9", "s", "-"),
    "vern7": ("#E69F00", "D", "-"),
    "dopri8": ("#D55E00", "^", "-"),
    "torchdiffeq dopri5": ("#0072B2", "o", "--"),
    "torchdiffeq dopri8": ("#009E73", "P", "--"),
    "SciPy RK45": ("#000000", ".", ":"),
    "SciPy DOP853": ("#D55E00", "^", "--"),
}
BESIDE_PEERS = ("dopri5", "tsit5", "vern7", "dopri8")


def draw_work_precision(curves: Mapping[str, Mapping[str, Curve]], own: tuple[str, ...]) -> Figure:
    """Draws work over precision on logarithmic axes: the lower a curve, the better.

    Args:
        curves: For each problem the curve of each solve, by its name.
        own: The solves by this library, which are drawn in panels of their own too.

    Example:
        >>> from dyn_bench.benchmarks.work_precision_chart import draw_work_precision
        >>> from dyn_bench.protocols.work_precision import Curve, Point
        >>> curve = Curve([Point(1e-3, 1e-3, 100), Point(1e-8, 1e-8, 1000)])
        >>> figure = draw_work_precision({"decay": {"dopri5": curve}}, own=("dopri5",))
        >>> [axes.get_title() for axes in figure.axes]
        ['decay', 'decay, beside the peers']
    """
    figure = Figure(figsize=(11, 4.4 * len(curves)), layout="constrained")
    rows = figure.subplots(len(curves), 2, squeeze=False)
    for (problem, solves), (alone, beside) in zip(curves.items(), rows, strict=True):
        shown = {name: curve for name, curve in solves.items() if name not in own or name in BESIDE_PEERS}
        panels = (
            (alone, problem, {name: solves[name] for name in own if name in solves}),
            (beside, f"{problem}, beside the peers", shown),
        )
        for axes, title, drawn in panels:
            for name, curve in drawn.items():
                colour, marker, line = STYLES[name]
                axes.plot(
                    [point.error for point in curve.points],
                    [point.evaluations for point in curve.points],
                    color=colour,
                    marker=marker,
                    linestyle=line,
                    markersize=4,
                    fillstyle="full" if name in own else "none",
                    linewidth=1.2,
                    label=name,
                )
            axes.set(title=title, xlabel="error at the end", ylabel="evaluations", xscale="log", yscale="log")
            axes.grid(which="major", alpha=0.3)
            axes.legend(fontsize="small")
            axes.invert_xaxis()  # more precise to the right
    return figure
