"""Figures that compare predicted with actual influence (Silva et al. 2022, figures 2 and 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from orchestrator.report import numbers
from orchestrator.report.canvas import COLOURS, CONTROL_COLOUR, GRID, INK, LABEL_LENGTH, canvas, short

POINTS_SHOWN = 400  # per panel; more points would only make the file larger
_PER_ROW = 3
_TOP, _BOTTOM = COLOURS[3], COLOURS[4]  # the first three are for the classes


def scatter_svg(
    name: str,
    predicted: np.ndarray,
    actual: np.ndarray,
    titles: Sequence[str],
    r: Sequence[float],
    classes: Sequence[int] = (),
    class_names: Sequence[str] = (),
) -> str:
    """Draw predicted against actual influence, one panel per query, with the line of best fit, its slope and Pearson's r.

    `predicted`, `actual` [n_panels, n_train]: NaN is left out; `classes` [n_train] colour the points. Each panel has its own axes;
    the dotted line is predicted = actual, so that a wrong scale of the predictions is visible.
    """
    n_rows = -(-len(titles) // _PER_ROW)
    n_columns = min(len(titles), _PER_ROW)
    width, height = 3.2 * n_columns + 0.2, 2.75 * n_rows + 0.55
    with canvas((width, height), name, fitted=False) as (figure, out):
        axes = figure.subplots(n_rows, n_columns, squeeze=False)
        left, right, bottom, top = 0.85 / width, 1 - 0.25 / width, 0.8 / height, 1 - 0.5 / height
        figure.subplots_adjust(left, bottom, right, top, wspace=0.33, hspace=0.42)
        for ax in axes.flat[len(titles) :]:
            ax.set_visible(False)
        for ax, title, x, y, one in zip(axes.flat, titles, actual, predicted, r, strict=False):
            _panel_title(ax, short(title), f"r {numbers.number(one, 2)}, slope {numbers.rough(slope(y, x))}")
            _scatter(ax, x, y, classes)
        for ax in axes[:, 0]:
            ax.set_ylabel("predicted")
        for ax in axes.flat[max(len(titles) - n_columns, 0) : len(titles)]:
            ax.set_xlabel("actual")
        handles = [
            Line2D([], [], color=INK, linewidth=1.2, label="best fit"),
            Line2D([], [], color=CONTROL_COLOUR, linewidth=1, linestyle=":", label="predicted = actual"),
        ]
        _legend(figure, handles + _class_handles(classes, class_names), "lower center")
    return out.getvalue()


def slope(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Return the least-squares slope of predicted on actual: 1 if the scale is right; NaN if `actual` does not vary."""
    usable = np.isfinite(predicted) & np.isfinite(actual)
    x, y = actual[usable], predicted[usable]
    spread = ((x - x.mean()) ** 2).sum() if len(x) else 0.0
    return float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else math.nan


def correlations_svg(
    name: str,
    correlations: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[int]],
    class_names: Sequence[str] = (),
    threshold: float = 0.8,
) -> str:
    """Draw the distribution of the queries' correlations, one panel per comparison, stacked by class of the query.

    `correlations`: label -> [n_queries], NaN is left out; `classes`: label -> [n_queries], or empty. A vertical line marks
    `threshold`, and the title has the number of queries at or above it.
    """
    finite = [values[np.isfinite(values)] for values in correlations.values()]
    lowest = min((float(values.min()) for values in finite if len(values)), default=0.0)
    edges = np.arange(math.floor(min(lowest, 0.0) * 20), 21) / 20
    with canvas((7.4, 1.35 * len(correlations) + 0.75), name) as (figure, out):
        axes = figure.subplots(len(correlations), 1, squeeze=False, sharex=True)[:, 0]
        for ax, (label, values) in zip(axes, correlations.items(), strict=True):
            known = np.isfinite(values)
            high = int((values[known] >= threshold).sum())
            _panel_title(ax, short(label, 2 * LABEL_LENGTH), f"{high} of {int(known.sum())} at or above {threshold:g}")
            _histogram(ax, values[known], np.asarray(classes.get(label, ()), int), known, edges)
            ax.axvline(threshold, color=INK, linewidth=0.9, linestyle="--")
            ax.set_ylabel("queries")
        axes[-1].set_xlabel("Pearson's r of a query, over the training examples")
        shown = sorted({int(one) for found in classes.values() for one in found})
        _legend(figure, _class_handles(shown, class_names, marker="s"))
    return out.getvalue()


def mixture_svg(
    name: str,
    points: np.ndarray,
    components: np.ndarray,
    query: np.ndarray,
    true: tuple[Sequence[int], Sequence[int]],
    predicted: tuple[Sequence[int], Sequence[int]],
    class_names: Sequence[str] = (),
) -> str:
    """Draw where the most influential examples of one query lie: left those found by retraining, right the predicted ones (figure 2).

    `points` [n, 2], `components` [n] their classes, `query` [2]; `true` and `predicted`: rows of the `points` that help the
    query most, and of those that harm it most.
    """
    with canvas((7.4, 3.9), name, fitted=False) as (figure, out):
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        figure.subplots_adjust(0.07, 0.17, 0.98, 0.87, wspace=0.08)
        for ax, title, (top, bottom) in ((left, "Actual", true), (right, "Predicted", predicted)):
            _panel_title(
                ax, title, "by retraining without each" if ax is left else f"{_shared(true, predicted)} shared"
            )
            for one in sorted({int(c) for c in components}):
                here = points[components == one]
                ax.plot(here[:, 0], here[:, 1], "o", color=_class_colour(one), markersize=3, alpha=0.45, linewidth=0)
            ax.plot(*points[list(top)].T, "^", color=_TOP, markersize=7.5, markeredgecolor=INK, markeredgewidth=0.7)
            ax.plot(
                *points[list(bottom)].T, "v", color=_BOTTOM, markersize=7.5, markeredgecolor=INK, markeredgewidth=0.7
            )
            ax.plot(*query, "*", color=INK, markersize=14)
            ax.set_aspect("equal", adjustable="box")
        edge: dict[str, Any] = {"linestyle": "", "markeredgecolor": INK, "markeredgewidth": 0.7, "markersize": 7}
        handles = [
            Line2D([], [], color=INK, marker="*", linestyle="", markersize=11, label="query"),
            Line2D([], [], color=_TOP, marker="^", label="mitigate its loss most", **edge),
            Line2D([], [], color=_BOTTOM, marker="v", label="amplify its loss most", **edge),
        ]
        _legend(figure, handles + _class_handles(components, class_names), "lower center")
    return out.getvalue()


def _shared(true: tuple[Sequence[int], ...], predicted: tuple[Sequence[int], ...]) -> str:
    found = sum(len(set(a) & set(b)) for a, b in zip(true, predicted, strict=True))
    return f"{found} of {sum(map(len, true))}"


def _scatter(ax: Axes, x: np.ndarray, y: np.ndarray, classes: Sequence[int]) -> None:
    usable = np.isfinite(x) & np.isfinite(y)
    kept = _thinned(x, y, usable)
    by_class = np.asarray(classes, int) if len(classes) else np.zeros(len(x), int)
    for one in sorted(set(by_class[kept].tolist())):
        here = kept[by_class[kept] == one]
        ax.plot(x[here], y[here], "o", color=_class_colour(one), markersize=3.2, alpha=0.7, markeredgewidth=0)
    (x_low, x_high), (y_low, y_high) = _limits(x[usable]), _limits(y[usable])
    ends = np.array([x_low, x_high])
    gain = slope(y, x)
    if math.isfinite(gain):
        ax.plot(ends, y[usable].mean() + gain * (ends - x[usable].mean()), color=INK, linewidth=1.2)
    ax.plot(ends, ends, color=CONTROL_COLOUR, linewidth=1, linestyle=":")
    ax.set_xlim(x_low, x_high)
    ax.set_ylim(y_low, y_high)
    ax.grid(color=GRID, linewidth=0.5)
    ax.set_axisbelow(True)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}".replace("-", "\N{MINUS SIGN}")))


def _thinned(x: np.ndarray, y: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return the positions of about POINTS_SHOWN points at most: evenly spaced by rank of `x`, and the extremes of `y`."""
    rows = np.flatnonzero(usable)
    if len(rows) <= POINTS_SHOWN:
        return rows
    by_x, by_y = rows[np.argsort(x[rows], kind="stable")], rows[np.argsort(y[rows], kind="stable")]
    even = np.linspace(0, len(rows) - 1, POINTS_SHOWN).round().astype(int)
    return np.unique(np.concatenate([by_x[even], by_y[:20], by_y[-20:]]))


def _limits(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _histogram(ax: Axes, values: np.ndarray, classes: np.ndarray, known: np.ndarray, edges: np.ndarray) -> None:
    of = classes[known] if len(classes) else np.zeros(len(values), int)
    below = np.zeros(len(edges) - 1)
    for one in sorted(set(of.tolist())):
        counts = np.histogram(values[of == one], edges)[0]
        ax.bar(edges[:-1], counts, np.diff(edges) * 0.92, below, align="edge", color=_class_colour(one))
        below += counts
    ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)


def _panel_title(ax: Axes, title: str, below: str) -> None:
    ax.set_title(title, loc="left", fontweight="bold", y=1.0, pad=18)
    ax.text(0, 1.025, below, transform=ax.transAxes, fontsize=8.5)


def _class_colour(one: int) -> str:
    return COLOURS[one % len(COLOURS)]


def _class_handles(classes: Sequence[int] | np.ndarray, names: Sequence[str], marker: str = "o") -> list[Line2D]:
    shown = sorted({int(one) for one in classes})
    if len(shown) < 2 or shown[-1] >= len(names):
        return []
    style: dict[str, Any] = {"marker": marker, "linestyle": "", "markersize": 4.5}
    return [Line2D([], [], color=_class_colour(one), label=short(f" {names[one]}"), **style) for one in shown]


def _legend(figure: Figure, handles: list[Line2D], place: Any = "outside lower center") -> None:
    if handles:
        figure.legend(handles=handles, loc=place, ncols=min(len(handles), 6), frameon=False)
