"""Work of three kinds over the error, a row of panels for each stiff problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from dyn_bench.benchmarks.work_precision_chart import draw_curve
from dyn_bench.protocols.work_precision import Curve, Work

__all__ = ["draw_stiff"]

WORKS: tuple[tuple[Work, str], ...] = (("evaluations", "evaluations"), ("steps", "steps"), ("seconds", "time, s"))


def draw_stiff(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draws evaluations, steps and time over precision on logarithmic axes: the lower a curve, the better.

    Args:
        curves: For each problem the curve of each solve, by its name; one without points is left out.

    Example:
        >>> from dyn_bench.benchmarks.stiff_chart import draw_stiff
        >>> from dyn_bench.protocols.work_precision import Curve, Point
        >>> points = [Point(1e-3, 1e-3, 100, steps=12, seconds=0.1), Point(1e-8, 1e-8, 1000, steps=120, seconds=1.0)]
        >>> figure = draw_stiff({"ROBER": {"rodas5p": Curve(points)}})
        >>> [axes.get_title() for axes in figure.axes]
        ['ROBER, evaluations', 'ROBER, steps', 'ROBER, time, s']
    """
    figure = Figure(figsize=(12, 3.6 * len(curves)), layout="constrained")
    rows = figure.subplots(len(curves), len(WORKS), squeeze=False)
    drawn: dict[str, Artist] = {}
    for (problem, solves), row in zip(curves.items(), rows, strict=True):
        for axes, (work, label) in zip(row, WORKS, strict=True):
            for name, curve in solves.items():
                draw_curve(axes, name, replace(curve, work=work), filled="SciPy" not in name)
            axes.set(title=f"{problem}, {label}", xlabel="error at the end", xscale="log", yscale="log")
            axes.grid(which="major", alpha=0.3)
            axes.invert_xaxis()  # more precise to the right
        drawn |= dict(zip(*reversed(row[0].get_legend_handles_labels()), strict=True))
    figure.legend(drawn.values(), drawn.keys(), loc="outside upper center", ncols=4)
    return figure
