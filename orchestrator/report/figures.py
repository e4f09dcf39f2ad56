"""The figures as SVG text: the same tables give the same bytes, text stays text, colours are safe for colour-blind readers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The page's style sheet finds these two in the SVG and swaps them in dark mode.
INK, GRID = "#3d4450", "#d7dbe0"
COLOURS = ("#2a7fc1", "#d9601a", "#1a9e77", "#b45fa6", "#c29000", "#47b4d8")  # mid tones: legible on white and on black
CONTROL_COLOUR = "#7d8590"
_MARKERS, _DASHES = "osD^vPX*", ("-", "--", ":")
METHODS_PER_PANEL = 6
LABEL_LENGTH = 36

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
    dashes: str


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """A look per method by its place among `methods`; the control `random` is grey and dashed."""
    judged = [method for method in methods if method != "random"]
    found = {method: Look(COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)], _DASHES[i // len(COLOURS) % len(_DASHES)])
             for i, method in enumerate(judged)}
    return {**found, "random": Look(CONTROL_COLOUR, "x", "--")}


def curves_svg(curves: pd.DataFrame) -> str:
    """Deletion curves: a panel per group, bands are `ci_low` to `ci_high`; more than six methods go to further rows of panels."""
    methods, groups = _unique(curves, "method"), _unique(curves, "group")
    style = looks(methods)
    rows = [methods[i : i + METHODS_PER_PANEL] for i in range(0, len(methods), METHODS_PER_PANEL)]
    with _figure((max(4.6 * len(groups), 5.2), 3.5 * len(rows) + 0.5), "curves") as (figure, out):
        axes = figure.subplots(len(rows), len(groups), squeeze=False, sharex=True, sharey=True)
        for row, shown in zip(axes, rows, strict=True):
            for ax, group in zip(row, groups, strict=True):
                _frame(ax, f"{_short(group)} removed", DIRECTIONS.get(group, ""))
                _draw_curves(ax, curves[curves["group"] == group], shown, style, ("ci_low", "ci_high"))
            row[0].set_ylabel("change of the measurement")
        for ax in axes[-1]:
            ax.set_xlabel("examples removed (k)")
        _legend(figure, methods, style, columns=min(len(methods), 5))
    return out.getvalue()


def query_svg(query_id: int, curves: pd.DataFrame, methods: Sequence[str]) -> str:
    """One query's curves, small: bands are `ci_fixed_low` to `ci_fixed_high`, since the query is given and only seeds vary."""
    groups, style = _unique(curves, "group"), looks(methods)
    shown = [method for method in methods if method in set(curves["method"])]
    with _figure((max(3.6 * len(groups), 4.4), 2.5 + 0.18 * ((len(shown) - 1) // 4)), f"query-{query_id}") as (figure, out):
        axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
        for ax, group in zip(axes, groups, strict=True):
            _frame(ax, f"{_short(group)} removed", "")
            _draw_curves(ax, curves[curves["group"] == group], shown, style, ("ci_fixed_low", "ci_fixed_high"))
        _legend(figure, shown, style, columns=min(len(shown), 4))
    return out.getvalue()


def forest_svg(summary: pd.DataFrame) -> str:
    """AUC-DEL of every method: the thin line is `ci_low` to `ci_high`, the thick one `ci_fixed_low` to `ci_fixed_high`."""
    methods, groups = _unique(summary, "method"), _unique(summary, "group")
    style = looks(methods)
    with _figure((max(4.6 * len(groups), 5.2), 0.34 * len(methods) + 1.3), "auc-del") as (figure, out):
        axes = figure.subplots(1, len(groups), squeeze=False, sharex=True, sharey=True)[0]
        for ax, group in zip(axes, groups, strict=True):
            _frame(ax, f"{_short(group)} removed", DIRECTIONS.get(group, ""), horizontal=False)
            for row in summary[summary["group"] == group].to_dict("records"):
                _draw_interval(ax, methods.index(row["method"]), row, style[row["method"]])
            ax.set_xlabel("AUC-DEL")
        axes[0].set_yticks(range(len(methods)), [_short(method) for method in methods])
        axes[0].set_ylim(len(methods) - 0.4, -0.6)
    return out.getvalue()


def inline(svg: str) -> str:
    """The `<svg>` element alone, for a page that holds several: without the prologue and the group ids, which repeat."""
    import re

    return re.sub(r'<g id="[^"]*">', "<g>", svg[svg.index("<svg") :])


@contextmanager
def _figure(size: tuple[float, float], name: str) -> Iterator[tuple[Figure, io.StringIO]]:
    """A figure and where its SVG goes at the end. Ids are salted with `name`: no two figures of a page share one."""
    import matplotlib
    import matplotlib.style
    from matplotlib.figure import Figure

    settings: dict[str, Any] = {
        "svg.hashsalt": f"refit-{name}", "svg.fonttype": "none", "text.parse_math": False, "font.size": 9,
        "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "figure.constrained_layout.use": True,
    }
    out = io.StringIO()
    import warnings

    with matplotlib.style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # only measures; the browser's font draws it
        figure = Figure(figsize=size)
        yield figure, out
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def _unique(table: pd.DataFrame, column: str) -> list[str]:
    return list(dict.fromkeys(table[column].astype(str)))


def _short(label: str) -> str:
    """A label that fits; a leading underscore would hide it from a legend."""
    text = label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"
    return (" " + text if text.startswith("_") else text).capitalize() if text in DIRECTIONS else text.replace("_", " _", 1) if text.startswith("_") else text
