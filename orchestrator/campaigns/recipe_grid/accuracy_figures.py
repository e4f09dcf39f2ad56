"""Figures of the accuracy of a recipe grid: every arm with its interval and trials, and curves over the levels of the ablated key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from orchestrator.campaigns.recipe_grid.grid_rows import (
    LEVEL_LENGTH,
    is_crowded,
    level_places,
    ordered,
    ordered_levels,
    series_name,
)
from orchestrator.report.canvas import (
    CONTROL_COLOUR,
    GRID,
    INK,
    Look,
    canvas,
    legend_columns,
    looks,
    short,
)
from orchestrator.report.numbers import is_missing

_GAP = 0.35  # additional space between two arms if one of them has levels
_LEVELS_WIDTH = 8.4


def accuracy_svg(
    accuracy: pd.DataFrame, trials: pd.DataFrame, arms: Sequence[str], baseline: str, name: str = "accuracy"
) -> str:
    """Draw the mean test accuracy with its interval, one row per arm and level, above all trials of that setting.

    `accuracy`: `arm, level, setting, test, ci_low, ci_high, paper`; `trials`: `arm, level, setting, status, test`.
    A hollow dot is a failed trial, which the mean leaves out; a hollow triangle at the edge is a failed trial beyond the edge.
    The vertical tick is the published value, the dashed line the baseline's mean.
    """
    rows, style = ordered(accuracy, arms).to_dict("records"), looks(arms)
    places = _places(rows)
    with canvas((8.4, 0.46 * (places[-1] + 1) + 1.15), name) as (figure, out):
        ax = figure.subplots()
        ax.grid(axis="x", color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_xlim(*_limits(rows, trials))
        means = [_float(row["test"]) for row in rows if row["arm"] == baseline and not is_missing(row["test"])]
        if len(means) == 1:
            ax.axvline(means[0], color=CONTROL_COLOUR, linewidth=1, linestyle="--")
        for place, row in zip(places, rows, strict=True):
            _draw_accuracy(ax, place, row, trials.loc[trials["setting"] == row["setting"]], style[row["arm"]])
        ax.set_yticks(places, [series_name(row["arm"], row["level"]) for row in rows])
        ax.set_ylim(places[-1] + 0.75, -0.5)
        ax.set_xlabel("accuracy on the test split")
        ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        handles = _accuracy_handles(rows, trials, baseline, len(means) == 1)
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return out.getvalue()


def levels_svg(
    accuracy: pd.DataFrame, arms: Sequence[str], baseline: str, level_word: str, name: str = "levels"
) -> str:
    """Draw the test accuracy against the level for each arm that has levels; arms without levels are horizontal lines.

    `accuracy`: as for `accuracy_svg`, with `n_trials, n_failed`. Levels are placed on a logarithmic axis if they differ by
    more than a factor of 5, and evenly if they are not numbers or their labels would touch. If any trial failed, the numbers of
    failed and of all trials per arm and level are written below.
    """
    rows, style = ordered(accuracy, arms), looks(arms)
    curves, lines = rows.loc[rows["level"] != ""], rows.loc[rows["level"] == ""]
    shown = [arm for arm in arms if arm in set(curves["arm"])]
    levels = list(dict.fromkeys(ordered_levels(curves["level"])))
    places, is_even = level_places(levels)
    strip = bool(curves["n_failed"].fillna(0).sum())
    labels = [short(arm) for arm in arms if arm in set(rows["arm"])]
    columns = legend_columns(labels, _LEVELS_WIDTH)
    height = 3.9 + 0.2 * -(-len(labels) // columns) + strip * (0.24 * len(shown) + 0.45)
    with canvas((_LEVELS_WIDTH, height), name) as (figure, out):
        ratios = [3.4, 0.24 * len(shown)] if strip else [1.0]
        axes = figure.subplots(len(ratios), 1, squeeze=False, sharex=True, height_ratios=ratios)[:, 0]
        _frame_levels(axes[0], levels, places, f"{level_word}{' (not to scale)' if is_even else ''}")
        handles = [_draw_level_curve(axes[0], curves, arm, shown, levels, places, style[arm]) for arm in shown]
        handles += [
            _draw_line(axes[0], row, style[row["arm"]], (i + 0.5) / len(lines), has_band=row["arm"] == baseline)
            for i, row in enumerate(lines.to_dict("records"))
        ]
        if strip:
            _draw_failed(axes[1], curves, shown, levels, places, style)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.6)
    return out.getvalue()


def _float(value: Any) -> float:
    return math.nan if is_missing(value) else float(value)


def _places(rows: Sequence[Mapping[Any, Any]]) -> list[float]:
    """Return the vertical positions of the rows: 1 apart, plus _GAP between two arms if one of them has levels."""
    places, place = [], 0.0
    for i, row in enumerate(rows):
        if i and row["arm"] != rows[i - 1]["arm"]:
            place += _GAP * bool(row["level"] or rows[i - 1]["level"])
        places.append(place)
        place += 1
    return places


def _draw_accuracy(ax: Axes, place: float, row: Mapping[Any, Any], trials: pd.DataFrame, look: Look) -> None:
    interval = [_float(row["ci_low"]), _float(row["ci_high"])]
    ax.plot(interval, [place, place], color=look.colour, linewidth=2.2, solid_capstyle="butt")
    ax.plot(_float(row["test"]), place, marker=look.marker, color=look.colour, markersize=7, linestyle="")
    ax.plot(_float(row.get("paper")), place, "|", color=INK, markersize=13, markeredgewidth=1.6)
    fitted = trials["status"].to_numpy(str) == "ok"
    test, below = trials["test"].to_numpy(float), place + 0.32 + _spread(len(trials))
    ax.plot(test[fitted], below[fitted], "o", color=look.colour, alpha=0.5, markersize=4.5)
    low, high = ax.get_xlim()
    is_off = ~fitted & ((test < low) | (test > high))
    hollow: dict[str, Any] = {"color": look.colour, "markerfacecolor": "none", "markersize": 4.5, "linestyle": ""}
    ax.plot(test[~fitted & ~is_off], below[~fitted & ~is_off], marker="o", **hollow)
    for marker, some, edge, inwards in (("<", is_off & (test < low), low, 1), (">", is_off & (test > high), high, -1)):
        beside = edge + inwards * (high - low) * (0.012 + 0.014 * np.arange(some.sum()))
        ax.plot(beside, np.full(some.sum(), place + 0.32), marker=marker, **hollow)


def _spread(n: int) -> np.ndarray:
    """Return small vertical offsets, so that equal values do not hide each other."""
    return np.linspace(-0.07, 0.07, n) if n > 1 else np.zeros(n)


def _limits(rows: Sequence[Mapping[Any, Any]], trials: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of everything drawn except failed trials, which may lie far away; they count if there is nothing else."""
    values = [_float(row.get(name)) for row in rows for name in ("test", "ci_low", "ci_high", "paper")]
    shown = [trials.loc[trials["setting"] == row["setting"]] for row in rows]
    values += [_float(v) for one in shown for v in one.loc[one["status"] == "ok", "test"]]
    finite = [v for v in values if math.isfinite(v)] or [_float(v) for one in shown for v in one["test"]]
    finite = [v for v in finite if math.isfinite(v)] or [0.0, 1.0]
    margin = 0.06 * (max(finite) - min(finite)) or 0.02
    return min(finite) - margin, max(finite) + margin


def _accuracy_handles(
    rows: Sequence[Mapping[Any, Any]], trials: pd.DataFrame, baseline: str, has_line: bool
) -> list[Line2D]:
    dot: dict[str, Any] = {"color": INK, "marker": "o", "linestyle": ""}
    handles = [
        Line2D([], [], color=INK, marker="o", markersize=6, linewidth=2.2, label="mean and 95% interval"),
        Line2D([], [], markersize=4.5, alpha=0.5, label="one trial", **dot),
    ]
    if set(trials["status"]) - {"ok"}:
        handles.append(Line2D([], [], markersize=4.5, markerfacecolor="none", label="failed trial, left out", **dot))
    if any(not is_missing(row.get("paper")) for row in rows):
        tick: dict[str, Any] = {"marker": "|", "markersize": 11, "markeredgewidth": 1.6, "linestyle": ""}
        handles.append(Line2D([], [], color=INK, label="published value", **tick))
    if has_line:
        label = f"mean of {short(baseline)}"
        handles.append(Line2D([], [], color=CONTROL_COLOUR, linewidth=1, linestyle="--", label=label))
    return handles


def _frame_levels(ax: Axes, levels: Sequence[str], places: Sequence[float], label: str) -> None:
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xticks(places, [short(level, LEVEL_LENGTH) for level in levels])
    if is_crowded(levels, places):
        ax.tick_params(axis="x", labelrotation=30)
    ax.tick_params(labelbottom=True)
    ax.set_xlim(-0.06, 1.06)
    ax.set_xlabel(label)
    ax.set_ylabel("accuracy on the test split")


def _draw_level_curve(
    ax: Axes,
    curves: pd.DataFrame,
    arm: str,
    shown: Sequence[str],
    levels: Sequence[str],
    places: Sequence[float],
    look: Look,
) -> Line2D:
    """Draw the curve of one arm, slightly shifted, so that intervals of different arms do not hide each other."""
    by_level = {row["level"]: row for row in curves.loc[curves["arm"] == arm].to_dict("records")}
    present = [(place, by_level[level]) for place, level in zip(places, levels, strict=True) if level in by_level]
    step = min(0.014, 0.05 / len(shown))
    x = np.array([place for place, _ in present]) + step * (shown.index(arm) - (len(shown) - 1) / 2)
    y, low, high, paper = (
        [_float(row.get(name)) for _, row in present] for name in ("test", "ci_low", "ci_high", "paper")
    )
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linestyle": look.dashes, "linewidth": 1.6}
    ax.vlines(x, low, high, color=look.colour, linewidth=1.6)
    ax.plot(x, y, markersize=5.5, **style)
    ax.plot(x, paper, "_", color=INK, markersize=9, markeredgewidth=1.6)
    return Line2D([], [], markersize=5.5, label=legend_label(arm), **style)


def _draw_line(ax: Axes, row: Mapping[Any, Any], look: Look, place: float, *, has_band: bool) -> Line2D:
    """Draw a horizontal line with one marker at `place`; the marker is needed because colours repeat after six arms."""
    style: dict[str, Any] = {"color": look.colour, "linewidth": 1.4, "linestyle": (0, (5, 2, 1, 2)), "markersize": 5.5}
    test = _float(row["test"])
    ax.plot([-0.06, place, 1.06], [test] * 3, marker=look.marker, markevery=[1], **style)
    if has_band:
        low, high = [_float(row["ci_low"])] * 2, [_float(row["ci_high"])] * 2
        ax.fill_between([-0.06, 1.06], low, high, color=look.colour, alpha=0.1, linewidth=0)
    return Line2D([], [], marker=look.marker, label=legend_label(row["arm"]), **style)


def _draw_failed(
    ax: Axes,
    curves: pd.DataFrame,
    shown: Sequence[str],
    levels: Sequence[str],
    places: Sequence[float],
    style: Mapping[str, Look],
) -> None:
    """Write `failed/all` trials below every point, one line of text per arm."""
    where = dict(zip(levels, places, strict=True))
    for row in curves.to_dict("records"):
        n, total = (0 if is_missing(row[name]) else int(row[name]) for name in ("n_failed", "n_trials"))
        weight = "bold" if n else "normal"
        ax.text(where[row["level"]], shown.index(row["arm"]), f"{n}/{total}", ha="center", va="center", weight=weight)
    ax.set_title("failed trials", loc="left", fontsize=9, y=1.0)
    ax.set_yticks(range(len(shown)), [short(arm) for arm in shown])
    for place, arm in enumerate(shown):
        ax.plot(-0.05, place, marker=style[arm].marker, color=style[arm].colour, markersize=5.5)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.tick_params(bottom=False, left=False, labelbottom=False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)


def legend_label(label: str) -> str:
    """Return a label for a legend; a blank precedes a leading underscore, since matplotlib leaves out labels that begin with one."""
    return f" {short(label)}" if label.startswith("_") else short(label)
