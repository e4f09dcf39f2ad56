"""What the sections of a debias campaign show, as plain tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd


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
class DebiasPageView:
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
