"""The report sections of diagnostics of the scoring models: a figure of the main table, and the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from influence.diagnostic import Panels
from orchestrator.report.canvas import GRID, Look, canvas, legend, looks, short, unique
from orchestrator.report.columns import columns
from orchestrator.report.data import Section

TEMPLATE = "diagnostics.html.jinja"
ROWS_SHOWN = 200


@dataclass(frozen=True)
class Diagnosed:
    """One diagnostic with its tables by file name, the main one first.

    `labels`: the columns that name a row; `explained`: how to read the tables; `panels`: its figure, if it has one.
    """

    label: str
    explained: str
    labels: Sequence[str]
    panels: Panels | None
    tables: Mapping[str, pd.DataFrame]


def diagnostic_sections(found: Sequence[Diagnosed]) -> list[Section]:
    """Return one section per diagnostic."""
    return [_section(one) for one in found]


def _section(one: Diagnosed) -> Section:
    name = f"diagnose-{one.label}"
    main = next(iter(one.tables.values()))
    drawn = {name: panels_svg(main, one.panels, name)} if one.panels is not None and len(main) else {}
    shown = [
        {
            "file": f"{file}.csv",
            "columns": columns(table.head(ROWS_SHOWN), ["scored_on", *one.labels]),
            "n_rows": len(table),
            "n_shown": min(len(table), ROWS_SHOWN),
        }
        for file, table in one.tables.items()
    ]
    title = f"Diagnostic: {one.label.replace('_', ' ')}"
    data = {"explained": one.explained, "tables": shown, "figure": name if drawn else ""}
    return Section(name, title, TEMPLATE, data, drawn, nav=one.label.replace("_", " ").capitalize())


def panels_svg(table: pd.DataFrame, panels: Panels, name: str) -> str:
    """Draw one panel per column in `panels.values`.

    A small dot is a row of the table; a large one is the mean of the rows that agree in `panels.rows` and `panels.series`.
    """
    places, series = unique(table, panels.rows), unique(table, panels.series) if panels.series else [""]
    style = looks(series)
    width = 2.2 + 3.0 * len(panels.values)
    with canvas((width, 0.3 * len(places) + 1.4), name) as (figure, out):
        axes = figure.subplots(1, len(panels.values), squeeze=False, sharey=True)[0]
        for ax, value in zip(axes, panels.values, strict=True):
            _frame(ax, value, is_log=value in panels.log)
            for number, one in enumerate(series):
                rows = table.loc[table[panels.series].astype(str) == one] if panels.series else table
                shift = (number - (len(series) - 1) / 2) * 0.24
                heights = [places.index(place) + shift for place in rows[panels.rows].astype(str)]
                _dots(ax, rows[value].astype(float).tolist(), heights, style[one])
        axes[0].set_yticks(range(len(places)), [short(place) for place in places])
        axes[0].set_ylim(len(places) - 0.4, -0.6)
        if panels.series:
            legend(figure, series, style, len(series))
    return out.getvalue()


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


def _dots(ax: Axes, values: Sequence[float], heights: Sequence[float], look: Look) -> None:
    ax.plot(values, heights, ".", color=look.colour, alpha=0.45, markersize=3)
    for height in dict.fromkeys(heights):
        found = [value for value, at in zip(values, heights, strict=True) if at == height and not math.isnan(value)]
        if found:
            ax.plot(sum(found) / len(found), height, look.marker, color=look.colour, markersize=6)
