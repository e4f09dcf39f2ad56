"""The number of queries, repeats or seeds that verdicts rest on: those with results, which may be fewer than planned."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd


def fewest_of_contrasts(tables: Mapping[str, pd.DataFrame], column: str, asked: int) -> int:
    """Return the smallest value of `column` (n_queries or n_repeats) in contrasts, else in summary, else `asked`."""
    for name in ("contrasts", "summary"):
        table = tables.get(name)
        if table is not None and len(table) and column in table.columns:
            return min(map(int, table[column].tolist()))
    return asked


def fewest_seeds_of_debias(contrasts: pd.DataFrame, directions: pd.DataFrame, asked: int) -> int:
    """Return the smallest number of seeds of a contrast, or of a direction pooled over tests; `asked` if there are none.

    `contrasts`: the rows of effect_contrasts that have verdicts. A direction without any counted fine-tune is left out.
    """
    pooled = directions.loc[(directions["test"] == "all") & (directions["n"] > 0), "n_seeds"]
    return min(map(int, [*contrasts["n_seeds"].tolist(), *pooled.tolist()]), default=asked)


def fewest_seeds_of_grid(accuracy: pd.DataFrame, trials: pd.DataFrame, baseline: str, asked: int) -> int:
    """Return the smallest number of seeds over the rows of `accuracy` that have a test accuracy; 0 if none has one; `asked` without rows.

    For a row of the arm `baseline` these are the seeds whose trial is ok; for any other row, the seeds whose trial and whose
    baseline trial are both ok.
    """
    if accuracy.empty:
        return asked
    usable = {
        str(setting): set(rows.loc[rows["status"] == "ok", "seed"]) for setting, rows in trials.groupby("setting")
    }
    [against, *_] = accuracy.loc[accuracy["arm"] == baseline, "setting"]
    with_accuracy = accuracy.loc[accuracy["test"].notna(), "setting"]
    return min((len(usable[setting] & usable[against]) for setting in with_accuracy), default=0)
