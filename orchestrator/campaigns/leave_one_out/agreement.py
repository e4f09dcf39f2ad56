"""How well predicted influence agrees with the influence that leave-one-out retraining measures, query by query."""

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
    """Predicted beside measured influence of every train point on every query, in one unit.

    `label` names the method, `scores` the model it scored, `truth` the model that was retrained, `unit` the data seed or
    repeat; one (label, scores, truth) comes once per unit. `predicted` and `actual`: float64 [n_queries, n_points] in one
    orientation (positive = the point helps the query) and of any unit; `classes`, `query_ids`: int [n_queries].
    A row of `predicted` without a finite number says that the method's solver diverged for that query; other holes,
    such as retrains that diverged, are NaN on either side.
    Raises ValueError where shapes differ or a query is there twice.
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
            raise ValueError(f"{self.name}: a query is there twice")

    @property
    def key(self) -> Key:
        """What is compared, the same in every unit."""
        return self.label, self.scores, self.truth

    @property
    def name(self) -> str:
        """The comparison in words, for messages."""
        return f"{key_text(self.key)}, unit {self.unit}"


def key_text(key: Key) -> str:
    """What is compared, as every sentence names it."""
    return f"{key[0]} ({key[1]} against {key[2]})"


def points(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """One row per comparison, unit and query (columns POINTS), in the order given.

    r = Pearson, rho = Spearman between predicted and actual over the points where both are finite;
    slope = least squares of predicted on actual, with intercept; over = rms(predicted) / rms(actual).
    r and rho are NaN with fewer than 3 such pairs or without variance on a side, slope without variance of actual, over
    where actual is zero throughout. `n_pairs` of `n_points` entered; `diverged`: no prediction at all.
    Silva et al. 2022, section 4.1 (r) and appendix I (slope; over-estimation by orders of magnitude).
    Raises ValueError if one (label, scores, truth) comes twice in a unit.
    """
    given = list(comparisons)
    taken = [(*c.key, c.unit) for c in given]
    twice = {key for key in taken if taken.count(key) > 1}
    if twice:
        raise ValueError(f"a comparison is there twice in one unit: {sorted(twice)}")
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
    """Pearson r, slope of x on y, and rms(x) / rms(y) of every row over its pairs: three arrays [n_queries].

    By hand, since scipy.stats.pearsonr takes rows without holes only, and overflows at the 1e200 of a solver that diverges.
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
    """x with its pairs within -1..1 and 0 elsewhere, and each row's unit: a solver on its way out reaches 1e200."""
    x = np.where(pairs, x, 0.0)
    unit = np.abs(x).max(axis=1, initial=0.0)
    return x / np.where(unit > 0, unit, 1.0)[:, None], unit


def _centred(x: np.ndarray, pairs: np.ndarray, n: np.ndarray) -> np.ndarray:
    """x less its row's mean over the pairs, 0 elsewhere; a row that varies within rounding only becomes 0."""
    mean = x.sum(axis=1) / np.maximum(n, 1)
    centred = np.where(pairs, x - mean[:, None], 0.0)
    varies = np.abs(centred).max(axis=1, initial=0.0) > ROUNDING
    return centred * varies[:, None]


def _ranks(x: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Ranks within each row among its pairs, ties at their average, NaN elsewhere."""
    return pd.DataFrame(np.where(pairs, x, np.nan)).rank(axis=1).to_numpy(np.float64)
