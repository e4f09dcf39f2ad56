"""Figures of a model's reliance on a confound: the influence difference along training, and the distributions of influences.

Han & Tsvetkov 2021, figures 1 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from orchestrator.campaigns.recipe_grid.accuracy_figures import legend_label
from orchestrator.campaigns.recipe_grid.grid_rows import LEVEL_LENGTH, level_text, ordered, series_name
from orchestrator.report import numbers
from orchestrator.report.canvas import COLOURS, CONTROL_COLOUR, GRID, INK, Look, canvas, looks, short

CURVES_PER_PANEL, PANELS = 6, 24
_PER_ROW, _BINS = 3, 28
_SAME, _OTHER = COLOURS[1], COLOURS[0]  # the paper's colours of figure 1
_RAMP = ("#c29000", "#d9601a", "#b45fa6", "#2a7fc1")  # colours of levels from low to high: mid tones, as COLOURS
_MARKERS_UP_TO = 12  # points of a curve; more markers would hide the curve


class InfluencesToDraw(Protocol):
    """Influences of the train examples with a probe's label: those with the `same` confound as the probe, and those with an `other` one."""

    @property
    def arm(self) -> str: ...
    @property
    def level(self) -> Any: ...
    @property
    def seed(self) -> int: ...
    @property
    def probe_id(self) -> int: ...
    @property
    def same(self) -> np.ndarray: ...
    @property
    def other(self) -> np.ndarray: ...


def cid_svg(cid: pd.DataFrame, arms: Sequence[str], baseline: str, level_word: str = "", name: str = "cid") -> str:
    """Draw the confound influence difference against the training step, with bands from `ci_low` to `ci_high` (figure 3 of the paper).

    `cid`: `arm, level, step, stage, cid, ci_low, ci_high`; at a step that has stage "round" after "update" the curve has a
    vertical segment. Arms without levels share panels of six; an arm with levels has its own panel, with the baseline in grey.
    """
    rows = ordered(cid.dropna(subset=["cid"]), arms)
    panels = _panels(rows, arms, baseline)
    with canvas((8.6, 2.5 * len(panels) + 0.45), name) as (figure, out):
        axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        for ax, (title, curves) in zip(axes, panels, strict=True):
            ax.axhline(0, color=INK, linewidth=0.8)
            ax.grid(axis="y", color=GRID, linewidth=0.6)
            ax.set_axisbelow(True)
            ax.set_title(title, loc="left", fontweight="bold", y=1.0)
            handles = [_draw_curve(ax, rows, key, label, look) for key, label, look in curves]
            title = level_word if any(key[1] for key, _, _ in curves) else None
            ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title=title)
            ax.set_ylabel("influence difference")
            ax.margins(x=0.02)
        axes[-1].set_xlabel("training step")
        axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return out.getvalue()


def influence_svg(distributions: Sequence[InfluencesToDraw], probes: pd.DataFrame, name: str = "influence") -> str:
    """Draw the densities of the influence of same-confound and of other-confound examples on a probe, one panel per arm and level (figure 1).

    `probes`: `arm, level, seed, probe_id, cid, p`, where `cid` is the difference of the two means and `p` that of its Welch test.
    """
    n_columns = min(len(distributions), _PER_ROW)
    n_rows = -(-len(distributions) // _PER_ROW)
    edges = _edges(distributions)
    width, height = max(2.85 * n_columns, 4.4), 2.35 * n_rows + 0.5
    with canvas((width, height), name) as (figure, out):
        axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True)
        for ax in axes.flat[len(distributions) :]:
            ax.set_visible(False)
        for ax, one in zip(axes.flat, distributions, strict=False):
            ax.set_title(_panel_name(one), loc="left", fontweight="bold", y=1.0, pad=18)
            ax.text(0, 1.025, _tested(one, probes), transform=ax.transAxes, fontsize=8.5)
            _draw_density(ax, one.other, edges, _OTHER, "--")
            _draw_density(ax, one.same, edges, _SAME, "-")
            ax.yaxis.set_major_locator(MaxNLocator(4))
        for ax in axes[:, 0]:
            ax.set_ylabel("density")
        for ax in axes.flat[max(len(distributions) - n_columns, 0) : len(distributions)]:
            ax.set_xlabel("influence on the probe")
            ax.tick_params(labelbottom=True)
        axes[0, 0].xaxis.set_major_locator(MaxNLocator(5))
        figure.legend(
            handles=_density_handles(), loc="outside lower center", ncols=4 if n_columns > 2 else 2, frameon=False
        )
    return out.getvalue()


def shown_distributions(distributions: Sequence[InfluencesToDraw], arms: Sequence[str]) -> list[InfluencesToDraw]:
    """Return one distribution per arm and level, in their order, if possible of the same probe and seed.

    The choice does not depend on the values: it is the first (seed, probe) among those that most arms and levels share. If there
    are more than 24 panels, only the lowest and the highest level of each arm are kept.
    """
    held: dict[tuple[int, int], int] = {}
    for one in distributions:
        held[one.seed, one.probe_id] = held.get((one.seed, one.probe_id), 0) + 1
    shared = max(held, key=lambda key: held[key], default=None)
    found: dict[tuple[str, str], InfluencesToDraw] = {}
    for one in sorted(distributions, key=lambda one: _distance(one, shared)):
        found.setdefault((one.arm, level_text(one.level)), one)
    keys = pd.DataFrame(list(found), columns=["arm", "level"])
    kept = ordered(keys, arms)
    if len(kept) > PANELS:
        kept = kept.groupby("arm", sort=False).nth([0, -1])
    return [found[arm, level] for arm, level in zip(kept["arm"], kept["level"], strict=True)]


def _distance(one: InfluencesToDraw, shared: tuple[int, int] | None) -> tuple[bool, bool]:
    """Return a sort key: the shared probe with the shared seed comes first, then the shared probe with other seeds, then other probes."""
    seed, probe = shared or (one.seed, one.probe_id)
    return one.probe_id != probe, one.seed != seed


def along_training(cid: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order of training: at one step the update comes before the round of influence tuning that follows it."""
    is_later = cid["stage"].to_numpy(str) != "update"
    return cid.iloc[np.lexsort((is_later, cid["step"].to_numpy(int)))]


def _panels(
    rows: pd.DataFrame, arms: Sequence[str], baseline: str
) -> list[tuple[str, list[tuple[tuple[str, str], str, Look]]]]:
    """Return for every panel its title and the ((arm, level), label, look) of its curves."""
    keys = list(dict.fromkeys(zip(rows["arm"], rows["level"], strict=True)))
    style = looks(arms)
    plain = [((arm, level), legend_label(arm), style[arm]) for arm, level in keys if not level]
    panels = [("", plain[i : i + CURVES_PER_PANEL]) for i in range(0, len(plain), CURVES_PER_PANEL)]
    for arm in dict.fromkeys(arm for arm, level in keys if level):
        levels = [level for one, level in keys if one == arm and level]
        colours = LinearSegmentedColormap.from_list("levels", _RAMP)(np.linspace(0, 1, len(levels)))
        curves = [
            ((arm, level), short(level, LEVEL_LENGTH), Look(to_hex(c), "os^Dv*P<"[i % 8], "-"))
            for i, (level, c) in enumerate(zip(levels, colours, strict=True))
        ]
        if (baseline, "") in keys:
            curves.append(((baseline, ""), legend_label(baseline), Look(CONTROL_COLOUR, "X", "--")))
        panels.append((short(arm), curves))
    return panels


def _draw_curve(ax: Axes, rows: pd.DataFrame, key: tuple[str, str], label: str, look: Look) -> Line2D:
    curve = rows.loc[(rows["arm"] == key[0]) & (rows["level"] == key[1])]
    curve = along_training(curve)
    x, y, low, high = (curve[name].to_numpy(float) for name in ("step", "cid", "ci_low", "ci_high"))
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.dashes, "linewidth": 1.5, "markersize": 4.5}
    style["marker"] = look.marker if len(x) <= _MARKERS_UP_TO else ""
    ax.plot(x, y, **style)
    if len(x) == 1:  # a band needs two points
        ax.vlines(x, low, high, color=look.colour, linewidth=1.2)
    else:
        ax.fill_between(x, low, high, color=look.colour, alpha=0.13, linewidth=0)
    return Line2D([], [], label=label, **style)


def _edges(distributions: Sequence[InfluencesToDraw]) -> np.ndarray:
    """Return the edges of the bins, which all panels share."""
    values = np.concatenate([_finite(side) for one in distributions for side in (one.same, one.other)])
    low, high = (float(values.min()), float(values.max())) if len(values) else (-1.0, 1.0)
    return np.linspace(low, high, _BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, _BINS + 1)


def _draw_density(ax: Axes, values: np.ndarray, edges: np.ndarray, colour: str, dashes: str) -> None:
    finite = _finite(values)
    if not len(finite):
        return
    density = np.histogram(finite, edges, density=True)[0]
    ax.stairs(density, edges, fill=True, color=colour, alpha=0.4)
    ax.stairs(density, edges, color=colour, linewidth=0.9)
    ax.axvline(float(finite.mean()), color=colour, linewidth=1.5, linestyle=dashes)


def _density_handles() -> list[Any]:
    sides: Any = (("same confound as the probe", _SAME, "-"), ("another confound", _OTHER, "--"))
    patches = [Patch(color=colour, alpha=0.5, label=label) for label, colour, _ in sides]
    mean: dict[str, Any] = {"linewidth": 1.5, "label": "its mean"}
    lines = [Line2D([], [], color=colour, linestyle=dashes, **mean) for _, colour, dashes in sides]
    return [handle for pair in zip(patches, lines, strict=True) for handle in pair]


def _panel_name(one: InfluencesToDraw) -> str:
    return series_name(one.arm, level_text(one.level), 28)


def _tested(one: InfluencesToDraw, probes: pd.DataFrame) -> str:
    """Return the difference of the means and the p of its Welch test in words, as in the table."""
    if not len(probes):
        return ""
    row: Mapping[Any, Any] | None = next(
        iter(
            probes.loc[
                (probes["arm"] == one.arm)
                & (probes["level"].map(level_text) == level_text(one.level))
                & (probes["seed"] == one.seed)
                & (probes["probe_id"] == one.probe_id)
            ].to_dict("records")
        ),
        None,
    )
    if row is None or numbers.is_missing(row["cid"]):
        return "no difference: one side is empty"
    p = numbers.p_value(row["p"])
    return f"difference {numbers.signed(row['cid'], 3)}, Welch p {p if p.startswith('<') else '= ' + p}"


def _finite(values: np.ndarray) -> np.ndarray:
    found = np.asarray(values, float).ravel()
    return found[np.isfinite(found)]
