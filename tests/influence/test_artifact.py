"""`artifact`: definitions of lexical overlap and negation, and the quadratic fit against planted data and numpy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_task import SmallCNN, SmallTask, checkpoint, query_block

from influence.diagnostic import ScoredModels
from influence.diagnostics.artifact import Artifact, fitted, sampled, shown_first
from influence.diagnostics.artifacts import artifact_of, lexical_overlap, negation, values_of, words_of
from influence.diagnostics.rankings import z_scored
from influence.matrix import ScoreMatrix
from influence.methods.tracin_last import TracInLast
from tasks.base import BETWEEN
from tasks.errors import InputError, RefitError

TASK = SmallTask(SmallCNN(), dtype=torch.float64)
TRAIN = TASK.splits["train"]


def with_pairs(task):
    """The same task, whose texts are read as pairs: the first word, and all others."""
    other = dataclasses.replace(task)
    for name, split in task.splits.items():
        firsts, rests = zip(*((text.split()[0], " ".join(text.split()[1:])) for text in split.texts), strict=True)
        texts = tuple(f"{a}{BETWEEN}{b}" for a, b in zip(firsts, rests, strict=True))
        starts = np.array([len(a) + len(BETWEEN) for a in firsts])
        other.splits[name] = dataclasses.replace(split, texts=texts, pair_starts=starts)
    return other


def test_words_are_cut_at_space_and_punctuation_and_lower_case():
    assert words_of("The Banker didn’t call -- twice.") == ["the", "banker", "didn't", "call", "twice"]


def test_lexical_overlap_is_the_share_of_hypothesis_words_in_the_premise():
    premise = "The tourist who the banker contacted called the lawyers ."
    assert lexical_overlap(premise, "The banker contacted the tourist .") == 1
    assert lexical_overlap(premise, "The banker did not contact the tourist .") == 4 / 7
    assert lexical_overlap("a b", "") == 0
    assert lexical_overlap("", "a") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The lawyers did not see it .", 1),
        ("They didn't.", 1),
        ("NOBODY came", 1),
        ("A note, an ant.", 0),
        ("", 0),
    ],
)
def test_negation_is_one_if_a_word_of_the_list_occurs(text, expected):
    assert negation(text) == expected


def test_negation_reads_the_hypothesis_of_a_pair_and_own_functions_read_both():
    assert artifact_of("negation", ("not",), None)(("not a", "b")) == 0
    assert artifact_of("negation", ("not",), None)(("a", "not b")) == 1
    assert artifact_of("m:f", (), lambda premise, hypothesis: len(premise) - len(hypothesis))(("aaa", "b")) == 2
    assert artifact_of("m:f", (), len)("abc") == 3


def test_the_fit_finds_planted_coefficients_and_is_that_of_least_squares():
    random = np.random.default_rng(0)
    z = z_scored(random.normal(size=500))
    planted = np.array([3.7e-3, -0.02, 0.4])
    np.testing.assert_allclose(fitted(z, np.polyval(planted, z)), planted, rtol=1e-10)
    noisy = np.polyval(planted, z) + random.normal(size=500)
    expected = np.linalg.lstsq(np.stack([z**2, z, np.ones_like(z)], 1), noisy, rcond=None)[0]
    np.testing.assert_allclose(fitted(z, noisy), expected, rtol=1e-9)
    assert fitted(None, noisy) is None


def test_influence_in_two_narrow_groups_determines_no_curve():
    random = np.random.default_rng(0)
    groups = np.repeat([0.0, 1.0], [30, 70])
    values = random.normal(size=100)
    assert fitted(z_scored(groups), values) is None
    assert fitted(z_scored(groups + 1e-4 * random.normal(size=100)), values) is None
    assert fitted(z_scored(groups + 0.2 * random.normal(size=100)), values) is not None


def test_the_sample_holds_both_ends_and_each_example_once():
    z = np.random.default_rng(1).normal(size=200)
    found = sampled(z, 50, np.random.default_rng(2))
    assert len(set(found.tolist())) == 50
    assert set(np.argsort(-np.abs(z))[:25].tolist()) <= set(found.tolist())
    assert sampled(z, 200, np.random.default_rng(2)).tolist() == list(range(200))


def test_the_figure_shows_every_kind_of_query_before_a_second_of_one_kind():
    assert shown_first([("a", "x"), ("a", "x"), ("b", "x"), ("a", "y")]) == [0, 2, 3, 1]


def rows_of(table):
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def test_the_tables_hold_the_fit_of_every_query_and_the_curve_of_the_figure():
    task = with_pairs(TASK)
    points, queries = [checkpoint(task, 1)], query_block(task, (4, 0, 7))
    scores = np.random.default_rng(3).normal(size=(3, len(TRAIN))).astype(np.float32)
    scores[2] = np.nan
    matrix = ScoreMatrix(queries.ids, TRAIN.ids, scores)
    models = ScoredModels(task, points, queries, {"m": TracInLast()}, {"m": matrix})
    diagnostic = Artifact(of="lexical_overlap", group_by="negation", negations=("w3",), scatter_examples=10)
    found = {name: rows_of(table) for name, table in diagnostic.compute(models).items()}
    overlaps = np.array([lexical_overlap(*pair) for pair in task.splits["train"].segments()])
    for one, row in zip(found["queries"][:2], scores.astype(np.float64), strict=False):
        z = (row - row.mean()) / row.std()
        expected = np.polyfit(z, overlaps, 2)
        np.testing.assert_allclose([one["quadratic"], one["linear"], one["constant"]], expected, rtol=1e-9)
        mine = [point for point in found["points"] if point["query_id"] == one["query_id"]]
        assert len(mine) == 10
        for point in mine:
            at = TRAIN.ids.tolist().index(point["train_id"])
            assert point["influence"] == pytest.approx(z[at])
            assert point["artifact"] == overlaps[at]
            assert point["fitted"] == pytest.approx(np.polyval(expected, z[at]))
    assert found["queries"][2]["quadratic"] is None
    assert {point["query_id"] for point in found["points"]} == {*queries.ids[:2].tolist()}, "scores of NaN have no dots"
    assert "points" not in diagnostic.model_copy(update={"scatter_queries": 0}).compute(models)
    in_groups = ScoreMatrix(queries.ids, TRAIN.ids, np.tile(np.arange(len(TRAIN)) % 2, (3, 1)))
    unfitted = diagnostic.compute(dataclasses.replace(models, scores={"m": in_groups}))
    assert set(unfitted["queries"]["linear"]) == set(unfitted["points"]["fitted"]) == {None}
    segments = task.splits["test"].segments()
    groups = [f"negation {negation(segments[row][1], ('w3',)):g}" for row in queries.rows]
    assert [one["group"] for one in found["queries"]] == groups
    logits = task.outputs(task.network(1), "test", queries.rows)
    assert [one["predicted"] for one in found["queries"]] == [TRAIN.classes[i] for i in logits.argmax(1)]


def test_a_function_that_fails_names_the_example():
    def fails(text):
        raise KeyError("tree")

    with pytest.raises(RefitError, match=rf"artifact m:f of example {TRAIN.ids[0]}: KeyError: 'tree'"):
        values_of(artifact_of("m:f", (), fails), "m:f", TRAIN)
    with pytest.raises(RefitError, match="is nan, not a finite number"):
        values_of(artifact_of("m:f", (), lambda text: float("nan")), "m:f", TRAIN)


def test_what_does_not_fit_the_data_is_refused():
    with pytest.raises(ValueError, match=r"'lexicaloverlap' is no artifact; allowed: .*did you mean 'lexical_overlap'"):
        Artifact(of="lexicaloverlap")
    for word in ("Not", "no one", "non-existent", "n’t", ""):  # never equal to a word of `words_of`
        with pytest.raises(ValueError, match=f"'{word}' can equal no word of a text: give single words in lower case"):
            Artifact(of="negation", negations=(word,))
    with pytest.raises(InputError, match=r"diagnose\.0\.of: 'lexical_overlap' needs pairs of texts"):
        Artifact(of="lexical_overlap").check(TASK, Path(), {"m": TracInLast()}, 1, "config.yaml: diagnose.0")
    with pytest.raises(InputError, match=r"diagnose\.0\.group_by: 'lexical_overlap' needs pairs"):
        Artifact(of="negation", group_by="lexical_overlap").check(TASK, Path(), {"m": TracInLast()}, 1, "c: diagnose.0")
