"""Makes one child run per row of a campaign's headline table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from orchestrator.tracking.record import ChildRecord


def headline_children(table: pd.DataFrame, labels: Sequence[str], committed_at: int) -> list[ChildRecord]:
    """Make one child per row of `table`, labelled by the columns `labels`, with the other numeric columns as metrics.

    `committed_at`: commit time of the campaign's last ledger row, in ms since the epoch. Missing labels are left out.
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
