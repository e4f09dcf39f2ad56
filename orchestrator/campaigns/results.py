"""The results of a campaign: its tables, its verdicts as sentences, and the checks that are shown with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from orchestrator.analysis import tables
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.checks import Check, checks_table
from tasks.base import Split


@dataclass(frozen=True)
class Results:
    """The tables of a campaign and the verdicts that they support.

    `in_short`: a few sentences for a reader who reads nothing else.
    `checks`: reasons for a careful reader to doubt the verdicts; they are shown wherever the verdicts are. `verdicts`: one sentence each.
    If a check failed, every one of these sentences begins with a warning not to rely on it (orchestrator.analysis.checks.worded).
    `headline`: name of the table for the terminal and the tracking store; `labels`: its columns that identify a row; `shown`: its other
    columns that the terminal shows (empty: all). `notes`: sentences that readers of the tables need. `view`: further data from which the
    report sections are made. `diagnosed`: the tables of diagnostics, by their file name without `.csv`.
    """

    tables: Mapping[str, pd.DataFrame]
    verdicts: tuple[str, ...]
    headline: str = "summary"
    labels: tuple[str, ...] = ("method", "group")
    shown: tuple[str, ...] = ()
    n_excluded: int = 0
    notes: tuple[str, ...] = ()
    cells: Cells | None = None
    view: Any = None
    checks: tuple[Check, ...] = ()
    in_short: tuple[str, ...] = ()
    diagnosed: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def with_given_ids(self, split: Split | None) -> Results:
        """Return the same results; tables with a column `query_id` also get a column `given_query_id`, the ids as the data gives them.

        `split`: the split of the queries. If the data's ids are whole numbers, or there are no queries, nothing is added.
        """
        return replace(
            self,
            tables=tables_with_given_ids(self.tables, split),
            diagnosed=tables_with_given_ids(self.diagnosed, split),
        )

    def csv(self) -> dict[str, str]:
        """Return file name -> text for the files in results/."""
        checks = {"checks": checks_table(self.checks)} if self.checks else {}
        return {
            f"{name}.csv": tables.format_csv(frame)
            for name, frame in {**self.tables, **checks, **self.diagnosed}.items()
        }


def tables_with_given_ids(found: Mapping[str, pd.DataFrame], split: Split | None) -> Mapping[str, pd.DataFrame]:
    """Return the same tables; those with a column `query_id` also get `given_query_id` (Results.with_given_ids)."""
    if split is None or split.given_ids is None:
        return found
    names = dict(zip(split.ids.tolist(), split.given_ids, strict=True))
    return {name: _with_given_ids(table, names) for name, table in found.items()}


def _with_given_ids(table: pd.DataFrame, names: Mapping[int, str]) -> pd.DataFrame:
    """Return the table with the column `given_query_id` after `query_id`, if it has a column `query_id`."""
    if "query_id" not in table.columns:
        return table
    found, at = table.copy(), list(table.columns).index("query_id") + 1
    found.insert(at, "given_query_id", [names[int(number)] for number in table["query_id"]])
    return found
