"""The figures of diagnostics: intervals beside dots, places of several columns, and scatters with their lines."""

from __future__ import annotations

import re

import pandas as pd

from influence.diagnostic import Panels, Scatter
from orchestrator.report.diagnostic_figures import panels_svg, scatter_svg

MEANS = pd.DataFrame(
    {
        "method": ["one", "one", "two", "two"],
        "share": [0.1, 0.2, 0.1, 0.2],
        "rank": ["low"] * 4,
        "overlap": [0.5, 0.6, 0.7, None],
        "overlap_ci_low": [0.4, 0.5, 0.6, None],
        "overlap_ci_high": [0.6, 0.7, 0.8, None],
    }
)
POINTS = pd.DataFrame(
    {
        "query": ["query 3, predicted <b>", "query 3, predicted <b>", "query 5"],
        "method": ["m"] * 3,
        "z": [1.0, -1.0, 0.0],
        "artifact": [1.0, 0.0, 0.5],
        "fitted": [0.9, 0.1, 0.5],
    }
)


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_places_of_several_columns_leave_out_what_never_differs():
    both = texts(panels_svg(MEANS, Panels(("method", "share"), ("overlap",), "rank"), "a"))
    assert {"one, 0.1", "two, 0.2"} <= set(both)
    alone = texts(panels_svg(MEANS.iloc[:2], Panels(("method", "share"), ("overlap",), "rank"), "a"))
    assert {"0.1", "0.2"} <= set(alone)
    assert not any("one" in text for text in alone)


def test_an_interval_is_drawn_if_the_table_has_one():
    panels = Panels("method", ("overlap",), "rank")
    without = MEANS.drop(columns=["overlap_ci_low", "overlap_ci_high"])
    assert panels_svg(MEANS, panels, "a").count("LineCollection") > panels_svg(without, panels, "a").count(
        "LineCollection"
    )


def test_a_scatter_has_a_panel_for_every_combination_and_escapes_its_title():
    scatter = Scatter("points", ("method", "query"), "z", "artifact", "fitted")
    svg = scatter_svg(POINTS, scatter, "a")
    assert svg == scatter_svg(POINTS, scatter, "a"), "equal tables give equal bytes"
    assert "query 3, predicted &lt;b&gt;" in svg
    assert "<b>" not in svg
    assert texts(svg).count("m") == 2
