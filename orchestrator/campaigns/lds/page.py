"""The report sections of an LDS campaign: LDS with the noise ceiling, contrasts, and LDS by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.lds import figures
from orchestrator.report.data import CampaignPage, Section
from orchestrator.report.ready_made import table_sections

EXPLAINED = (
    "The scores of a method predict what training on a subset does to a query: the more the kept examples help it by their scores, the "
    "higher its measurement should be. The linear datamodelling score (LDS) of a query is Spearman's correlation, over random subsets, of "
    "the sum of the scores of the kept examples with the measurement, mean over repeats. Scores that predict nothing have an LDS of 0."
)
CEILING = (
    "Seeds make the measurements noisy, so even an exact prediction has no LDS of 1. The ceiling is the largest LDS that can be expected "
    "with these repeats, estimated from the agreement of one half of the seeds with the other."
)
FORESTS = (
    "Mean LDS over queries. Thin line: 95% interval for queries, seeds and subsets of this kind. Thick line: for these queries. "
    "Dashed: the noise ceiling, with its interval."
)
STRIPS = "One mark per query. The vertical tick is the mean over queries."


def lds_page(finished: FinishedRun, asked: Sequence[tuple[str, str]]) -> CampaignPage:
    """Return an LDS campaign's part of the report."""
    tables = finished.results.tables
    sections = [_figure("lds", "LDS", figures.forest_svg(tables["lds"]), FORESTS, CEILING)]
    sections += [_table(tables, "lds", "Every method"), _table(tables, "contrasts", "Contrasts")]
    if len(tables["query_lds"]):
        sections.append(_figure("by-query", "By query", figures.strips_svg(tables["query_lds"]), STRIPS))
        sections.append(_table(tables, "query_lds", "Every query"))
    return CampaignPage(asked, EXPLAINED, sections)


def _figure(name: str, title: str, svg: str, caption: str, intro: str = "") -> Section:
    item: dict[str, Any] = {"name": name, "label": caption, "caption": caption, "heading": ""}
    return Section(f"figure-{name}", title, "figures.html.jinja", {"items": [item], "intro": intro}, {name: svg})


def _table(tables: Mapping[str, pd.DataFrame], name: str, title: str) -> Section:
    [section] = table_sections({name: tables[name]}, ("method", "baseline"))
    return replace(section, title=title)
