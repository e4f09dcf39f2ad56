"""What a campaign found: its tables, the verdicts in words, and the checks that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from orchestrator.analysis import tables
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.checks import Check, checks_table
from tasks.base import Split


@dataclass(frozen=True)
class Results:
    """The tables of a campaign and the sentences they support.

    `verdicts`: in the words that `checks` allow; `checks`: what would make a careful reader doubt them, shown wherever they are.
    `headline`: the table for the terminal and the tracker; `labels`: its columns that name a row; `shown`: the others that a terminal
    has room for (none: all); `notes`: what a reader must know beside
    the tables; `view`: what the campaign's report sections are drawn from, beyond the tables.
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

    def with_given_ids(self, split: Split | None) -> Results:
        """The same results, where every table with a column `query_id` has the ids as the data gives them beside it.

        `split`: that of the queries; where its ids are whole numbers, or there are no queries, nothing is added.
        """
        if split is None or split.given_ids is None:
            return self
        names = dict(zip(split.ids.tolist(), split.given_ids, strict=True))
        return replace(self, tables={name: _beside(table, names) for name, table in self.tables.items()})

    def csv(self) -> dict[str, str]:
        """File name -> text of results/."""
        checks = {"checks": checks_table(self.checks)} if self.checks else {}
        return {f"{name}.csv": tables.format_csv(frame) for name, frame in {**self.tables, **checks}.items()}


def _beside(table: pd.DataFrame, names: Mapping[int, str]) -> pd.DataFrame:
    """The table with the column `given_query_id` after `query_id`, if it has that one."""
    if "query_id" not in table.columns:
        return table
    found, at = table.copy(), list(table.columns).index("query_id") + 1
    found.insert(at, "given_query_id", [names[int(number)] for number in table["query_id"]])
    return found
