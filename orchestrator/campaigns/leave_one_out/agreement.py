"""Agreement of predicted influence with the influence that leave-one-out retraining measures, query by query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.analysis.layout import ROUNDING

KEY = ["label", "scores", "truth"]
POINTS = [*KEY, "unit", "query_id", "class", "r", "rho", "slope", "over", "n_pairs", "n_points", "diverged"]
LEAST_PAIRS = 3

Key = tuple[str, str, str]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Predicted and measured influence of every train point on every query, in one unit.

    `label` names the method, `scores` the scored model, `truth` the retrained model, and `unit` the data seed or repeat; each
    (label, scores, truth) occurs once per unit. `predicted` and `actual`: float64 [n_queries, n_points], both positive if the
    point helps the query, each on its own scale; `classes`, `query_ids`: int [n_queries].
    A row of `predicted` without any finite number means that the method's solver diverged for that query; other holes, such as
    retrains that diverged, are NaN in `predicted` or `actual`.
    Raises ValueError if shapes differ or a query occurs twice.
    """

    label: str
    scores: str
    truth: str
    unit: str
    predicted: np.ndarray
    actual: np.ndarray
    classes: np.ndarray
    query_ids: np.ndarray

    def __post_init__(self) -> None:
        shape = np.shape(self.predicted)
        if len(shape) != 2 or np.shape(self.actual) != shape:
            raise ValueError(f"{self.name}: predicted has shape {shape}, actual {np.shape(self.actual)}")
        for name in ("classes", "query_ids"):
            if np.shape(getattr(self, name)) != shape[:1]:
                raise ValueError(f"{self.name}: {name} has shape {np.shape(getattr(self, name))}, not {shape[:1]}")
        if len(np.unique(self.query_ids)) != shape[0]:
            raise ValueError(f"{self.name}: a query occurs twice")

    @property
    def key(self) -> Key:
        """(label, scores, truth), the same in every unit."""
        return self.label, self.scores, self.truth

    @property
    def name(self) -> str:
        """The comparison as messages name it."""
        return f"{key_text(self.key)}, unit {self.unit}"


def key_text(key: Key) -> str:
    """Return the name of a comparison, as all sentences show it."""
    return f"{key[0]} ({key[1]} against {key[2]})"


def points(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """Return one row per comparison, unit and query (columns POINTS), in the given order.

    r and rho are the correlations of Pearson and Spearman between predicted and actual, over the points where both are finite;
    slope = least squares of predicted on actual, with intercept; over = rms(predicted) / rms(actual).
    r and rho are NaN with fewer than 3 such points or without variance in predicted or actual, slope without variance of actual,
    over if actual is zero throughout. `n_pairs` of `n_points` points were used; `diverged`: there is no prediction at all.
    Silva et al. 2022, section 4.1 (r) and appendix I (slope; over-estimation by orders of magnitude).
    Raises ValueError if one (label, scores, truth) occurs twice in a unit.
    """
    given = list(comparisons)
    taken = [(*c.key, c.unit) for c in given]
    twice = {key for key in taken if taken.count(key) > 1}
    if twice:
        raise ValueError(f"a comparison occurs twice in one unit: {sorted(twice)}")
    frames = [_frame(c) for c in given if len(c.query_ids)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=POINTS)


def _frame(comparison: Comparison) -> pd.DataFrame:
    predicted = np.asarray(comparison.predicted, np.float64)
    actual = np.asarray(comparison.actual, np.float64)
    pairs = np.isfinite(predicted) & np.isfinite(actual)
    r, slope, over = _linear(predicted, actual, pairs)
    rho, _, _ = _linear(_ranks(predicted, pairs), _ranks(actual, pairs), pairs)
    columns = {
        **dict(zip(KEY, comparison.key, strict=True)),
        "unit": comparison.unit,
        "query_id": np.asarray(comparison.query_ids, np.int64),
        "class": np.asarray(comparison.classes, np.int64),
        "r": r,
        "rho": rho,
        "slope": slope,
        "over": over,
        "n_pairs": pairs.sum(axis=1),
        "n_points": predicted.shape[1],
        "diverged": ~np.isfinite(predicted).any(axis=1),
    }
    return pd.DataFrame(columns, columns=POINTS)


def _linear(x: np.ndarray, y: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Pearson's r, slope of x on y, and rms(x) / rms(y) of every row over its pairs: three arrays [n_queries].

    scipy.stats.pearsonr is not used, because it takes only rows without holes and overflows at 1e200, which diverging solvers reach.
    """
    x, x_unit = _scaled(x, pairs)
    y, y_unit = _scaled(y, pairs)
    n = pairs.sum(axis=1)
    a, b = _centred(x, pairs, n), _centred(y, pairs, n)
    aa, bb, ab = (a * a).sum(axis=1), (b * b).sum(axis=1), (a * b).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = x_unit / y_unit
        r = np.clip(ab / np.sqrt(aa * bb), -1, 1)
        slope = ratio * ab / bb
        over = np.minimum(ratio * np.sqrt((x * x).sum(axis=1) / (y * y).sum(axis=1)), np.finfo(np.float64).max)
    few = n < LEAST_PAIRS
    flat_x, flat_y = aa == 0, bb == 0
    return (
        np.where(few | flat_x | flat_y, np.nan, r),
        np.where(few | flat_y, np.nan, slope),
        np.where(few | (y_unit == 0), np.nan, over),
    )


def _scaled(x: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide each row of x by its largest magnitude over the pairs, and return it (0 elsewhere) with these magnitudes.

    This avoids overflow, since a diverging solver can reach 1e200.
    """
    x = np.where(pairs, x, 0.0)
    unit = np.abs(x).max(axis=1, initial=0.0)
    return x / np.where(unit > 0, unit, 1.0)[:, None], unit


def _centred(x: np.ndarray, pairs: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return x minus its row mean over the pairs, 0 elsewhere; a row that varies only by rounding errors becomes 0."""
    mean = x.sum(axis=1) / np.maximum(n, 1)
    centred = np.where(pairs, x - mean[:, None], 0.0)
    varies = np.abs(centred).max(axis=1, initial=0.0) > ROUNDING
    return centred * varies[:, None]


def _ranks(x: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the ranks within each row among its pairs, with average ranks for ties, and NaN elsewhere."""
    return pd.DataFrame(np.where(pairs, x, np.nan)).rank(axis=1).to_numpy(np.float64)
