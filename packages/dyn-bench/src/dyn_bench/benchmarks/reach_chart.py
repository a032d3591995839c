"""Figures of any kind in one picture: each as a share of the most that it may be."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from dyn_bench.experiment import Measurement, Outcome

__all__ = ["draw_reach", "with_chart"]

REACHED, MISSED = "#0072B2", "#D55E00"  # Okabe and Ito's colours, which colour-blind readers tell apart


def draw_reach(measurements: Sequence[Measurement], title: str) -> Figure:
    """Draws a bar for every figure, from the line where it is what was to be reached: to the left it is better.

    Args:
        measurements: Figures with an upper bound; those without a value get words instead of a bar.
        title: Title of the picture.

    Example:
        >>> from dyn_bench.benchmarks.reach_chart import draw_reach
        >>> from dyn_bench.experiment import Measurement
        >>> figure = draw_reach([Measurement("time / peer's", 0.03, high=0.04)], "Overhead")
        >>> figure.axes[0].get_title()
        'Overhead'
    """
    shown = [m for m in measurements if isfinite(m.high) and m.high > 0]
    figure = Figure(figsize=(9, 1.2 + 0.27 * len(shown)), layout="constrained")
    axes = figure.subplots()
    values = [m.value if m.value is not None and isfinite(m.value) else None for m in shown]
    shares = [(value or 0) / m.high for value, m in zip(values, shown, strict=True)]
    least = min((share for share in shares if share > 0), default=1.0)
    axes.set_xscale("log")
    axes.set_xlim(min(least, 0.5) / 1.5, max(*shares, 1.0, 2.0) * 2)
    for row, (m, value, share) in enumerate(zip(shown, values, shares, strict=True)):
        if value is None:
            words = "not measured" if m.value is None else f"{m.value}"
            axes.annotate(words, (1, row), xytext=(4, 0), textcoords="offset points", va="center", color="0.4")
            continue
        colour = REACHED if m.passed else MISSED
        axes.barh(row, share - 1, left=1, color=colour, height=0.65)
        axes.annotate(
            f"{value:.3g}",
            (max(share, 1), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(shown)), [f"{m.name}  ({m.expected})" for m in shown], fontsize="small")
    axes.set_ylim(len(shown) - 0.4, -0.6)  # the first on top
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(title=title, xlabel="measured / to be reached")
    return figure


def with_chart(title: str, *parts: Outcome) -> Outcome:
    """Makes one outcome of several, and adds the picture of all its figures, `ratios`."""
    measurements = [measurement for part in parts for measurement in part.measurements]
    records = {name: record for part in parts for name, record in part.records.items()}
    pictures = {name: figure for part in parts for name, figure in part.pictures.items()}
    return Outcome(measurements, {"ratios": draw_reach(measurements, title), **pictures}, records)
