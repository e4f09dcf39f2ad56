"""Contrasts between methods, and the sentences made from them."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.analysis import tables
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.contrasts import compared_pairs, contrast_rows, holm
from orchestrator.analysis.intervals import estimate
from orchestrator.analysis.verdicts import verdict, verdicts

GROUPS = ("proponents", "opponents", "least")


def campaign(shifts, noise=0.02, seed=0, n_queries=8, n_repeats=5):
    """Cells whose AUC lies at shifts[method][group] plus noise, on a seed effect that all methods share."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(1, 1, 1, 1, n_repeats))
    level = np.array(list(shifts.values()), float)[:, :, None, None, None]
    delta = level + shared + noise * rng.normal(size=(len(shifts), len(level[0]), 2, n_queries, n_repeats))
    return Cells(tuple(shifts), GROUPS[: len(level[0])], (5, 10), range(n_queries), range(n_repeats), delta)


def test_the_shared_part_of_a_repeat_cancels():
    cells = campaign({"good": (-0.1, 0.1), "random": (0.0, 0.0)})
    proponents, opponents = contrast_rows(cells)
    np.testing.assert_allclose([proponents["diff"], opponents["diff"]], [-0.1, 0.1], atol=0.02)
    assert proponents["p"] < 1e-6
    assert proponents["se"] < 0.01 < tables.summary(cells).se.min()


def test_diff_is_the_interval_of_auc_differences_per_cell():
    cells = campaign({"good": (-0.1, 0.1), "random": (0.0, 0.0)})
    expected = estimate(cells.delta[0, 0].mean(axis=0) - cells.delta[1, 0].mean(axis=0))
    row = contrast_rows(cells)[0]
    np.testing.assert_allclose([row[c] for c in ("diff", "se", "ci_low", "ci_high", "p")],
                               [expected.mean, expected.se, *expected.ci, expected.p], rtol=1e-9)  # fmt: skip
    summary = tables.summary(cells)
    np.testing.assert_allclose(row["diff"], summary.auc_del[0] - summary.auc_del[2], rtol=1e-9)


def test_least_compares_absolute_changes():
    delta = np.array([[[[[-0.1, 0.1], [0.1, -0.1]]]], [[[[0.3, -0.3], [-0.3, 0.3]]]]])
    cells = Cells(("calm", "random"), ("least",), (5,), (0, 1), (0, 1), delta)
    (row,) = contrast_rows(cells)
    np.testing.assert_allclose(row["diff"], -0.2)


def test_identical_methods_differ_by_exactly_nothing():
    cells = campaign({"a": (-0.1, 0.1, 0.0), "random": (0.0, 0.0, 0.0)})
    twins = replace(cells, delta=cells.delta[[0, 0]])
    for row in contrast_rows(twins):
        assert [row[c] for c in ("diff", "se", "p", "p_holm")] == [0, 0, 1, 1]
        assert np.isnan([row["ci_low"], row["ci_high"]]).all()


def test_pairs_put_the_control_first_and_keep_the_order_of_methods():
    assert compared_pairs(["b", "random", "a", "c"]) == [
        ("b", "random"),
        ("a", "random"),
        ("c", "random"),
        ("b", "a"),
        ("b", "c"),
        ("a", "c"),
    ]
    assert compared_pairs(["b", "a"]) == [("b", "a")]
    assert compared_pairs(["random"]) == []
    lonely = campaign({"random": (0.0, 0.0)})
    assert tables.contrasts(lonely).empty
    assert list(tables.contrasts(lonely).columns) == tables.CONTRASTS


def test_holm_matches_the_worked_example():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])
    np.testing.assert_array_equal(holm(np.array([np.nan, 0.02, 0.03])), [np.nan, 0.04, 0.04])
    assert holm(np.array([])).shape == (0,)


def test_each_group_is_its_own_family():
    cells = campaign({"a": (-0.01, 0.1), "b": (0.0, 0.05), "random": (0.0, 0.0)}, noise=0.1)
    rows = contrast_rows(cells)
    for group in ("proponents", "opponents"):
        family = [row for row in rows if row["group"] == group]
        assert len(family) == 3
        np.testing.assert_allclose([r["p_holm"] for r in family], holm(np.array([r["p"] for r in family])))


def test_false_alarms_against_random_are_rarer_than_five_percent():
    rng = np.random.default_rng(4)
    auc = (
        0.2 * rng.normal(size=(4000, 8, 1)) + 0.2 * rng.normal(size=(4000, 1, 5)) + 0.3 * rng.normal(size=(4000, 8, 5))
    )
    assert (estimate(auc).p < 0.05).mean() < 0.05 + 0.012


def row(group="proponents", diff=-0.12, low=-0.2, high=-0.05, p=0.003):
    numbers = {"diff": diff, "ci_low": low, "ci_high": high, "p_holm": p}
    return {"method": "tracin_we", "baseline": "random", "group": group, **numbers}


@pytest.mark.parametrize(
    ("group", "diff", "expected"),
    [
        ("proponents", -0.1, "For proponents, tracin_we beats random: its removals leave the measurement lower, "),
        ("proponents", 0.1, "For proponents, tracin_we loses to random: its removals leave the measurement higher, "),
        ("opponents", 0.1, "For opponents, tracin_we beats random: its removals leave the measurement higher, "),
        ("opponents", -0.1, "For opponents, tracin_we loses to random: its removals leave the measurement lower, "),
        ("least", -0.1, "For least, tracin_we beats random: its removals move the measurement less, "),
        ("least", 0.1, "For least, tracin_we loses to random: its removals move the measurement more, "),
    ],
)
def test_a_clear_difference_is_told_whichever_way_it_falls(group, diff, expected):
    sentence = verdict(row(group, diff, diff - 0.05, diff + 0.05))
    assert sentence.startswith(expected)
    assert verdict(row(group, diff, diff - 0.05, diff + 0.05, p=0.05)).startswith(
        f"For {group}, tracin_we and random could not be told apart: "
    )


def test_a_sentence_shows_the_numbers_of_its_row():
    assert verdict(row()) == (
        "For proponents, tracin_we beats random: its removals leave the measurement lower, "
        "difference -0.12 [-0.2, -0.05], Holm p 0.003."
    )
    assert verdict(row(p=0.2)).endswith("could not be told apart: difference -0.12 [-0.2, -0.05], Holm p 0.2.")
    assert "difference 0 [-0.01, 0.01]" in verdict(row(diff=-0.0, low=-0.01, high=0.01, p=1.0))


def test_a_missing_interval_is_said_to_be_missing():
    assert (
        verdict(row(p=float("nan")))
        == "For proponents, tracin_we could not be compared with random: too few complete queries or repeats."
    )


def test_many_pairs_that_could_not_be_told_apart_are_one_sentence_beside_those_that_could():
    undecided = [row(p=p) | {"method": f"m{i}"} for i, p in enumerate([0.9, 0.2, 0.5, 1.0])]
    other = row("opponents", p=0.7)
    assert verdicts([*undecided, other]) == [
        verdict(other),
        "For proponents, none of the 4 pairs could be told apart (contrasts.csv has them all). "
        "Nearest to it: m1 and random, difference -0.12 [-0.2, -0.05], Holm p 0.2.",
    ]
    clear, lacking = row(), row(p=float("nan")) | {"method": "short"}
    said = verdicts([undecided[0], clear, lacking, *undecided[1:]])
    assert said[:2] == [verdict(clear), verdict(lacking)]
    assert said[2].startswith("For proponents, 4 of the 6 pairs could not be told apart")
    assert verdicts(undecided[:3]) == [verdict(r) for r in undecided[:3]]


def test_level_moves_the_verdict():
    assert "beats" in verdict(row(p=0.003), level=0.01)
    assert "told apart" in verdict(row(p=0.003), level=0.001)


@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_sentences_follow_from_the_csv_alone(sign):
    cells = campaign({"good": (-0.1 * sign, 0.1 * sign, 0.0), "random": (0.0, 0.0, 0.05)}, noise=0.03, seed=6)
    frame = tables.contrasts(cells)
    words = ("method", "baseline", "group")
    read = csv.DictReader(io.StringIO(tables.format_csv(frame)))
    back = [{name: text if name in words else float(text) for name, text in r.items()} for r in read]
    said = verdicts(back)
    assert said == verdicts(frame.to_dict("records")) == verdicts(contrast_rows(cells))
    for sentence, r in zip(said, back, strict=True):
        shown = [float(x) for x in re.findall(r"-?\d[\d.e-]*\d|\d", sentence.split("difference ")[1])]
        wanted = np.array([float(r[name]) for name in ("diff", "ci_low", "ci_high", "p_holm")])
        np.testing.assert_allclose(shown, wanted, rtol=6e-3, atol=1e-12)
    expected = {-1: "loses to", 0: "told apart", 1: "beats"}[sign]
    assert all(expected in sentence for sentence in said[:2])
