"""The plain tables and sentences from which the report sections of a debias campaign are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd


class Sentence(NamedTuple):
    """A training sentence with influence on a bias test.

    `set`: "A" (it amplifies the bias) or "M" (it mitigates the bias); `rank`: from 1. `words`: (word, list, contribution) of the
    test's words whose vectors it changes; list is x or y (targets), a or b (attributes); contribution > 0 adds to the bias.
    """

    test: str
    set: str
    rank: int
    train_id: int
    text: str
    score: float
    words: Sequence[tuple[str, str, float]] = ()


@dataclass(frozen=True)
class DebiasPageView:
    """The data of a debias report: bias tests before and after, and the influential sentences.

    `effects`: `test, half, variant, setting, n_seeds, effect, ci_low, ci_high`; `half` gives the words on which the setting was
    chosen and reported (see figures.SIDES). `directions`: `test, action, size, passes, n, share, ci_low, ci_high`, with size `all`
    in rows pooled over sizes. `grid`: `test, action, size, passes, effect`, and `corrected`, the test that a fine-tune was made
    for. Tables may have further columns. `names`: test -> {"x": name of target list X, ...}. `refused`: (test, reason) of tests
    that were not run. `contrasts`, `tests`: further tables, shown folded. `given_ids`: train id -> the id as the data gives it, if that
    is text.
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
    given_ids: Mapping[int, str] = field(default_factory=dict)
