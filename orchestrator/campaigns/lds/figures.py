"""The figures of an LDS campaign: the LDS of every method with the noise ceiling, and the LDS of every query."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from orchestrator.report.canvas import GRID, INK, canvas, looks, short, unique


def forest_svg(table: pd.DataFrame) -> str:
    """Draw the mean LDS of every row of lds.csv with both intervals, and the noise ceiling with its interval."""
    methods = unique(table, "method")
    style = looks(methods)
    with canvas((6.4, 0.36 * len(methods) + 1.1), "lds") as (figure, out):
        ax = figure.subplots()
        _frame(ax, methods, "LDS")
        for place, row in enumerate(table.astype({"lds": float}).to_dict("records")):
            look = style[str(row["method"])]
            for ends, width in ((("ci_low", "ci_high"), 1.2), (("ci_fixed_low", "ci_fixed_high"), 3.6)):
                at = [float(row[end]) for end in ends]
                ax.plot(at, [place, place], color=look.colour, linewidth=width, solid_capstyle="butt")
            ax.plot(row["lds"], place, color=look.colour, marker=look.marker, markersize=6.5, linestyle="none")
        low, value, high = (float(table[name].iloc[0]) for name in ("ceiling_ci_low", "ceiling", "ceiling_ci_high"))
        if np.isfinite(value):
            ax.axvline(value, color=INK, linewidth=1.2, linestyle="--")
        if np.isfinite(low):
            ax.axvspan(low, high, color=GRID, alpha=0.5, linewidth=0)
    return out.getvalue()


def strips_svg(by_query: pd.DataFrame) -> str:
    """Draw a mark for the LDS of every query, one line per method, and the mean of the line."""
    methods = unique(by_query, "method")
    style = looks(methods)
    with canvas((6.4, 0.36 * len(methods) + 1.1), "by-query") as (figure, out):
        ax = figure.subplots()
        _frame(ax, methods, "LDS of a query")
        for place, method in enumerate(methods):
            values = by_query.loc[by_query["method"] == method, "lds"].to_numpy(np.float64)
            shift = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else np.zeros(len(values))
            look = style[method]
            ax.plot(values, place + shift, color=look.colour, marker="o", markersize=3.2, linestyle="none", alpha=0.6)
            if np.isfinite(values).any():
                ax.vlines(np.nanmean(values), place - 0.34, place + 0.34, color=look.colour, linewidth=2.2)
    return out.getvalue()


def _frame(ax: Axes, methods: list[str], title: str) -> None:
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.grid(axis="x", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_yticks(range(len(methods)), [short(method) for method in methods])
    ax.set_ylim(len(methods) - 0.4, -0.6)
    ax.set_xlabel(title)
    ax.xaxis.set_major_locator(MaxNLocator(6))
