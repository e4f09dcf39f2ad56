"""The figures of diagnostics: panels of dots by place, and scatters with a fitted line."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from influence.diagnostic import Panels, Scatter
from orchestrator.report.canvas import COLOURS, GRID, INK, Look, canvas, legend, looks, short, unique

ACROSS = 3  # panels of a scatter beside each other
DENSE = 400  # dots of a panel above which they are drawn fainter


def panels_svg(table: pd.DataFrame, panels: Panels, name: str) -> str:
    """Draw one panel per column in `panels.values`.

    A small dot is a row of the table; a large one is the mean of the rows that agree in `panels.rows` and `panels.series`.
    A line through a dot is the interval of the row, if the table has one.
    """
    table = table.assign(_place=_places(table, panels))
    places, series = unique(table, "_place"), unique(table, panels.series) if panels.series else [""]
    style = looks(series)
    width, row = 2.2 + 3.0 * len(panels.values), max(0.3, 0.1 * len(series))
    with canvas((width, row * len(places) + 1.4), name) as (figure, out):
        axes = figure.subplots(1, len(panels.values), squeeze=False, sharey=True)[0]
        spread = min(0.24, 0.8 / len(series))
        for ax, value in zip(axes, panels.values, strict=True):
            _frame(ax, value, is_log=value in panels.log)
            for number, one in enumerate(series):
                rows = table.loc[table[panels.series].astype(str) == one] if panels.series else table
                shift = (number - (len(series) - 1) / 2) * spread
                heights = [places.index(place) + shift for place in rows["_place"]]
                _intervals(ax, rows, value, heights, style[one])
                _dots(ax, rows[value].astype(float).tolist(), heights, style[one])
        axes[0].set_yticks(range(len(places)), [short(place) for place in places])
        axes[0].set_ylim(len(places) - 0.4, -0.6)
        if panels.series:
            legend(figure, series, style, len(series))
    return out.getvalue()


def scatter_svg(table: pd.DataFrame, scatter: Scatter, name: str) -> str:
    """Draw one panel per combination of values in `scatter.panels`: a dot per row, and the line through `scatter.line`."""
    titles = list(dict.fromkeys(zip(*(table[column].astype(str) for column in scatter.panels), strict=True)))
    across = min(ACROSS, len(titles))
    down = math.ceil(len(titles) / across)
    with canvas((3.3 * across, 2.6 * down + 0.3), name) as (figure, out):
        axes = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
        for ax in axes[len(titles) :]:
            ax.set_axis_off()
        for ax, title in zip(axes, titles, strict=False):
            inside = [table[column].astype(str) == one for column, one in zip(scatter.panels, title, strict=True)]
            _scattered(ax, table.loc[pd.concat(inside, axis=1).all(axis=1)], scatter)
            ax.set_title("\n".join(short(part, 48) for part in title), fontsize=8)
        for ax in axes[max(len(titles) - across, 0) : len(titles)]:
            ax.set_xlabel(scatter.x.replace("_", " "))
        for ax in axes[::across]:
            ax.set_ylabel(scatter.y.replace("_", " "))
    return out.getvalue()


def _scattered(ax: Axes, rows: pd.DataFrame, scatter: Scatter) -> None:
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    alpha = 0.6 if len(rows) <= DENSE else 0.25
    for number, one in enumerate(unique(rows, scatter.series) if scatter.series else [""]):
        inside = rows.loc[rows[scatter.series].astype(str) == one] if scatter.series else rows
        colour = COLOURS[number % len(COLOURS)]
        ax.plot(inside[scatter.x], inside[scatter.y], ".", color=colour, alpha=alpha, markersize=3)
    line = rows.sort_values(scatter.x)
    ax.plot(line[scatter.x], line[scatter.line], "-", color=INK, linewidth=1.4)


def _places(table: pd.DataFrame, panels: Panels) -> list[str]:
    """Return the place of every row; of several columns, those that are the same in all rows are left out."""
    names = [panels.rows] if isinstance(panels.rows, str) else list(panels.rows)
    differing = [name for name in names if len(unique(table, name)) > 1] or names[-1:]
    return [", ".join(map(str, values)) for values in zip(*(table[name] for name in differing), strict=True)]


def _frame(ax: Axes, value: str, *, is_log: bool) -> None:
    ax.set_title(value.replace("_", " "))
    ax.grid(axis="x", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    if is_log:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")  # powers of ten would need matplotlib's mathematical text
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.axvline(0, color=GRID, linewidth=1.2)


def _intervals(ax: Axes, rows: pd.DataFrame, value: str, heights: Sequence[float], look: Look) -> None:
    ends = [f"{value}_ci_low", f"{value}_ci_high"]
    if all(end in rows.columns for end in ends):
        low, high = (rows[end].astype(float).tolist() for end in ends)
        ax.hlines(heights, low, high, color=look.colour, linewidth=1.2)


def _dots(ax: Axes, values: Sequence[float], heights: Sequence[float], look: Look) -> None:
    ax.plot(values, heights, ".", color=look.colour, alpha=0.45, markersize=3)
    for height in dict.fromkeys(heights):
        found = [value for value, at in zip(values, heights, strict=True) if at == height and not math.isnan(value)]
        if found:
            ax.plot(sum(found) / len(found), height, look.marker, color=look.colour, markersize=6)
