"""The page of a campaign that has none of its own: the figure of its headline table, and every table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.report import numbers
from orchestrator.report.columns import columns
from orchestrator.report.data import CampaignPage, Section
from orchestrator.report.figures import intervals_svg

TEMPLATE = "tables.html.jinja"
ROWS_SHOWN = 200


def tables_page(
    asked: Sequence[tuple[str, Any]], tables: Mapping[str, pd.DataFrame], labels: Sequence[str], headline: str
) -> CampaignPage:
    """What was asked, the intervals of the table `headline` as a figure where it has some, and a section per table.

    `labels`: the columns that name a row.
    """
    figure = interval_section(tables[headline], labels) if headline in tables else []
    rows = [(name, numbers.plain(value)) for name, value in asked]
    return CampaignPage(rows, sections=[*figure, *table_sections(tables, labels, headline)])


def interval_section(table: pd.DataFrame, labels: Sequence[str]) -> list[Section]:
    """The figure of a table with the columns `ci_low` and `ci_high`; no section for one without them, or without rows.

    What is drawn is the first column of numbers that names no row.
    """
    if not len(table) or not {"ci_low", "ci_high"} <= set(table.columns):
        return []
    value = next(str(name) for name in table.select_dtypes("number").columns if name not in labels)
    caption = f"{value.replace('_', ' ')} with its 95% interval"
    item = {"name": "intervals", "label": caption, "caption": caption, "heading": ""}
    drawn = {"intervals": intervals_svg(table, labels, value)}
    return [Section("intervals", "Intervals", "figures.html.jinja", {"items": [item], "intro": ""}, drawn)]


def table_sections(tables: Mapping[str, pd.DataFrame], labels: Sequence[str], headline: str = "") -> list[Section]:
    """A section per table, `headline` first; of a long table the first ROWS_SHOWN rows."""
    names = sorted(tables, key=lambda name: name != headline)
    return [_section(name, tables[name], labels) for name in names]


def _section(name: str, table: pd.DataFrame, labels: Sequence[str]) -> Section:
    shown = columns(table.head(ROWS_SHOWN), labels)
    data = {"columns": shown, "n_rows": len(table), "n_shown": min(len(table), ROWS_SHOWN), "file": f"{name}.csv"}
    return Section(f"table-{name}", name.replace("_", " ").capitalize(), TEMPLATE, data)
