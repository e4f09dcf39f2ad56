"""What the sections of a campaign show, as plain arrays and tables: a campaign fills one, the sections know no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Comparison:
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
class LeaveOneOutView:
    """A leave-one-out campaign: how well predictions agree with retraining without each example in turn.

    `agreement`: a row per comparison; a column `paper` holds the paper's figure where there is one. `by_class`,
    `by_unit`: the same finer. `features` float [n_train, 2] and `query_features` [n_queries, 2] place the examples of
    tasks in the plane, `train_labels` [n_train] index `classes`; rows are those of every comparison's `train_ids`.
    """

    agreement: pd.DataFrame
    comparisons: Sequence[Comparison]
    classes: Sequence[str] = ()
    by_class: pd.DataFrame | None = None
    by_unit: pd.DataFrame | None = None
    features: np.ndarray | None = None
    query_features: np.ndarray | None = None
    train_labels: np.ndarray | None = None
    labels: Sequence[str] = ()  # columns that name a row; default those of text
    threshold: float = 0.8  # of a correlation that the paper counts as high (Silva et al. 2022, section 4.1)


class Sentence(NamedTuple):
    """An influential training sentence of a bias test.

    `set` "A" (amplifies the bias) or "M" (mitigates it), `rank` from 1. `words`: (word, list, contribution) of the
    words of the test it moves; list x or y (targets), a or b (attributes); contribution > 0 adds to the bias.
    """

    test: str
    set: str
    rank: int
    train_id: int
    text: str
    score: float
    words: Sequence[tuple[str, str, float]] = ()


@dataclass(frozen=True)
class DebiasView:
    """A debias campaign: bias tests before and after, and the sentences behind them.

    `effects`: `test, half, variant, setting, n_seeds, effect, ci_low, ci_high`; `half` says where the setting was chosen
    and reported (see effect_figures.SIDES). `directions`: `test, action, size, passes, n, share, ci_low, ci_high`, size
    `all` where a row pools over sizes. `grid`: `test, action, size, passes, effect`, and `corrected`, the test a fine-tune
    was made for. Further columns are welcome. `names`: test -> {"x": what target list X stands for, ...}. `refused`:
    tests that were not run, and why. `contrasts`, `tests`: further tables, shown folded.
    """

    effects: pd.DataFrame
    directions: pd.DataFrame
    grid: pd.DataFrame
    settings: pd.DataFrame
    sentences: Sequence[Sentence] = ()
    neighbours: Sequence[tuple[str, Sequence[tuple[str, float]]]] = ()
    refused: Sequence[tuple[str, str]] = ()
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    contrasts: pd.DataFrame | None = None
    tests: pd.DataFrame | None = None
    given_ids: Mapping[int, str] = field(
        default_factory=dict
    )  # train id -> the id as the data has it, where that is text
