"""The default page of a campaign: a figure of its headline table, and all tables."""

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
    """Make a page of what was asked, a figure of the intervals in the table `headline`, and one section per table.

    `labels`: the columns that name a row.
    """
    figure = interval_section(tables[headline], labels) if headline in tables else []
    rows = [(name, numbers.plain(value)) for name, value in asked]
    return CampaignPage(rows, sections=[*figure, *table_sections(tables, labels, headline)])


def interval_section(table: pd.DataFrame, labels: Sequence[str]) -> list[Section]:
    """Make a section with a figure of the first numeric column outside `labels` and its interval `ci_low` to `ci_high`.

    There is no section for a table without these columns or without rows.
    """
    if not len(table) or not {"ci_low", "ci_high"} <= set(table.columns):
        return []
    value = next(str(name) for name in table.select_dtypes("number").columns if name not in labels)
    caption = f"{value.replace('_', ' ')} with its 95% interval"
    item = {"name": "intervals", "label": caption, "caption": caption, "heading": ""}
    drawn = {"intervals": intervals_svg(table, labels, value)}
    return [Section("intervals", "Intervals", "figures.html.jinja", {"items": [item], "intro": ""}, drawn)]


def table_sections(tables: Mapping[str, pd.DataFrame], labels: Sequence[str], headline: str = "") -> list[Section]:
    """Make one section per table, `headline` first, with at most ROWS_SHOWN rows each."""
    names = sorted(tables, key=lambda name: name != headline)
    return [_section(name, tables[name], labels) for name in names]


def _section(name: str, table: pd.DataFrame, labels: Sequence[str]) -> Section:
    shown = columns(table.head(ROWS_SHOWN), labels)
    data = {"columns": shown, "n_rows": len(table), "n_shown": min(len(table), ROWS_SHOWN), "file": f"{name}.csv"}
    return Section(f"table-{name}", name.replace("_", " ").capitalize(), TEMPLATE, data)
