"""What every figure is drawn on: the same tables give the same bytes, text stays text, colours suit colour-blind readers."""

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
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# The page's style sheet finds these two in the SVG and swaps them in dark mode.
INK, GRID = "#3d4450", "#d7dbe0"
COLOURS = ("#2a7fc1", "#d9601a", "#1a9e77", "#b45fa6", "#c29000", "#47b4d8")  # mid tones: legible on white and on black
CONTROL_COLOUR = "#7d8590"
_MARKERS, _DASHES = "osD^vP*<", ("-", "--", ":")
LABEL_LENGTH = 36


@dataclass(frozen=True)
class Look:
    """How one method is drawn, the same in every figure."""

    colour: str
    marker: str
    dashes: Any


CONTROL_LOOKS = {
    "random": Look(CONTROL_COLOUR, "X", "--"),
    "random_same_label": Look(CONTROL_COLOUR, "P", ":"),
}


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """A look per method by its place among `methods`; the controls are grey, one dashed and one dotted."""
    judged = [method for method in methods if method not in CONTROL_LOOKS]
    found = {
        method: Look(COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)], _DASHES[i // len(COLOURS) % len(_DASHES)])
        for i, method in enumerate(judged)
    }
    return {**found, **CONTROL_LOOKS}


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
def canvas(size: tuple[float, float], name: str, *, fitted: bool = True) -> Iterator[tuple[Figure, io.StringIO]]:
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


def legend(
    figure: Figure, methods: Sequence[str], style: Mapping[str, Look], columns: int, place: Any = "outside lower center"
) -> None:
    """A legend of `methods` in `columns` columns below the panels."""
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
    labels = [" " + short(m) if m.startswith("_") else short(m) for m in methods]
    figure.legend(handles, labels, loc=place, ncols=columns, frameon=False, handlelength=2.6)


def legend_columns(methods: Sequence[str], width: float) -> int:
    """How many legend entries fit side by side in `width` inches, at about 13 characters an inch."""
    longest = max((len(short(method)) for method in methods), default=0)
    return max(1, min(len(methods), int(width / (longest / 13 + 0.6))))


def unique(table: pd.DataFrame, column: str) -> list[str]:
    """The values of a column as text, each once, in the order of the table; none of an empty table."""
    return list(dict.fromkeys(table[column].astype(str))) if len(table) else []


def short(label: str, most: int = LABEL_LENGTH) -> str:
    """A label without control characters, cut at `most`."""
    printable = "".join(char if char.isprintable() else "?" for char in label)
    return printable if len(printable) <= most else printable[: most - 1] + "…"
