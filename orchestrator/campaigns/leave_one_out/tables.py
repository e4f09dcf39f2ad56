"""Tables of agreement between predicted and measured influence, with intervals over units, and their verdicts.

They are all computed from the rows of `agreement.points`. A query without r (solver diverged, fewer than three points, no
variance) counts as below the threshold in every share, and is left out of the means of r and rho.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.contrasts import holm
from orchestrator.analysis.curves import Row
from orchestrator.analysis.units import over_units
from orchestrator.analysis.verdicts import interval, number
from orchestrator.campaigns.leave_one_out.agreement import KEY, Comparison, Key, key_text, points

THRESHOLD = 0.8
FAR_OVER = 10.0
STATISTICS = {"mean_r": "mean r", "share_above": "share of queries", "class_share": "share of queries by class"}
_COUNTS = ["n_queries", "n_diverged", "n_undefined", "n_holes"]
_OVER = ["over_median", "over_p90", "over_10x"]
UNITS = [*KEY, "unit", "mean_r", "mean_rho", "share_above", "class_share", *_OVER, *_COUNTS]
CLASSES = [*KEY, "unit", "class", "share_above", "n_queries"]
AGREEMENT = [
    *KEY,
    *["mean_r", "ci_low", "ci_high", "mean_rho"],
    *["share_above", "share_ci_low", "share_ci_high"],
    *["class_share", "class_share_ci_low", "class_share_ci_high", "class_share_sd"],
    *_OVER,
    "threshold",
    "n_units",
    *_COUNTS,
]
BASELINE = [f"baseline_{name}" for name in KEY]
CONTRASTS = [
    *KEY,
    *BASELINE,
    "statistic",
    "threshold",
    "diff",
    "se",
    "ci_low",
    "ci_high",
    "p",
    "p_holm",
    "n_units",
    "n_queries",
]


def agreement_tables(
    comparisons: Iterable[Comparison], pairs: Sequence[tuple[Key, Key]] = (), threshold: float = THRESHOLD
) -> dict[str, pd.DataFrame]:
    """Return all tables by file name: points, agreement, agreement_units, agreement_classes and agreement_contrasts."""
    found = points(comparisons)
    return {
        "agreement": agreement(found, threshold),
        "agreement_units": agreement_units(found, threshold),
        "agreement_classes": agreement_classes(found, threshold),
        "agreement_contrasts": agreement_contrasts(found, pairs, threshold),
        "points": found,
    }


def agreement_units(found: pd.DataFrame, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Return the agreement within each unit (columns UNITS).

    share_above = share of queries with r >= threshold; class_share = mean over classes of the share within the class, the
    statistic of Silva et al. 2022, section 4.1; over_* = median, 90% quantile and share above 10 of rms(predicted) /
    rms(actual) over the queries that have this ratio (appendix I). n_diverged: queries without any prediction; n_undefined:
    other queries without r; n_holes: missing points of queries that have a prediction.
    """
    rows = [
        {**dict(zip([*KEY, "unit"], key, strict=True)), **_numbers(rows, threshold)}
        for key, rows in _groups(found, [*KEY, "unit"])
    ]
    return pd.DataFrame(rows, columns=UNITS)


def agreement_classes(found: pd.DataFrame, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Return the share of queries with r >= threshold, per unit and class (columns CLASSES), classes ascending within a unit."""
    rows = []
    for key, unit_rows in _groups(found, [*KEY, "unit"]):
        shares = _class_shares(unit_rows, threshold)
        rows += [(*key, *columns) for columns in zip(*shares, strict=True)]
    return pd.DataFrame(rows, columns=CLASSES)


def agreement(found: pd.DataFrame, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Return the agreement of every (label, scores, truth) (columns AGREEMENT): means over units with 95% t intervals.

    Units are independent but queries within a unit are not, so each unit counts once; intervals are NaN with one unit.
    A unit in which no query has r counts as 0 in the shares and is left out of the mean of r. class_share_sd: standard
    deviation over units. over_*: over the queries of all units.
    """
    units = agreement_units(found, threshold)
    rows = [
        {**dict(zip(KEY, key, strict=True)), **_over_units(unit_rows), "threshold": threshold, **_over_queries(rows)}
        for (key, unit_rows), (_, rows) in zip(_groups(units, KEY), _groups(found, KEY), strict=True)
    ]
    return pd.DataFrame(rows, columns=AGREEMENT)


def agreement_contrasts(
    found: pd.DataFrame, pairs: Sequence[tuple[Key, Key]], threshold: float = THRESHOLD
) -> pd.DataFrame:
    """Return differences between two comparisons, paired by unit, of mean r and of both shares (columns CONTRASTS).

    Within a unit, the statistics use the queries that both comparisons have; mean r uses those where both have r. diff = mean
    over the common units, with 95% t interval and p over units; Holm's family is all pairs of one statistic.
    se, interval and p are NaN with fewer than two units.
    Raises ValueError for an unknown key.
    """
    there = dict(_groups(found, KEY))
    missing = [key for pair in pairs for key in pair if key not in there]
    if missing:
        raise ValueError(f"there is no comparison {missing[0]}; known are {sorted(there)}")
    rows = [row for pair in pairs for row in _contrast(pair, there, threshold)]
    frame = pd.DataFrame(rows, columns=CONTRASTS)
    for statistic in STATISTICS:
        family = frame["statistic"] == statistic
        frame.loc[family, "p_holm"] = holm(frame.loc[family, "p"].to_numpy(np.float64))
    return frame


def agreement_verdicts(contrasts: Iterable[Mapping[Any, Any]], level: float = 0.05) -> list[str]:
    """Return one sentence for every contrast row, in their order: which of the two agrees better with retraining."""
    return [_verdict(row, level) for row in contrasts]


def _groups(frame: pd.DataFrame, by: list[str]) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """Yield (key, rows) in the order of first appearance."""
    yield from ((tuple(key), rows) for key, rows in frame.groupby(by, sort=False))  # type: ignore[misc]


def _numbers(rows: pd.DataFrame, threshold: float) -> Row:
    """Return the statistics of one unit."""
    r = rows["r"].to_numpy(np.float64)
    return {
        "mean_r": _mean(r),
        "mean_rho": _mean(rows["rho"].to_numpy(np.float64)),
        "share_above": float((r >= threshold).mean()),
        "class_share": float(_class_shares(rows, threshold)[1].mean()),
        **_over_queries(rows),
    }


def _over_queries(rows: pd.DataFrame) -> Row:
    """Return the statistics over queries of any units: over-estimation and counts."""
    over = rows["over"].to_numpy(np.float64)
    over = over[~np.isnan(over)]
    median, p90 = np.quantile(over, (0.5, 0.9)) if len(over) else (np.nan, np.nan)
    diverged = rows["diverged"].to_numpy(bool)
    return {
        "over_median": float(median),
        "over_p90": float(p90),
        "over_10x": _mean(np.where(over > FAR_OVER, 1.0, 0.0)),
        "n_queries": len(rows),
        "n_diverged": int(diverged.sum()),
        "n_undefined": int((np.isnan(rows["r"].to_numpy(np.float64)) & ~diverged).sum()),
        "n_holes": int((rows["n_points"] - rows["n_pairs"]).to_numpy()[~diverged].sum()),
    }


def _over_units(units: pd.DataFrame) -> Row:
    """Return the means over units and their intervals."""
    r, share, by_class = (over_units(units[name].to_numpy(np.float64)) for name in STATISTICS)
    return {
        "mean_r": float(r.mean),
        **_interval(r.ci, "ci"),
        "mean_rho": _mean(units["mean_rho"].to_numpy(np.float64)),
        "share_above": float(share.mean),
        **_interval(share.ci, "share_ci"),
        "class_share": float(by_class.mean),
        **_interval(by_class.ci, "class_share_ci"),
        "class_share_sd": float(by_class.se * np.sqrt(by_class.n)),
        "n_units": len(units),
    }


def _interval(ci: tuple[np.ndarray, np.ndarray], name: str) -> Row:
    return {f"{name}_low": float(ci[0]), f"{name}_high": float(ci[1])}


def _class_shares(rows: pd.DataFrame, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the classes, the share of queries with r >= threshold in each, and the number of queries in each."""
    classes, position = np.unique(rows["class"].to_numpy(np.int64), return_inverse=True)
    n = np.bincount(position)
    return classes, np.bincount(position, weights=rows["r"].to_numpy(np.float64) >= threshold) / n, n


def _contrast(pair: tuple[Key, Key], there: Mapping[tuple, pd.DataFrame], threshold: float) -> Iterator[Row]:
    first, second = (dict(_groups(there[key], ["unit"])) for key in pair)
    units = [_common(first[unit], second[unit]) for unit in first if unit in second]
    diffs = [_differences(a, b, threshold) for a, b in units if len(a)]
    names = {**dict(zip(KEY, pair[0], strict=True)), **dict(zip(BASELINE, pair[1], strict=True))}
    for statistic in STATISTICS:
        mean = over_units(np.array([diff[statistic] for diff in diffs], np.float64))
        yield {
            **names,
            "statistic": statistic,
            "threshold": threshold,
            "diff": float(mean.mean) + 0.0,
            "se": float(mean.se),
            **_interval(mean.ci, "ci"),
            "p": float(mean.p),
            "p_holm": np.nan,
            "n_units": int(mean.n),
            "n_queries": sum(diff["n_r" if statistic == "mean_r" else "n_queries"] for diff in diffs),
        }


def _common(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of the queries that both have, in the same order."""
    ids = np.intersect1d(a["query_id"], b["query_id"])
    return a.set_index("query_id").loc[ids], b.set_index("query_id").loc[ids]


def _differences(a: pd.DataFrame, b: pd.DataFrame, threshold: float) -> Row:
    """Return the differences within one unit, and the numbers of queries they are computed from."""
    r, baseline = a["r"].to_numpy(np.float64), b["r"].to_numpy(np.float64)
    both = np.isfinite(r) & np.isfinite(baseline)
    by_class, baseline_by_class = (float(_class_shares(rows, threshold)[1].mean()) for rows in (a, b))
    return {
        "mean_r": _mean((r - baseline)[both]),
        "share_above": float((r >= threshold).mean() - (baseline >= threshold).mean()),
        "class_share": by_class - baseline_by_class,
        "n_queries": len(r),
        "n_r": int(both.sum()),
    }


def _mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan


def _verdict(row: Mapping[Any, Any], level: float) -> str:
    names = [key_text((row[label], row[scores], row[truth])) for label, scores, truth in (KEY, BASELINE)]
    what = STATISTICS[row["statistic"]]
    if row["statistic"] != "mean_r":
        what = what.replace("queries", f"queries with r at or above {number(row['threshold'])}")
    if isnan(row["p_holm"]):
        return f"By {what}, {names[0]} could not be compared with {names[1]}: fewer than two units in common."
    numbers = (
        f"difference {number(row['diff'])} {interval(row['ci_low'], row['ci_high'])}, Holm p {number(row['p_holm'])}."
    )
    if row["p_holm"] >= level:
        return f"By {what}, {names[0]} and {names[1]} could not be told apart: {numbers}"
    outcome = "better" if row["diff"] > 0 else "worse"
    return f"By {what}, {names[0]} agrees {outcome} with retraining than {names[1]}: {numbers}"
