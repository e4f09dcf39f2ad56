"""How often a fine-tune changes the bias of its own test in the direction that influence predicted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.curves import Row
from orchestrator.analysis.shares import clopper_pearson, clustered_share
from orchestrator.analysis.verdicts import number
from orchestrator.campaigns.debias.effects import ALL, EffectGrid

DIRECTIONS = ["test", "start", "action", "size", "passes", "count", "n", "share", "ci_low", "ci_high"]
DIRECTIONS += ["ci_seed_low", "ci_seed_high", "n_units", "n_seeds"]
HALF = 0.5


def directions(grid: EffectGrid, predicted_sign: np.ndarray, controls: Collection[str] = ()) -> pd.DataFrame:
    """Return the share of fine-tunes that change the corrected test's effect in the predicted direction (columns DIRECTIONS).

    predicted_sign: -1, 1 or 0 (no prediction, left out), broadcast to [n_corrected, n_settings, n_seeds]: the predicted sign of
    the change of the effect on all words. A change of exactly zero does not count as moved; a missing change is left out.
    The first rows are per test and setting. There seeds are independent trials, and ci_* is the Clopper-Pearson interval.
    The other rows are pooled and have `all` in the pooled columns: over sizes and passes per test and action; over tests as well;
    and over everything but the start. Settings with one seed are not independent. In pooled rows the unit of ci_* is therefore
    (test, seed), and that of ci_seed_* the seed, since all tests share its models; see `shares.clustered_share`. Use ci_seed_* if
    tests have words in common; with few seeds it is wide. `controls`: actions that rows over all actions leave out.
    Raises ValueError for any other sign.
    """
    shape = (len(grid.corrected), len(grid.settings), len(grid.seeds))
    sign = np.broadcast_to(np.asarray(predicted_sign, np.float64), shape)
    if not np.isin(sign, (-1, 0, 1)).all():
        raise ValueError(f"predicted_sign holds {sorted(set(sign.ravel()) - {-1, 0, 1})}: only -1, 0 and 1 are signs")
    change = np.array([grid.change(test, test) for test in grid.corrected]).reshape(shape)
    known = np.isfinite(change) & (sign != 0)
    moved = known & (np.sign(change) == sign)
    return pd.DataFrame(
        _single_rows(grid, moved, known) + _pooled_rows(grid, moved, known, controls), columns=DIRECTIONS
    )


def direction_verdicts(rows: Iterable[Mapping[Any, Any]]) -> list[str]:
    """Return one sentence for every row pooled over tests: whether effects move in the predicted direction more often than not.

    The interval whose unit is the seed decides. Fine-tuning on arbitrary examples need not give a share of one half, because it
    may weaken a bias in any case; for this, compare with the rows of an action on random sets.
    """
    return [_verdict(row) for row in rows if row["test"] == ALL]


def _single_rows(grid: EffectGrid, moved: np.ndarray, known: np.ndarray) -> list[Row]:
    rows = []
    for c, test in enumerate(grid.corrected):
        for i, s in enumerate(grid.settings):
            count, n = int(moved[c, i].sum()), int(known[c, i].sum())
            interval = clopper_pearson(count, n)
            names = {"test": test, "start": s.start, "action": s.action, "size": s.size, "passes": s.passes}
            rows.append({**names, **_numbers(count, n, interval, interval), "n_units": n, "n_seeds": n})
    return rows


def _pooled_rows(grid: EffectGrid, moved: np.ndarray, known: np.ndarray, controls: Collection[str]) -> list[Row]:
    kinds = list(dict.fromkeys((s.start, s.action) for s in grid.settings))
    kinds += [(start, ALL) for start in dict.fromkeys(start for start, _ in kinds)]
    groups: list[tuple[str, slice]] = [(test, slice(c, c + 1)) for c, test in enumerate(grid.corrected)]
    groups.append((ALL, slice(None)))
    rows = []
    for test, which in groups:
        for start, action in kinds:
            judged = [s.action not in controls if action == ALL else s.action == action for s in grid.settings]
            among = [s.start == start and fits for s, fits in zip(grid.settings, judged, strict=True)]
            names = {"test": test, "start": start, "action": action, "size": ALL, "passes": ALL}
            rows.append({**names, **_pooled(moved[which][:, among], known[which][:, among])})
    return rows


def _pooled(moved: np.ndarray, known: np.ndarray) -> Row:
    """Return count, share and both intervals of cells [n_tests, n_settings, n_seeds]."""
    counts, trials = moved.sum(axis=1), known.sum(axis=1)
    by_cell = clustered_share(counts.ravel(), trials.ravel())
    by_seed = clustered_share(counts.sum(axis=0), trials.sum(axis=0))
    units = {"n_units": int((trials > 0).sum()), "n_seeds": int((trials > 0).any(axis=0).sum())}
    return {**_numbers(int(counts.sum()), int(trials.sum()), by_cell, by_seed), **units}


def _numbers(count: int, n: int, ci: tuple[float, float], ci_seed: tuple[float, float]) -> Row:
    share = count / n if n else np.nan
    intervals = {"ci_low": ci[0], "ci_high": ci[1], "ci_seed_low": ci_seed[0], "ci_seed_high": ci_seed[1]}
    return {"count": count, "n": n, "share": share, **intervals}


def _verdict(row: Mapping[Any, Any]) -> str:
    what = f"{'All actions' if row['action'] == ALL else row['action']} from {row['start']}"
    counted = f"{row['count']} of {row['n']} fine-tunes moved the effect the predicted way"
    if isnan(row["ci_seed_low"]):
        return f"{what}: {counted}; fewer than two seeds give no interval."
    interval = f"share {number(row['share'])} [{number(row['ci_seed_low'])}, {number(row['ci_seed_high'])}]"
    if row["ci_seed_low"] > HALF:
        return f"{what}: {counted}, more often than not, {interval}."
    if row["ci_seed_high"] < HALF:
        return f"{what}: {counted}, less often than not, {interval}."
    return f"{what}: {counted}, which does not tell from one half, {interval}."
