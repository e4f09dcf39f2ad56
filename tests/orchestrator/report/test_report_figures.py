import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from report_data import METHODS, deletion_data

from orchestrator.report import canvas, figures

ODD = ("<b>{{7*7}}</b>", "$x_1$ & $\\frac", "_hidden", "日本語", "a" * 80, "tab\tnew\nline\x07")


def texts(svg):
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def draw(data):
    tables, queries = data
    first = tables["query_curves"][tables["query_curves"].query_id == queries[0].query_id]
    return {
        "curves": figures.curves_svg(tables["curves"]),
        "forest": figures.forest_svg(tables["summary"]),
        "query": figures.query_svg(queries[0].query_id, first, list(dict.fromkeys(tables["curves"].method))),
    }


def test_figures_are_the_same_bytes_every_time_and_carry_no_date():
    data = deletion_data()
    first = draw(data)
    assert draw(data) == first
    assert not any("dc:date" in svg for svg in first.values())


def test_every_method_and_group_is_named_in_text():
    for name, svg in draw(deletion_data()).items():
        found = texts(svg)
        assert {"Proponents removed", "Opponents removed"} <= set(found), name
        assert set(METHODS) <= set(found), name


@pytest.mark.parametrize("name", ["curves", "forest", "query"])
def test_labels_of_any_kind_are_text_not_markup(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = draw(deletion_data(methods=ODD))[name]
    found = " | ".join(texts(svg))
    assert "<b>{{7*7}}</b>" in found
    assert "$x_1$ & $\\frac" in found
    assert "_hidden" in found
    assert "日本語" in found
    assert "a" * 35 + "…" in found
    assert "tab?new?line?" in found


@pytest.mark.parametrize("count", [1, 2, 6, 7, 12])
def test_any_number_of_methods_is_drawn_each_with_a_look_of_its_own(count):
    methods = tuple(f"method{i}" for i in range(count))
    found = canvas.looks(methods)
    assert set(found) == {*methods, "random", "random_same_label"}
    assert len(set(found.values())) == len(found)
    drawn = draw(deletion_data(methods=methods))
    assert all(set(methods) <= set(texts(svg)) for svg in drawn.values())


@pytest.mark.parametrize("missing", [np.nan, None])
def test_missing_values_and_a_single_k_are_drawn(missing):
    data = deletion_data(ks=(10,), groups=("least",))
    for table in (data[0]["curves"], data[0]["summary"], data[0]["query_curves"]):
        table["ci_low"] = table["ci_high"] = missing
        table["ci_fixed_low"] = table["ci_fixed_high"] = missing
    assert all("Least removed" in texts(svg) for svg in draw(data).values())


def test_the_page_gets_the_svg_alone_and_no_id_occurs_twice():
    data = deletion_data()
    bare = [canvas.inline(svg) for svg in draw(data).values()]
    ids = [[node.get("id") for node in ET.fromstring(svg).iter() if node.get("id")] for svg in bare]
    assert all(svg.startswith("<svg") for svg in bare)
    assert not set(ids[0]) & set(ids[1])
    assert not set(ids[0]) & set(ids[2])
