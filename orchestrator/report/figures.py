"""The figures as SVG: the same tables give the same bytes, text stays text, colours suit colour-blind readers."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# The page's style sheet finds these two in the SVG and swaps them in dark mode.
INK, GRID = "#3d4450", "#d7dbe0"
COLOURS = ("#2a7fc1", "#d9601a", "#1a9e77", "#b45fa6", "#c29000", "#47b4d8")  # mid tones: legible on white and on black
CONTROL_COLOUR = "#7d8590"
_MARKERS, _DASHES = "osD^vP*<", ("-", "--", ":")
METHODS_PER_PANEL = 6
LABEL_LENGTH = 36

_BAND, _BAND_FIXED = ("ci_low", "ci_high"), ("ci_fixed_low", "ci_fixed_high")
DIRECTIONS = {
    "proponents": "a good method lies below 0",
    "opponents": "a good method lies above 0",
    "least": "a good method stays near 0",
}


@dataclass(frozen=True)
class Look:
    """How one method is drawn, the same in every figure."""

    colour: str
    marker: str
    dashes: Any


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """A look per method by its place among `methods`; the control `random` is grey and dashed."""
    judged = [method for method in methods if method != "random"]
    found = {
        method: Look(COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)], _DASHES[i // len(COLOURS) % len(_DASHES)])
        for i, method in enumerate(judged)
    }
    return {**found, "random": Look(CONTROL_COLOUR, "X", "--")}


def curves_svg(curves: pd.DataFrame) -> str:
    """Deletion curves, a panel per group, bands `ci_low` to `ci_high`; more than six methods take further rows."""
    methods, groups = _unique(curves, "method"), _unique(curves, "group")
    style = looks(methods)
    rows = [methods[i : i + METHODS_PER_PANEL] for i in range(0, len(methods), METHODS_PER_PANEL)]
    width = max(4.6 * len(groups), 5.2)
    columns = _columns(methods, width)
    with _figure((width, 3.5 * len(rows) + 0.2 * -(-len(methods) // columns) + 0.3), "curves") as (figure, out):
        axes = figure.subplots(len(rows), len(groups), squeeze=False, sharex=True, sharey=True)
        for row, shown in zip(axes, rows, strict=True):
            for ax, group in zip(row, groups, strict=True):
                _frame(ax, group)
                _draw_curves(ax, curves.loc[curves["group"] == group], shown, style, _BAND)
            row[0].set_ylabel("change of the measurement")
        for ax in axes[-1]:
            ax.set_xlabel("examples removed (k)")
        _legend(figure, methods, style, columns)
    return out.getvalue()


def query_svg(query_id: int, curves: pd.DataFrame, methods: Sequence[str]) -> str:
    """One query's curves, small; bands `ci_fixed_low` to `ci_fixed_high`: the query is given, only seeds vary."""
    groups, style = _unique(curves, "group"), looks(methods)
    shown = [method for method in methods if method in set(curves["method"])]
    width = max(3.6 * len(groups), 4.4)
    columns = _columns(shown, width)
    height = 2.3 + 0.2 * -(-len(shown) // columns)
    with _figure((width, height), f"query-{query_id}", fitted=False) as (figure, out):
        axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
        for ax, group in zip(axes, groups, strict=True):
            _frame(ax, group)
            _draw_curves(ax, curves.loc[curves["group"] == group], shown, style, _BAND_FIXED)
        figure.subplots_adjust(0.62 / width, (height - 1.85) / height, 1 - 0.1 / width, 1 - 0.48 / height, wspace=0.08)
        _legend(figure, shown, style, columns, "lower center")
    return out.getvalue()


def forest_svg(summary: pd.DataFrame) -> str:
    """AUC-DEL of every method: thin line `ci_low` to `ci_high`, thick line `ci_fixed_low` to `ci_fixed_high`."""
    methods, groups = _unique(summary, "method"), _unique(summary, "group")
    style = looks(methods)
    with _figure((max(4.6 * len(groups), 5.2), 0.34 * len(methods) + 1.3), "auc-del") as (figure, out):
        axes = figure.subplots(1, len(groups), squeeze=False, sharex=True, sharey=True)[0]
        for ax, group in zip(axes, groups, strict=True):
            _frame(ax, group, horizontal=False)
            for row in summary.loc[summary["group"] == group].to_dict("records"):
                _draw_interval(ax, methods.index(row["method"]), row, style[row["method"]])
            ax.set_xlabel("AUC-DEL")
            ax.xaxis.set_major_locator(MaxNLocator(5))
        axes[0].set_yticks(range(len(methods)), [_short(method) for method in methods])
        axes[0].set_ylim(len(methods) - 0.4, -0.6)
    return out.getvalue()


def inline(svg: str) -> str:
    """The `<svg>` element for a page that holds several: without the prologue and the group ids, which repeat."""
    bare = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*">', "<g>", bare)


_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.linewidth": 0.7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def _figure(size: tuple[float, float], name: str, *, fitted: bool = True) -> Iterator[tuple[Figure, io.StringIO]]:
    """A figure, and where its SVG goes at the end. Ids are salted with `name`: no two figures of a page share one.

    `fitted`: margins fitted to the labels, which takes a third of the time; without it the caller sets them.
    """
    out = io.StringIO()
    settings = {**_STYLE, "svg.hashsalt": f"refit-{name}", "figure.constrained_layout.use": fitted}
    with matplotlib.style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser's font draws it
        figure = Figure(figsize=size)
        yield figure, out
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def _frame(ax: Axes, group: str, *, horizontal: bool = True) -> None:
    """Title, zero line and grid. Groups the planner does not know get no direction."""
    ax.set_title(
        f"{_short(group).capitalize()} removed",
        loc="left",
        fontweight="bold",
        y=1.0,  # a fixed place: looking for a free one takes a tenth of the time
        pad=18 if group in DIRECTIONS else 6,
    )
    ax.text(0, 1.025, DIRECTIONS.get(group, ""), transform=ax.transAxes, fontsize=8.5)
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


def _legend(
    figure: Figure, methods: Sequence[str], style: Mapping[str, Look], columns: int, place: Any = "outside lower center"
) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=style[m].colour,
            marker=style[m].marker,
            linestyle=style[m].dashes,
            linewidth=1.6,
            markersize=4.5,
        )
        for m in methods
    ]
    # A label with a leading underscore would be left out of a legend.
    labels = [" " + _short(m) if m.startswith("_") else _short(m) for m in methods]
    figure.legend(handles, labels, loc=place, ncols=columns, frameon=False, handlelength=2.6)


def _columns(methods: Sequence[str], width: float) -> int:
    """How many legend entries fit side by side in `width` inches, at about 13 characters an inch."""
    longest = max((len(_short(method)) for method in methods), default=0)
    return max(1, min(len(methods), int(width / (longest / 13 + 0.6))))


def _unique(table: pd.DataFrame, column: str) -> list[str]:
    return list(dict.fromkeys(table[column].astype(str)))


def _short(label: str) -> str:
    printable = "".join(char if char.isprintable() else "?" for char in label)
    return printable if len(printable) <= LABEL_LENGTH else printable[: LABEL_LENGTH - 1] + "…"
