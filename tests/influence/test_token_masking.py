"""`token_masking` against brute force: which tokens are masked, overlaps by sets, and influence of examples that hold a token."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_task import SmallCNN, SmallTask, checkpoint, query_block

from influence.checkpoint import QueryBlock
from influence.diagnostic import ScoredModels
from influence.diagnostics.masked_influence import influence_of, overlap
from influence.diagnostics.query_tokens import RANKS, chosen_tokens, tokens_of
from influence.diagnostics.rankings import n_of, z_scored
from influence.diagnostics.token_masking import TokenMasking
from influence.gradients import loaded
from influence.matrix import ScoreMatrix
from influence.methods.influence_function import InfluenceFunction
from influence.methods.scores_file import ScoresFile
from influence.methods.tracin import TracIn
from influence.methods.tracin_last import TracInLast
from influence.saliency import token_saliency
from influence.scoring import Scorer, scores_of_queries
from influence.solvers import LiSSA
from tasks.errors import InputError
from tasks.task import MASKED


def sharpened(point):
    """The same weights with a larger last layer, and no biases there, so that masking a token can change a prediction."""
    last = {"linear.weight": 6 * point.state["linear.weight"], "linear.bias": 0 * point.state["linear.bias"]}
    return dataclasses.replace(point, state={**point.state, **last})


TASK = SmallTask(SmallCNN(), dtype=torch.float64)
POINTS = [sharpened(checkpoint(TASK, seed, step=seed, weight=0.1 * seed)) for seed in (1, 2)]
QUERIES, TRAIN = query_block(TASK, (4, 0, 7, 2, 1)), TASK.splits["train"]
METHODS = {"last": TracInLast(), "all": TracIn()}
SHARES, HOLDING = (0.1, 0.4), (0.5, 1.0)


def models(methods=METHODS, score_queries=scores_of_queries):
    scores = Scorer(TASK, POINTS, QUERIES, methods, {}).score_range(0, len(TRAIN))
    matrices = {label: ScoreMatrix(QUERIES.ids, TRAIN.ids, values) for label, values in scores.items()}
    return ScoredModels(TASK, POINTS, QUERIES, methods, matrices, score_queries=score_queries)


def rows_of(table):
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def options(**more):
    return TokenMasking(overlap_shares=SHARES, holding_shares=HOLDING, **more)


@pytest.fixture(scope="module")
def found():
    return {name: rows_of(table) for name, table in options().compute(models()).items()}


def test_the_tokens_are_those_of_the_asked_ranks_among_words(found):
    saliency = token_saliency(TASK, POINTS[1:], "test", QUERIES.rows, QUERIES.labels)
    for place, (query_id, row) in enumerate(zip(QUERIES.ids.tolist(), QUERIES.rows, strict=True)):
        inside = saliency[place][1 : len(TASK.tokens["test"][row]) - 1]
        mine = {one["saliency_rank"]: one["position"] - 1 for one in found["queries"] if one["query_id"] == query_id}
        order = sorted(range(len(inside)), key=lambda t, values=inside: values[t])
        assert mine["lowest"] == order[0]
        assert mine["median"] == order[len(order) // 2]
        assert mine["highest"] == order[-1]
        assert mine["smallest"] == min(order, key=lambda t, values=inside: abs(values[t]))
        assert 0 <= mine["random"] < len(inside)


def test_overlaps_and_labels_are_those_of_scoring_each_masked_query_alone(found):
    """The reference masks one query at a time, and scores it under the label that follows from its own outputs."""
    assert {one["changed"] for one in found["queries"]} == {0.0, 1.0}
    network, given = loaded(TASK.network(0), POINTS[1]), models().scores
    for one in found["queries"]:
        if one["saliency_rank"] not in ("lowest", "highest"):
            continue
        place = QUERIES.ids.tolist().index(one["query_id"])
        row = QUERIES.rows[place : place + 1]
        changed = TASK.with_masked("test", row, np.array([one["position"]]))
        before, after = TASK.outputs(network, "test", row).argmax(1), changed.outputs(network, MASKED, [0]).argmax(1)
        assert one["changed"] == float(before[0] != after[0])
        label = after if before[0] != after[0] else QUERIES.labels[place : place + 1]
        new = alone(changed, one["method"], label)
        k = int(one["top_share"] * len(TRAIN))
        old = given[one["method"]].scores[place]
        tops = [set(sorted(range(len(TRAIN)), key=lambda i, s=s: (-s[i], TRAIN.ids[i]))[:k]) for s in (old, new)]
        assert one["overlap"] == len(tops[0] & tops[1]) / k
        assert (one["k"], one["expected"]) == (k, k / len(TRAIN))


def alone(changed, label, explained):
    """The scores of one method for the first masked query under the label `explained`: [n_train]."""
    block = QueryBlock(MASKED, np.array([0]), np.array([0]), explained)
    [scores] = Scorer(changed, POINTS, block, {"m": METHODS[label]}, {}).score_range(0, len(TRAIN))["m"]
    return scores


def block_of(place):
    part = slice(place, place + 1)
    return QueryBlock("test", QUERIES.ids[part], QUERIES.rows[part], QUERIES.labels[part])


def test_the_influence_of_examples_that_hold_a_token_is_a_mean_over_a_loop(found):
    scores = models().scores
    for one in found["holding_queries"]:
        place = QUERIES.ids.tolist().index(one["query_id"])
        values = scores[one["method"]].scores[place].astype(np.float64)
        z = (values - values.mean()) / values.std()
        top = sorted(range(len(TRAIN)), key=lambda i, v=values: (-v[i], TRAIN.ids[i]))[
            : int(one["top_share"] * len(TRAIN))
        ]
        token = int(one["token"].removeprefix("w"))
        held = [z[i] for i in top if token in TASK.tokens["train"][i] and TRAIN.labels[i] == QUERIES.labels[place]]
        assert one["n_examples"] == len(held)
        assert (one["influence"] is None) == (not held)
        if held:
            assert one["influence"] == pytest.approx(np.mean(held))


def test_the_kept_label_is_that_of_the_query():
    given = models({"last": TracInLast()})
    kept = rows_of(options(label_after="kept", ranks=("highest", "lowest")).compute(given)["queries"])
    assert any(one["changed"] for one in kept)
    for one in kept:
        place = QUERIES.ids.tolist().index(one["query_id"])
        changed = TASK.with_masked("test", QUERIES.rows[place : place + 1], np.array([one["position"]]))
        new = alone(changed, "last", QUERIES.labels[place : place + 1])
        [expected] = overlap(given.scores["last"].scores[place], new, TRAIN.ids, [one["top_share"]])
        assert one["overlap"] == expected["overlap"]


def test_masking_is_the_same_whatever_else_is_masked(found):
    alone = rows_of(options(ranks=("random", "median")).compute(models())["queries"])
    assert alone
    assert all(one in found["queries"] for one in alone)


def test_masked_queries_are_scored_in_parts_and_each_once():
    sizes = []

    def counting(task, method, checkpoints, queries, device):
        sizes.append(len(queries.ids))
        return scores_of_queries(task, method, checkpoints, queries, device)

    given = models({"last": TracInLast()}, counting)
    table = options().compute(given)["queries"]
    distinct = {*zip(table["query_id"], table["position"], strict=True)}
    assert sum(sizes) == len(distinct) < len(QUERIES.ids) * len(RANKS)
    assert max(sizes) <= 16
    assert len(sizes) > 1


def test_rankings_without_scores_have_no_overlap_and_no_influence():
    nan, some = np.full(10, np.nan), np.arange(10.0)
    assert overlap(nan, some, np.arange(10), [0.2]) == [{"top_share": 0.2, "k": 2, "overlap": None, "expected": 0.2}]
    assert influence_of(nan, np.arange(10), np.ones(10, bool), [0.5])[0]["influence"] is None
    assert z_scored(np.ones(4)) is None
    assert overlap(some, some, np.arange(10), [0.3])[0]["overlap"] == 1
    assert overlap(some, -some, np.arange(10), [0.3])[0]["overlap"] == 0


def test_a_share_is_rounded_down_in_decimal():
    assert [n_of(share, 100) for share in (0.29, 0.3, 0.299, 1.0)] == [29, 30, 29, 100]


def test_a_query_without_words_has_no_rows():
    tokens = tokens_of(TASK, "test", 4)
    assert chosen_tokens([tokens[0], tokens[-1]], np.zeros(len(tokens)), RANKS, np.random.default_rng(0)) == {}


def test_tables_are_empty_if_no_query_has_a_word():
    task = SmallTask(SmallCNN(), dtype=torch.float64)
    task.special_ids = frozenset(range(task.vocabulary))
    found = options().compute(dataclasses.replace(models(), task=task))
    assert found == {"queries": {}, "holding_queries": {}}


LISSA = InfluenceFunction(parameters=("linear*",), solver=LiSSA(scale=10.0, depth=7, batch_size=4, seed=3))


def test_without_common_random_numbers_the_changed_queries_get_another_seed():
    seen = []

    def spy(task, method, checkpoints, queries, device):
        seen.append(method)
        return np.zeros((len(queries.ids), len(TRAIN)), np.float32)

    for common in (True, False):
        given = models({"last": TracInLast()}, spy)
        scores = {"if": given.scores["last"]}
        both = ScoredModels(TASK, POINTS, QUERIES, {"if": LISSA}, scores, score_queries=spy)
        options(common_random_numbers=common, ranks=("highest",)).compute(both)
    same, other = seen
    assert same == LISSA
    assert other.solver.seed != 3
    assert other.model_copy(update={"solver": other.solver.model_copy(update={"seed": 3})}) == LISSA


def test_with_common_random_numbers_a_query_has_the_same_scores_beside_others():
    """LiSSA draws its batches by its seed alone, so that only the masked token can change the scores."""
    one = block_of(0)
    twice = QueryBlock("test", np.array([0, 1]), np.repeat(one.rows, 2), np.repeat(one.labels, 2))
    scores = scores_of_queries(TASK, LISSA, POINTS, one)
    np.testing.assert_allclose(scores_of_queries(TASK, LISSA, POINTS, twice), np.repeat(scores, 2, axis=0), rtol=1e-5)
    other = LISSA.model_copy(update={"solver": LISSA.solver.model_copy(update={"seed": 4})})
    assert not np.allclose(scores_of_queries(TASK, other, POINTS, one), scores, rtol=1e-3)


@pytest.mark.parametrize(
    ("more", "methods", "problem"),
    [
        ({"methods": ("none",)}, METHODS, "methods: 'none' is no method with scores"),
        (
            {"methods": ("file",)},
            {**METHODS, "file": ScoresFile(path="x.npz", axes="query_train", orientation="helpful_positive")},
            "'file' has no scores for a changed query",
        ),
        ({"overlap_shares": (0.001,)}, METHODS, "overlap_shares: 0.001 of 30 train examples is less than one"),
        ({"common_random_numbers": False}, METHODS, "common_random_numbers: false needs a method whose solver draws"),
    ],
)
def test_what_cannot_be_computed_is_refused(more, methods, problem):
    diagnostic = TokenMasking(**{"overlap_shares": SHARES, "holding_shares": HOLDING, **more})
    with pytest.raises(InputError, match=problem):
        diagnostic.check(TASK, Path(), methods, 2, "config.yaml: diagnose.0")


class CountsVisible(SmallCNN):
    """A model whose positions are counted over the visible tokens."""

    name = "counts_visible"

    def hidden_token_problem(self, base_dir):
        return "'opt' counts positions by the visible tokens"


def test_a_model_in_which_masking_moves_other_tokens_is_refused():
    task = SmallTask(CountsVisible(), dtype=torch.float64)
    with pytest.raises(InputError, match=r"diagnose\.0: token_masking hides a token, .* 'opt' counts positions"):
        options().check(task, Path(), METHODS, 2, "config.yaml: diagnose.0")


def test_methods_that_read_their_scores_are_left_out_by_default():
    methods = {"file": ScoresFile(path="x.npz", axes="query_train", orientation="helpful_positive"), **METHODS}
    assert options().reads_scores_of(methods) == ["last", "all"]
