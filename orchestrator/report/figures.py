"""SVG figures that several campaigns use: curves over k, AUC-DEL, and the intervals of any table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from orchestrator.report import numbers
from orchestrator.report.canvas import (
    CONTROL_LOOKS,
    GRID,
    INK,
    Look,
    canvas,
    legend,
    legend_columns,
    looks,
    short,
    unique,
)

METHODS_PER_PANEL = 6
_BAND, _BAND_FIXED = ("ci_low", "ci_high"), ("ci_fixed_low", "ci_fixed_high")
DIRECTIONS = {
    "proponents": "a good method lies below 0",
    "opponents": "a good method lies above 0",
    "proponent_words": "a good method lies below 0",
    "opponent_words": "a good method lies above 0",
    "least": "a good method stays near 0",
}


def curves_svg(curves: pd.DataFrame) -> str:
    """Draw deletion curves with one panel per group, bands from `ci_low` to `ci_high`, and six methods per row of panels."""
    return _curves(curves, "curves", "change of the measurement", DIRECTIONS)


def accuracy_svg(curves: pd.DataFrame) -> str:
    """Draw the changes of the accuracy on the examples other than the query in the form of `curves_svg`."""
    columns = {"delta": "accuracy_delta", "ci_low": "accuracy_ci_low", "ci_high": "accuracy_ci_high"}
    drawn = curves[["method", "group", "k"]].assign(**{name: curves[source] for name, source in columns.items()})
    return _curves(drawn, "accuracy", "change of the accuracy", {})


def correct_svg(table: pd.DataFrame) -> str:
    """Draw the column `correct` in the form of `curves_svg`; the first row of `table`, k = 0, is the first point of every curve."""
    start, curves = table.iloc[:1], table.iloc[1:]
    pairs = curves[["method", "group"]].drop_duplicates().to_dict("records")
    drawn = pd.concat([*(start.assign(**pair) for pair in pairs), curves]).rename(columns={"correct": "delta"})
    return _curves(drawn, "correct", "share of correct answers", {})


def _curves(curves: pd.DataFrame, name: str, label: str, hints: Mapping[str, str]) -> str:
    methods, groups = unique(curves, "method"), unique(curves, "group")
    style = looks(methods)
    rows = [methods[i : i + METHODS_PER_PANEL] for i in range(0, len(methods), METHODS_PER_PANEL)]
    width = max(4.6 * len(groups), 5.2)
    columns = legend_columns(methods, width)
    with canvas((width, 3.5 * len(rows) + 0.2 * -(-len(methods) // columns) + 0.3), name) as (figure, out):
        axes = figure.subplots(len(rows), len(groups), squeeze=False, sharex=True, sharey=True)
        for row, shown in zip(axes, rows, strict=True):
            for ax, group in zip(row, groups, strict=True):
                _frame(ax, group, hints)
                _draw_curves(ax, curves.loc[curves["group"] == group], shown, style, _BAND)
            row[0].set_ylabel(label)
        for ax, group in zip(axes[-1], groups, strict=True):
            ax.set_xlabel(f"examples {'with a replaced word' if _is_of_words(group) else 'removed'} (k)")
        legend(figure, methods, style, columns)
    return out.getvalue()


def query_svg(query_id: int, curves: pd.DataFrame, methods: Sequence[str]) -> str:
    """Draw the curves of one query; the bands, `ci_fixed_low` to `ci_fixed_high`, cover the variation of seeds only."""
    groups, style = unique(curves, "group"), looks(methods)
    shown = [method for method in methods if method in set(curves["method"])]
    width = max(3.6 * len(groups), 4.4)
    columns = legend_columns(shown, width)
    height = 2.3 + 0.2 * -(-len(shown) // columns)
    with canvas((width, height), f"query-{query_id}", fitted=False) as (figure, out):
        axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
        for ax, group in zip(axes, groups, strict=True):
            _frame(ax, group)
            _draw_curves(ax, curves.loc[curves["group"] == group], shown, style, _BAND_FIXED)
        figure.subplots_adjust(0.62 / width, (height - 1.85) / height, 1 - 0.1 / width, 1 - 0.48 / height, wspace=0.08)
        legend(figure, shown, style, columns, "lower center")
    return out.getvalue()


def forest_svg(summary: pd.DataFrame) -> str:
    """Draw AUC-DEL of every method: a thin line from `ci_low` to `ci_high`, a thick one for `ci_fixed_low` to `ci_fixed_high`."""
    methods, groups = unique(summary, "method"), unique(summary, "group")
    style = looks(methods)
    with canvas((max(4.6 * len(groups), 5.2), 0.34 * len(methods) + 1.3), "auc-del") as (figure, out):
        axes = figure.subplots(1, len(groups), squeeze=False, sharex=True, sharey=True)[0]
        for ax, group in zip(axes, groups, strict=True):
            _frame(ax, group, horizontal=False)
            for row in summary.loc[summary["group"] == group].to_dict("records"):
                _draw_interval(ax, methods.index(row["method"]), row, style[row["method"]])
            ax.set_xlabel("AUC-DEL")
            ax.xaxis.set_major_locator(MaxNLocator(5))
        axes[0].set_yticks(range(len(methods)), [short(method) for method in methods])
        axes[0].set_ylim(len(methods) - 0.4, -0.6)
    return out.getvalue()


def intervals_svg(table: pd.DataFrame, labels: Sequence[str], value: str) -> str:
    """Draw the column `value` of every row with its interval `ci_low` to `ci_high`; the columns `labels` name the rows."""
    named = [label for label in labels if label in table.columns]
    names = [", ".join(numbers.plain(row[label]) for label in named) for row in table.to_dict("records")]
    style = looks(list(dict.fromkeys(table[named[0]].astype(str)))) if named else {}
    with canvas((6.4, 0.34 * len(table) + 1.0), f"intervals-{value}") as (figure, out):
        ax = figure.subplots()
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.grid(axis="x", color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        for place, row in enumerate(table.to_dict("records")):
            look = style[str(row[named[0]])] if named else CONTROL_LOOKS["random"]
            ends = [float("nan") if numbers.is_missing(row[end]) else float(row[end]) for end in _BAND]
            ax.plot(ends, [place, place], color=look.colour, linewidth=1.6, solid_capstyle="butt")
            ax.plot(row[value], place, color=look.colour, marker=look.marker, markersize=6.5, linestyle="none")
        ax.set_yticks(range(len(table)), [short(name) for name in names])
        ax.set_ylim(len(table) - 0.4, -0.6)
        ax.set_xlabel(value.replace("_", " "))
        ax.xaxis.set_major_locator(MaxNLocator(6))
    return out.getvalue()


def _is_of_words(group: str) -> bool:
    """Return whether the group keeps its examples and replaces one word in each of them."""
    return group.endswith("_words")


def _frame(ax: Axes, group: str, hints: Mapping[str, str] = DIRECTIONS, *, horizontal: bool = True) -> None:
    """Draw title, zero line and grid, and for the groups in `hints` a hint how to read the panel."""
    ax.set_title(
        f"{short(group.replace('_', ' ')).capitalize()} {'replaced' if _is_of_words(group) else 'removed'}",
        loc="left",
        fontweight="bold",
        y=1.0,  # fixed, since matplotlib's search for a free position takes a tenth of the drawing time
        pad=18 if group in hints else 6,
    )
    ax.text(0, 1.025, hints.get(group, ""), transform=ax.transAxes, fontsize=8.5)
    (ax.axhline if horizontal else ax.axvline)(0, color=INK, linewidth=0.8)
    ax.grid(axis="y" if horizontal else "x", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)


def _draw_curves(
    ax: Axes, curves: pd.DataFrame, methods: Sequence[str], style: Mapping[str, Look], band: tuple[str, str]
) -> None:
    ks = sorted(curves["k"].astype(float).unique())
    for method in methods:
        curve = curves.loc[curves["method"] == method, ["k", "delta", *band]].astype(float).sort_values("k")
        look = style[method]
        ax.plot(
            curve["k"],
            curve["delta"],
            color=look.colour,
            marker=look.marker,
            linestyle=look.dashes,
            linewidth=1.6,
            markersize=4.5,
        )
        if len(curve) == 1:  # a band needs two points
            ax.vlines(curve["k"], curve[band[0]], curve[band[1]], color=look.colour, linewidth=1.2)
        else:
            ax.fill_between(curve["k"], curve[band[0]], curve[band[1]], color=look.colour, alpha=0.13, linewidth=0)
    if ks and ks[-1] > 40 * ks[0] > 0:
        ax.set_xscale("log")
    if len(ks) <= 8:
        ax.set_xticks(ks, [f"{k:g}" for k in ks])
        ax.set_xticks([], minor=True)


def _draw_interval(ax: Axes, place: int, row: Mapping[Any, Any], look: Look) -> None:
    ends = {name: float("nan") if row[name] is None else float(row[name]) for name in (*_BAND, *_BAND_FIXED, "auc_del")}
    ax.plot([ends[name] for name in _BAND], [place, place], color=look.colour, linewidth=1.2, solid_capstyle="butt")
    ax.plot(
        [ends[name] for name in _BAND_FIXED], [place, place], color=look.colour, linewidth=3.6, solid_capstyle="butt"
    )
    ax.plot(
        ends["auc_del"],
        place,
        color=look.colour,
        marker=look.marker,
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
    )
