"""Errors over evaluations, a panel for each problem, once for the methods and once beside the peers."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dyn_bench.protocols.work_precision import Curve

__all__ = ["draw_curve", "draw_work_precision"]

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
    "rosenbrock23": ("#CC79A7", "v", "-"),
    "rodas5p": ("#D55E00", "^", "-"),
    "kvaerno3": ("#56B4E9", "s", "-"),
    "kvaerno5": ("#0072B2", "o", "-"),
    "auto": ("#E69F00", "D", "-"),
    "SciPy Radau": ("#000000", ".", "--"),
    "SciPy Radau, differences": ("#000000", ".", ":"),
    "SciPy BDF": ("#009E73", "P", "--"),
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
                draw_curve(axes, name, curve, filled=name in own)
            axes.set(title=title, xlabel="error at the end", ylabel="evaluations", xscale="log", yscale="log")
            axes.grid(which="major", alpha=0.3)
            axes.legend(fontsize="small")
            axes.invert_xaxis()  # more precise to the right
    return figure


def draw_curve(axes: Axes, name: str, curve: Curve, filled: bool) -> None:
    """Draws the work of one solve over its errors, in the style of its name.

    Args:
        axes: Where to.
        name: Name of the solve.
        curve: Its points.
        filled: Whether markers are.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from dyn_bench.benchmarks.work_precision_chart import draw_curve
        >>> from dyn_bench.protocols.work_precision import Curve, Point
        >>> axes = Figure().subplots()
        >>> draw_curve(axes, "dopri5", Curve([Point(1e-3, 1e-3, 100), Point(1e-8, 1e-8, 1000)]), filled=True)
        >>> [line.get_label() for line in axes.lines]
        ['dopri5']
    """
    colour, marker, line = STYLES[name]
    axes.plot(
        [point.error for point in curve.points],
        curve.works,
        color=colour,
        marker=marker,
        linestyle=line,
        markersize=4,
        fillstyle="full" if filled else "none",
        linewidth=1.2,
        label=name,
    )
