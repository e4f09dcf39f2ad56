"""The figure of a debias campaign: the effect size of every bias test before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from orchestrator.report.canvas import GRID, INK, Look, canvas, looks, short, unique
from orchestrator.report.numbers import is_missing

HELD_OUT, WHOLE, PER_SEED = "held_out", "whole", "per_seed"
# half -> side. Only effects on the same words are compared: an effect chosen on one half and reported on the other, with the
# mean of both halves.
SIDES = {
    "held_out": HELD_OUT,
    "halves": HELD_OUT,
    "chosen": WHOLE,
    "all": WHOLE,
    "chosen_per_seed": PER_SEED,
}
_PER_ROW = 2


def effects_svg(effects: pd.DataFrame, name: str = "effects") -> str:
    """Draw the effect size with its 95% interval, one panel per test, one row per variant; the line at 0 means no bias.

    `effects`: `test, variant, half, effect, ci_low, ci_high`, with `half` one of SIDES. Filled points: on the words on which
    nothing was chosen; hollow points below: on the whole test, on which the setting was chosen. Without filled points, the
    latter are filled.
    """
    tests, variants = unique(effects, "test"), unique(effects, "variant")
    style = looks(variants)
    n_rows = -(-len(tests) // _PER_ROW)
    n_columns = min(len(tests), _PER_ROW)
    with canvas((4.5 * n_columns, n_rows * (0.42 * len(variants) + 0.75) + 0.7), name) as (figure, out):
        axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
        for ax in axes.flat[len(tests) :]:
            ax.set_visible(False)
        for ax, test in zip(axes.flat, tests, strict=False):
            ax.set_title(short(test), loc="left", fontweight="bold", y=1.0)
            ax.axvline(0, color=INK, linewidth=0.8)
            ax.grid(axis="x", color=GRID, linewidth=0.6)
            ax.set_axisbelow(True)
            for place, variant in enumerate(variants):
                rows = effects.loc[(effects["test"].astype(str) == test) & (effects["variant"].astype(str) == variant)]
                _draw_variant(ax, place, rows, style[variant])
        for ax in axes.flat[max(len(tests) - n_columns, 0) : len(tests)]:
            ax.set_xlabel("effect size (0: no bias)")
            ax.tick_params(labelbottom=True)
            ax.xaxis.set_major_locator(MaxNLocator(6))
        axes[0, 0].set_yticks(range(len(variants)), [short(variant.replace("_", " ")) for variant in variants])
        axes[0, 0].set_ylim(len(variants) - 0.4, -0.5)
        figure.legend(handles=_handles(effects), loc="outside lower center", ncols=2, frameon=False)
    return out.getvalue()


def _draw_variant(ax: Axes, place: int, rows: pd.DataFrame, look: Look) -> None:
    by_side = {SIDES.get(str(row["half"])): row for row in reversed(rows.to_dict("records"))}
    held_out = HELD_OUT in by_side
    if held_out:
        _draw_point(ax, place, by_side[HELD_OUT], look, filled=True)
    if WHOLE in by_side:
        _draw_point(ax, place + 0.26 * held_out, by_side[WHOLE], look, filled=not held_out)


def _draw_point(ax: Axes, place: float, row: Mapping[Any, Any], look: Look, *, filled: bool) -> None:
    low, high, effect = (
        math.nan if is_missing(row[name]) else float(row[name]) for name in ("ci_low", "ci_high", "effect")
    )
    ax.plot([low, high], [place, place], color=look.colour, linewidth=2.2 if filled else 1.0, solid_capstyle="butt")
    face = look.colour if filled else "none"
    ax.plot(
        effect,
        place,
        marker=look.marker,
        color=look.colour,
        markerfacecolor=face,
        markersize=6 if filled else 5,
        markeredgewidth=1.0,
    )


def _handles(effects: pd.DataFrame) -> Sequence[Line2D]:
    sides = {SIDES.get(str(half)) for half in effects["half"]}
    point: dict[str, Any] = {"color": INK, "marker": "o", "linestyle": ""}
    filled = "words on which nothing was chosen" if HELD_OUT in sides else "the whole test"
    handles = [Line2D([], [], markersize=6, label=filled, **point)]
    if {HELD_OUT, WHOLE} <= sides:
        label = "the whole test, the setting chosen on it"
        handles.append(Line2D([], [], markersize=5, markerfacecolor="none", label=label, **point))
    return handles
