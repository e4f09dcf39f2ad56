"""What the sections of a leave-one-out campaign show, as plain arrays and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class DrawnComparison:
    """Predicted influence beside the actual one, of every training example on every query.

    `predicted` and `actual` float [n_queries, n_train], axes (query, train), positive = the example helps the query;
    NaN where there is no number. `unit`: which repeat of the experiment, such as a seed; one section draws one unit.
    """

    label: str
    unit: str
    predicted: np.ndarray
    actual: np.ndarray
    query_ids: Sequence[int]
    train_ids: Sequence[int]
    query_labels: Sequence[int] = ()  # [n_queries], indices into the view's classes; empty: not known
    given_query_ids: Sequence[str] = ()  # [n_queries], the ids as the user gave them; empty: the numbers


@dataclass(frozen=True)
class LeaveOneOutPageView:
    """A leave-one-out campaign: how well predictions agree with retraining without each example in turn.

    `agreement`: a row per comparison; a column `paper` holds the paper's figure where there is one. `by_class`,
    `by_unit`: the same finer. `features` float [n_train, 2] and `query_features` [n_queries, 2] place the examples of
    tasks in the plane, `train_labels` [n_train] index `classes`; rows are those of every comparison's `train_ids`.
    """

    agreement: pd.DataFrame
    comparisons: Sequence[DrawnComparison]
    classes: Sequence[str] = ()
    by_class: pd.DataFrame | None = None
    by_unit: pd.DataFrame | None = None
    features: np.ndarray | None = None
    query_features: np.ndarray | None = None
    train_labels: np.ndarray | None = None
    labels: Sequence[str] = ()  # columns that name a row; default those of text
    threshold: float = 0.8  # of a correlation that the paper counts as high (Silva et al. 2022, section 4.1)
