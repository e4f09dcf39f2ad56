"""The report sections of diagnostics of the scoring models: a figure, the tables, and the queries with coloured tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from influence.diagnostic import Panels, Scatter
from orchestrator.report.columns import columns
from orchestrator.report.data import QueryPage, Section
from orchestrator.report.diagnostic_figures import panels_svg, scatter_svg

TEMPLATE = "diagnostics.html.jinja"
ROWS_SHOWN = 200


@dataclass(frozen=True)
class MarkedQuery:
    """A query whose tokens are coloured: `spans` are (start, end, value) in its text; `page` has its top examples by method."""

    page: QueryPage
    spans: Sequence[tuple[int, int, float]]


@dataclass(frozen=True)
class Diagnosed:
    """One diagnostic with its tables by file name, the main one first.

    `labels`: the columns that name a row; `explained`: how to read the tables; `figure`: its figure, if it has one, drawn
    from the table called `drawn`; `marked`: the queries that it shows with coloured tokens.
    """

    label: str
    explained: str
    labels: Sequence[str]
    figure: Panels | Scatter | None
    tables: Mapping[str, pd.DataFrame]
    drawn: str = ""
    marked: Sequence[MarkedQuery] = ()


def diagnostic_sections(found: Sequence[Diagnosed]) -> list[Section]:
    """Return one section per diagnostic."""
    return [_section(one) for one in found]


def _section(one: Diagnosed) -> Section:
    name = f"diagnose-{one.label}"
    drawn = _drawn(one, name)
    shown = [
        {
            "file": f"{file}.csv",
            "columns": columns(table.head(ROWS_SHOWN), ["scored_on", *one.labels]),
            "n_rows": len(table),
            "n_shown": min(len(table), ROWS_SHOWN),
        }
        for file, table in one.tables.items()
    ]
    title = f"Diagnostic: {one.label.replace('_', ' ')}"
    data = {
        "explained": one.explained,
        "tables": shown,
        "figure": name if drawn else "",
        "is_scatter": isinstance(one.figure, Scatter),
        "marked": one.marked,
        "example_groups": ("proponents", "opponents"),
    }
    return Section(name, title, TEMPLATE, data, drawn, nav=one.label.replace("_", " ").capitalize())


def _drawn(one: Diagnosed, name: str) -> dict[str, str]:
    """Return the figure by its name; nothing if there is none, or its table is left out or has no rows."""
    table = one.tables.get(one.drawn or next(iter(one.tables)))
    if one.figure is None or table is None or not len(table):
        return {}
    return {name: _svg(one.figure, table, name)}


def _svg(figure: Panels | Scatter, table: pd.DataFrame, name: str) -> str:
    if isinstance(figure, Panels):
        return panels_svg(table, figure, name)
    return scatter_svg(table, figure, name)
