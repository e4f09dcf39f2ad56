"""From the headline table of a campaign to child runs, one a row."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from orchestrator.tracking.record import ChildRecord


def headline_children(table: pd.DataFrame, labels: Sequence[str], committed_at: int) -> list[ChildRecord]:
    """A child per row of `table`: labelled by the columns `labels`, with a metric per other column that holds numbers.

    `committed_at`: epoch ms of the last ledger row behind the campaign. A label that is missing in a row is left out.
    """
    named = [label for label in labels if label in table.columns]
    return [
        ChildRecord(
            {label: str(row[label]) for label in named if not pd.isna(row[label])},
            committed_at,
            [(str(column), 0, value) for column, value in row.items() if column not in named],
        )
        for row in table.to_dict("records")
    ]
