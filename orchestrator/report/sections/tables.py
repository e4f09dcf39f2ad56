"""The section of a campaign that has none of its own: every table, formatted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from orchestrator.report.columns import columns
from orchestrator.report.data import Section

TEMPLATE = "sections/tables.html.jinja"
ROWS_SHOWN = 200


def table_sections(tables: Mapping[str, pd.DataFrame], labels: Sequence[str], headline: str = "") -> list[Section]:
    """A section per table, `headline` first; of a long table the first ROWS_SHOWN rows."""
    names = sorted(tables, key=lambda name: name != headline)
    return [_section(name, tables[name], labels) for name in names]


def _section(name: str, table: pd.DataFrame, labels: Sequence[str]) -> Section:
    shown = columns(table.head(ROWS_SHOWN), labels)
    data = {"columns": shown, "n_rows": len(table), "n_shown": min(len(table), ROWS_SHOWN), "file": f"{name}.csv"}
    return Section(f"table-{name}", name.replace("_", " ").capitalize(), TEMPLATE, data)
