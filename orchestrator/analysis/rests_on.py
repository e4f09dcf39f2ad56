"""How many queries, repeats or seeds the verdicts rest on: those with results, not those that were planned."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd


def fewest_of_contrasts(tables: Mapping[str, pd.DataFrame], column: str, asked: int) -> int:
    """The smallest `column` (n_queries or n_repeats) over contrasts; over summary without contrasts; else `asked`."""
    for name in ("contrasts", "summary"):
        table = tables.get(name)
        if table is not None and len(table) and column in table.columns:
            return min(map(int, table[column].tolist()))
    return asked


def fewest_seeds_of_debias(contrasts: pd.DataFrame, directions: pd.DataFrame, asked: int) -> int:
    """The smallest number of seeds that a contrast, or a direction pooled over tests, rests on; `asked` without any.

    `contrasts`: the rows of effect_contrasts that verdicts tell of. A direction without a single fine-tune to count is left out.
    """
    pooled = directions.loc[(directions["test"] == "all") & (directions["n"] > 0), "n_seeds"]
    return min(map(int, [*contrasts["n_seeds"].tolist(), *pooled.tolist()]), default=asked)


def fewest_seeds_of_grid(accuracy: pd.DataFrame, trials: pd.DataFrame, baseline: str, asked: int) -> int:
    """The smallest number of seeds over the rows of `accuracy` that have an accuracy on test; 0 if none has; `asked` without rows.

    A row of the arm `baseline` counts the seeds whose trial is ok; any other row those whose trial and the baseline's both are.
    """
    if accuracy.empty:
        return asked
    usable = {
        str(setting): set(rows.loc[rows["status"] == "ok", "seed"]) for setting, rows in trials.groupby("setting")
    }
    [against, *_] = accuracy.loc[accuracy["arm"] == baseline, "setting"]
    told = accuracy.loc[accuracy["test"].notna(), "setting"]
    return min((len(usable[setting] & usable[against]) for setting in told), default=0)
