"""Contrasts between methods, and the sentences made from them."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.analysis import tables
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.contrasts import compared_pairs, contrast_rows, family_holm, holm
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


def families_of(rows):
    """{(group, family, control): rows}: what Holm's correction is taken over."""
    found = {}
    for r in rows:
        found.setdefault((r["group"], r["family"], r["baseline"] if r["family"] == "control" else None), []).append(r)
    return found


def test_families_are_every_control_and_the_pairs_within_a_group():
    shifts = {"a": (-0.01, 0.1), "random": (0.0, 0.0), "b": (0.0, 0.05), "c": (0.01, 0.0), "same_label": (0.0, 0.0)}
    cells = replace(campaign(shifts, noise=0.1), controls=("random", "same_label"))
    families = families_of(contrast_rows(cells))
    kinds = [("control", "random"), ("control", "same_label"), ("pairs", None)]
    assert list(families) == [(group, *kind) for group in ("proponents", "opponents") for kind in kinds]
    for family in families.values():
        assert len(family) == 3
        np.testing.assert_allclose([r["p_holm"] for r in family], holm(np.array([r["p"] for r in family])))


def test_what_is_told_from_the_control_does_not_depend_on_how_many_pairs_there_are():
    """28 comparisons of one family drew no verdict from a difference of 0.454 with t = 16.8 on about 2 degrees of freedom."""
    rng = np.random.default_rng(2)
    names = [f"m{i}" for i in range(7)]
    delta = 0.04 * rng.normal(size=(8, 1, 1, 4, 3))
    delta[0] -= 0.454 + 0.03 * rng.normal(size=(1, 1, 1, 3))
    cells = Cells((*names, "random"), ("proponents",), (5,), range(4), range(3), delta)
    rows = contrast_rows(cells)
    assert len(rows) == 28
    [first] = [r for r in rows if (r["method"], r["baseline"]) == ("m0", "random")]
    assert first["p_holm"] == pytest.approx(7 * first["p"])
    assert 7 * first["p"] < 0.05 < 28 * first["p"]
    assert "m0 beats random" in verdict(first)


def test_methods_with_the_same_results_are_counted_once():
    cells = campaign({"a": (-0.01,), "b": (0.0,), "random": (0.0,)}, noise=0.1)
    alone = contrast_rows(cells)
    copies = replace(cells, methods=("a", "b", "random", "a2", "a3"), delta=cells.delta[[0, 1, 2, 0, 0]])
    rows = {(r["method"], r["baseline"]): r for r in contrast_rows(copies)}
    for r in alone:
        assert rows[r["method"], r["baseline"]]["p_holm"] == r["p_holm"]
    assert rows["a2", "random"]["p_holm"] == rows["a3", "random"]["p_holm"] == rows["a", "random"]["p_holm"]
    assert rows["b", "a2"]["p_holm"] == rows["b", "a3"]["p_holm"] == rows["a", "b"]["p_holm"]
    for pair in (("a", "a2"), ("a", "a3"), ("a2", "a3")):
        assert [rows[pair][name] for name in ("diff", "p", "p_holm", "p_flip")] == [0, 1, 1, 1]
        assert verdict(rows[pair]).endswith(
            "could not be told apart: they gave the same result for every query and repeat."
        )


def test_almost_the_same_results_are_two_methods():
    cells = campaign({"a": (-0.01,), "b": (0.0,), "random": (0.0,)}, noise=0.1)
    close = cells.delta[[0, 1, 2, 0]]
    close[3, 0, 0, 0, 0] += 1e-12
    rows = contrast_rows(replace(cells, methods=("a", "b", "random", "a2"), delta=close))
    family = [r for r in rows if r["baseline"] == "random"]
    np.testing.assert_array_equal([r["p_holm"] for r in family], holm(np.array([r["p"] for r in family])))


def test_a_cell_that_is_left_out_does_not_tell_methods_apart():
    cells = campaign({"a": (-0.01,), "b": (0.0,), "random": (0.0,)}, noise=0.1)
    delta = cells.delta[[0, 1, 2, 0]]
    delta[3, 0, 0, 0, 0] = np.nan
    rows = {
        (r["method"], r["baseline"]): r
        for r in contrast_rows(replace(cells, methods=("a", "b", "random", "a2"), delta=delta))
    }
    assert rows["a2", "random"]["p_holm"] == rows["a", "random"]["p_holm"]
    assert rows["a", "random"]["p_holm"] == holm(np.array([rows[m, "random"]["p"] for m in "ab"]))[0]


def test_holm_over_distinct_comparisons_of_each_family():
    p = np.array([0.01, 0.02, 1.0, 0.01, 0.04, np.nan, 0.03])
    families = ["x", "x", "x", "x", "y", "x", "y"]
    compared = [(0, 9), (1, 9), (2, 2), (9, 0), (0, 1), (3, 9), (0, 2)]
    np.testing.assert_allclose(family_holm(p, families, compared), [0.02, 0.02, 1, 0.02, 0.06, np.nan, 0.06])
    assert family_holm(np.zeros(0), [], []).shape == (0,)


def test_false_alarms_against_random_are_rarer_than_five_percent():
    rng = np.random.default_rng(4)
    auc = (
        0.2 * rng.normal(size=(4000, 8, 1)) + 0.2 * rng.normal(size=(4000, 1, 5)) + 0.3 * rng.normal(size=(4000, 8, 5))
    )
    assert (estimate(auc).p < 0.05).mean() < 0.05 + 0.012


def row(group="proponents", diff=-0.12, low=-0.2, high=-0.05, p=0.003, **more):
    numbers = {"diff": diff, "ci_low": low, "ci_high": high, "p": p, "p_holm": p}
    names = {"method": "tracin_we", "baseline": "random", "group": group, "family": "control"}
    return {**names, **numbers, **more}


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
        == "For proponents, tracin_we could not be compared with random, because too few queries or repeats "
        "have a number for every method and every k."
    )


def test_many_methods_that_could_not_be_told_from_the_control_are_one_sentence_beside_those_that_could():
    undecided = [row(p=p, method=f"m{i}") for i, p in enumerate([0.9, 0.2, 0.5, 1.0])]
    other = row("opponents", p=0.7)
    assert verdicts([*undecided, other]) == [
        verdict(other),
        "For proponents, none of the 4 methods could be told apart from random (contrasts.csv has every comparison). "
        "The smallest p is that of m1: difference -0.12 [-0.2, -0.05], Holm p 0.2.",
    ]
    clear, lacking = row(), row(p=float("nan"), method="short")
    said = verdicts([undecided[0], clear, lacking, *undecided[1:]])
    assert said[:2] == [verdict(clear), verdict(lacking)]
    assert said[2].startswith("For proponents, 4 of the 6 methods could not be told apart from random")
    assert "The smallest p among them is that of m1: " in said[2]
    assert verdicts(undecided[:3]) == [verdict(r) for r in undecided[:3]]


def test_every_family_has_its_own_sentence():
    against_random = [row(p=0.3, method=m) for m in "abcd"]
    against_other = [row(p=0.3, method=m, baseline="random_same_label") for m in "abcd"]
    pairs = [row(p=0.1 * (i + 2), method=m, baseline="z", family="pairs") for i, m in enumerate("abcd")]
    said = verdicts([*against_random, *against_other, *pairs])
    assert len(said) == 3
    assert "none of the 4 methods could be told apart from random (" in said[0]
    assert "none of the 4 methods could be told apart from random_same_label (" in said[1]
    assert "none of the 4 pairs of methods could be told apart (" in said[2]
    assert "The smallest p is that of a against z: " in said[2]


def test_the_comparison_named_is_the_one_with_the_smallest_p_before_correction():
    undecided = [row(p=p, p_holm=1.0, method=f"m{i}") for i, p in enumerate([0.9, 0.4, 0.2, 0.5, 1.0])]
    (said,) = verdicts(undecided)
    assert "The smallest p is that of m2: " in said
    assert said.endswith("Holm p 1.")


def test_tables_written_before_there_were_families_are_told_as_one():
    lacking = ("family", "p", "p_flip")
    old = [{k: v for k, v in row(p=0.3 + i / 10, method=f"m{i}").items() if k not in lacking} for i in range(5)]
    (said,) = verdicts(old)
    assert "none of the 5 pairs of methods could be told apart" in said
    assert "that of m0 against random: " in said


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"p": 0.01, "p_flip": 0.03}, None),
        ({"p": 0.6, "p_flip": 0.3}, None),
        ({"p": 0.02, "p_flip": 0.3, "p_holm": 0.2}, None),  # no verdict is drawn, and none is contradicted
        ({"p": 0.01, "p_flip": np.nan}, None),
        ({"p": 0.01, "p_flip": 0.25}, "does not confirm it: its p is 0.25, that of the t test 0.01."),
        ({"p": 0.01, "p_flip": 0.125, "n_queries": 4}, "cannot confirm it: with 4 queries its p is at least 0.125."),
        ({"p": 0.3, "p_flip": 0.004}, "disagrees: its p is 0.004, that of the t test 0.3."),
    ],
)
def test_two_tests_that_disagree_are_said_to(numbers, expected):
    said = verdict(row(**{"n_queries": 9, "p_holm": numbers["p"], **numbers}))
    assert ("The sign-flip test over the queries" in said) == (expected is not None)
    assert expected is None or expected in said


def test_a_verdict_that_rests_on_normality_is_told_with_its_doubt():
    """Five queries that all moved are enough for t; their signs are equal by chance in one case of 16."""
    delta = np.zeros((2, 1, 1, 5, 4))
    delta[0, 0, 0] = -0.3 + 0.01 * np.random.default_rng(0).normal(size=(5, 4))
    (said,) = verdicts(contrast_rows(Cells(("m", "random"), ("proponents",), (5,), range(5), range(4), delta)))
    assert "m beats random" in said
    assert said.endswith("cannot confirm it: with 5 queries its p is at least 0.0625.")


def test_level_moves_the_verdict():
    assert "beats" in verdict(row(p=0.003), level=0.01)
    assert "told apart" in verdict(row(p=0.003), level=0.001)


@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_sentences_follow_from_the_csv_alone(sign):
    cells = campaign({"good": (-0.1 * sign, 0.1 * sign, 0.0), "random": (0.0, 0.0, 0.05)}, noise=0.03, seed=6)
    frame = tables.contrasts(cells)
    words = ("method", "baseline", "group", "family")
    read = csv.DictReader(io.StringIO(tables.format_csv(frame)))
    back = [{name: text if name in words else float(text or "nan") for name, text in r.items()} for r in read]
    said = verdicts(back)
    assert said == verdicts(frame.to_dict("records")) == verdicts(contrast_rows(cells))
    for sentence, r in zip(said, back, strict=True):
        shown = [float(x) for x in re.findall(r"-?\d[\d.e-]*\d|\d", sentence.split("difference ")[1])]
        wanted = np.array([float(r[name]) for name in ("diff", "ci_low", "ci_high", "p_holm")])
        np.testing.assert_allclose(shown, wanted, rtol=6e-3, atol=1e-12)
    expected = {-1: "loses to", 0: "told apart", 1: "beats"}[sign]
    assert all(expected in sentence for sentence in said[:2])
