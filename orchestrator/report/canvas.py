"""The style shared by all figures: SVG with equal bytes for equal tables, real text, and colours for colour-blind readers."""

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
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# The page's style sheet replaces these two colours of the SVG in dark mode.
INK, GRID = "#3d4450", "#d7dbe0"
COLOURS = ("#2a7fc1", "#d9601a", "#1a9e77", "#b45fa6", "#c29000", "#47b4d8")  # mid tones: legible on white and on black
CONTROL_COLOUR = "#7d8590"
_MARKERS, _DASHES = "osD^vP*<", ("-", "--", ":")
LABEL_LENGTH = 36


@dataclass(frozen=True)
class Look:
    """The line style of one method, which is the same in every figure."""

    colour: str
    marker: str
    dashes: Any


CONTROL_LOOKS = {
    "random": Look(CONTROL_COLOUR, "X", "--"),
    "random_same_label": Look(CONTROL_COLOUR, "P", ":"),
}


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Return the look of each method, by its position in `methods`; controls are grey, one dashed and one dotted."""
    judged = [method for method in methods if method not in CONTROL_LOOKS]
    found = {
        method: Look(COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)], _DASHES[i // len(COLOURS) % len(_DASHES)])
        for i, method in enumerate(judged)
    }
    return {**found, **CONTROL_LOOKS}


def inline(svg: str) -> str:
    """Return the `<svg>` element without prologue and group ids, which would repeat on a page with several figures."""
    bare = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*">', "<g>", bare)


_DOTS_PER_INCH = 72  # of an SVG; images within it have `figure.dpi`

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
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


class _Canvas(FigureCanvasBase):
    """The canvas of a figure with one renderer, which measures the labels for the layout and then draws them.

    `Figure.savefig` lays out the figure with a renderer of its own and draws it twice.
    """

    def __init__(self, figure: Figure, out: io.StringIO):
        super().__init__(figure)
        width, height = figure.get_size_inches()
        dpi = matplotlib.rcParams["figure.dpi"]
        metadata = {"Date": None, "Creator": None}
        svg = RendererSVG(width * _DOTS_PER_INCH, height * _DOTS_PER_INCH, out, image_dpi=dpi, metadata=metadata)
        self._renderer: Any = MixedModeRenderer(figure, width, height, dpi, svg)

    def get_renderer(self) -> Any:
        """Return the renderer; the layout engine of the figure asks for it."""
        return self._renderer

    def draw(self) -> None:
        """Write the SVG."""
        self.figure.draw(self._renderer)
        self._renderer.finalize()


@contextmanager
def canvas(size: tuple[float, float], name: str, *, fitted: bool = True) -> Iterator[tuple[Figure, io.StringIO]]:
    """Yield a figure, and a buffer that holds its SVG once the body has ended.

    Element ids are derived from `name`, so that two figures of a page never share one. `fitted`: matplotlib fits the
    margins to the labels, which takes a third of the drawing time; otherwise the caller sets them.
    """
    out = io.StringIO()
    settings = {**_STYLE, "svg.hashsalt": f"refit-{name}", "figure.constrained_layout.use": fitted}
    with matplotlib.style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser's own font has it
        figure = Figure(figsize=size, dpi=_DOTS_PER_INCH)
        yield figure, out
        _Canvas(figure, out).draw()


def legend(
    figure: Figure, methods: Sequence[str], style: Mapping[str, Look], columns: int, place: Any = "outside lower center"
) -> None:
    """Draw a legend of `methods` in `columns` columns below the panels."""
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
    # matplotlib leaves labels with a leading underscore out of a legend.
    labels = [" " + short(m) if m.startswith("_") else short(m) for m in methods]
    figure.legend(handles, labels, loc=place, ncols=columns, frameon=False, handlelength=2.6)


def legend_columns(methods: Sequence[str], width: float) -> int:
    """Return how many legend entries fit in a row of `width` inches, at about 13 characters per inch."""
    longest = max((len(short(method)) for method in methods), default=0)
    return max(1, min(len(methods), int(width / (longest / 13 + 0.6))))


def unique(table: pd.DataFrame, column: str) -> list[str]:
    """Return the distinct values of a column as text, in the order of the table."""
    return list(dict.fromkeys(table[column].astype(str))) if len(table) else []


def short(label: str, most: int = LABEL_LENGTH) -> str:
    """Return a label with control characters replaced by `?`, cut to `most` characters."""
    printable = "".join(char if char.isprintable() else "?" for char in label)
    return printable if len(printable) <= most else printable[: most - 1] + "…"
