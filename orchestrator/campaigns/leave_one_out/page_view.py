"""The plain arrays and tables from which the report sections of a leave-one-out campaign are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class DrawnComparison:
    """Predicted and actual influence of every training example on every query.

    `predicted` and `actual` float [n_queries, n_train], positive if the example helps the query; NaN where there is no
    number. `unit`: the repetition of the experiment, such as a data seed; a section draws one unit.
    """

    label: str
    unit: str
    predicted: np.ndarray
    actual: np.ndarray
    query_ids: Sequence[int]
    train_ids: Sequence[int]
    query_labels: Sequence[int] = ()  # [n_queries], indices into the view's classes; empty if unknown
    given_query_ids: Sequence[str] = ()  # [n_queries], the ids as the data gives them; empty if these are the numbers


@dataclass(frozen=True)
class LeaveOneOutPageView:
    """The data of a leave-one-out report.

    `agreement`: one row per comparison; a column `paper` has the paper's number if there is one. `by_class`, `by_unit`: the same
    per class and per unit. `features` float [n_train, 2] and `query_features` [n_queries, 2]: coordinates of the examples in
    tasks with two features; `train_labels` [n_train] index `classes`. Their rows are those of every comparison's `train_ids`.
    """

    agreement: pd.DataFrame
    comparisons: Sequence[DrawnComparison]
    classes: Sequence[str] = ()
    by_class: pd.DataFrame | None = None
    by_unit: pd.DataFrame | None = None
    features: np.ndarray | None = None
    query_features: np.ndarray | None = None
    train_labels: np.ndarray | None = None
    labels: Sequence[str] = ()  # columns that identify a row; text columns are added to them
    threshold: float = 0.8  # the paper counts correlations from here on as high (Silva et al. 2022, section 4.1)
