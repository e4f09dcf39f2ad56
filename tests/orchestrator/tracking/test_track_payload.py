from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from orchestrator.tracking.payload import payloads, safe_key


def points_of(payload):
    return {(point.key, point.step): point for point in payload.points}


def test_a_child_per_method_and_group_with_values_by_k(record):
    parent, children = payloads(record)
    assert parent.identity == {"refit.run": record.run}
    assert [child.name for child in children][:2] == ["tracin_we proponents", "tracin_we opponents"]
    points = points_of(children[1])
    row = record.curves.query("method == 'tracin_we' and group == 'opponents' and k == 20").iloc[0]
    assert points["delta", 20].value == row.delta
    assert points["ci_fixed_high", 20].value == row.ci_fixed_high
    assert points["auc_del", 0].value == record.summary.auc_del[1]
    assert points["auc_del_se", 0].value == record.summary.se[1]
    assert points["vs random/diff", 0].value == record.contrasts["diff"][1]
    assert {point.timestamp for point in points.values()} == {record.committed_at["tracin_we", "opponents"]}
    assert children[1].texts["curves.csv"].splitlines()[1].startswith("tracin_we,opponents,10,")


def test_missing_values_are_left_out(record):
    summary = record.summary.assign(auc_del=[np.nan, np.inf, *record.summary.auc_del[2:]])
    curves = record.curves.assign(n_excluded=pd.array([None] * len(record.curves), dtype="Int64"))
    _, children = payloads(replace(record, summary=summary, curves=curves))
    assert ("auc_del", 0) not in points_of(children[0])
    assert ("auc_del", 0) not in points_of(children[1])
    assert ("n_excluded", 10) not in points_of(children[0])
    assert ("p_holm", 0) not in {(point.key.split("/")[-1], point.step) for point in children[0].points}


def test_an_empty_contrast_table_is_fine(record):
    _, children = payloads(replace(record, contrasts=pd.DataFrame()))
    assert points_of(children[0])["auc_del", 0].value == record.summary.auc_del[0]


def test_a_curve_without_a_commit_time_is_refused(record):
    with pytest.raises(ValueError, match="tfidf"):
        payloads(replace(record, committed_at={k: v for k, v in record.committed_at.items() if k[0] != "tfidf"}))


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
