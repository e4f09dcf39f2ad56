from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from track_records import STAMP

from orchestrator.tracking.children import headline_children
from orchestrator.tracking.payload import payloads, safe_key


def points_of(payload):
    return {(point.key, point.step): point for point in payload.points}


def test_a_child_per_method_and_group_with_values_by_k(record, tables):
    parent, children = payloads(record)
    assert parent.identity == {"refit.run": record.run}
    assert [child.name for child in children][:2] == ["tracin_we proponents", "tracin_we opponents"]
    points = points_of(children[1])
    row = tables.curves.query("method == 'tracin_we' and group == 'opponents' and k == 20").iloc[0]
    assert points["delta", 20].value == row.delta
    assert points["ci_fixed_high", 20].value == row.ci_fixed_high
    assert points["auc_del", 0].value == tables.summary.auc_del[1]
    assert points["auc_del_se", 0].value == tables.summary.se[1]
    assert points["vs random/diff", 0].value == tables.contrasts["diff"][1]
    assert {point.timestamp for point in points.values()} == {tables.committed_at["tracin_we", "opponents"]}
    assert children[1].texts["curves.csv"].splitlines()[1].startswith("tracin_we,opponents,10,")


def test_missing_values_are_left_out(record, tables):
    summary = tables.summary.assign(auc_del=[np.nan, np.inf, *tables.summary.auc_del[2:]])
    curves = tables.curves.assign(n_excluded=pd.array([None] * len(tables.curves), dtype="Int64"))
    _, children = payloads(replace(record, children=replace(tables, summary=summary, curves=curves).children()))
    assert ("auc_del", 0) not in points_of(children[0])
    assert ("auc_del", 0) not in points_of(children[1])
    assert ("n_excluded", 10) not in points_of(children[0])
    assert ("p_holm", 0) not in {(point.key.split("/")[-1], point.step) for point in children[0].points}


def test_an_empty_contrast_table_is_fine(record, tables):
    _, children = payloads(replace(record, children=replace(tables, contrasts=pd.DataFrame()).children()))
    assert points_of(children[0])["auc_del", 0].value == tables.summary.auc_del[0]


def test_a_curve_without_a_commit_time_is_refused(tables):
    known = {pair: stamp for pair, stamp in tables.committed_at.items() if pair[0] != "tfidf"}
    with pytest.raises(ValueError, match="tfidf"):
        replace(tables, committed_at=known).children()


AGREEMENT = pd.DataFrame(
    [
        {"method": "clif", "ground_truth": "nll", "pearson": 0.75, "share": np.nan, "n": 150, "note": "x", "ok": True},
        {"method": "clif", "ground_truth": "dec", "pearson": 0.5, "share": 0.25, "n": 150, "note": "y", "ok": False},
    ]
)


def test_a_child_per_row_of_any_headline_table_labelled_by_its_label_columns(record):
    children = headline_children(AGREEMENT, ("method", "ground_truth", "absent"), STAMP)
    parent, (first, second) = payloads(replace(record, children=children))
    assert (first.name, second.name) == ("clif nll", "clif dec")
    assert first.identity == {"refit.run": record.run, "refit.method": "clif", "refit.ground_truth": "nll"}
    assert second.params["ground_truth"] == "dec"
    assert {(p.key, p.step, p.value) for p in second.points} == {
        ("pearson", 0, 0.5),
        ("share", 0, 0.25),
        ("n", 0, 150.0),
        ("ok", 0, 0.0),
    }
    assert ("share", 0) not in points_of(first)
    assert {p.timestamp for p in (*first.points, *second.points)} == {STAMP}
    assert (first.start_ms, first.end_ms, parent.end_ms) == (STAMP - 5000, STAMP, STAMP)


def test_rows_that_no_label_tells_apart_are_refused(record):
    with pytest.raises(ValueError, match="two runs are labelled 'clif'"):
        payloads(replace(record, children=headline_children(AGREEMENT, ("method",), STAMP)))


def test_a_row_without_a_label_is_refused(record):
    with pytest.raises(ValueError, match="has no label"):
        payloads(replace(record, children=headline_children(AGREEMENT.head(1), ("absent",), STAMP)))


@pytest.mark.parametrize("label", ["run", "metrics", "param.x", "checks_failed"])
def test_a_label_that_would_hide_a_tag_of_refit_is_refused(record, label):
    with pytest.raises(ValueError, match=r"Refit.s own tags"):
        payloads(replace(record, children=headline_children(AGREEMENT.rename(columns={"method": label}), (label,), 0)))


def test_a_campaign_without_rows_is_a_parent_alone(record):
    parent, children = payloads(replace(record, children=[]))
    assert (parent.start_ms, parent.end_ms, children) == (record.started_at, record.started_at, [])


def test_a_run_id_that_could_leave_the_search_filter_is_refused(record):
    with pytest.raises(ValueError, match="hexadecimal"):
        payloads(replace(record, run="x' or 1=1"))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("vs tracin/diff", "vs tracin/diff"),
        ("vs ../../etc/p", "vs ../__/etc/p"),
        ("größe:€", "gr__e__"),
        ("a//b", "a/_/b"),
        ("k" * 300, "k" * 250),
    ],
)
def test_metric_names_are_made_safe(key, expected):
    assert safe_key(key) == expected
