"""The scorer: shards, ranges, checkpoints in use, words."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from small_task import SmallBert, SmallCNN, SmallTask, checkpoint, query_block

from influence.base import Method
from influence.methods.scores_file import ScoresFile
from influence.methods.tfidf import TfIdf
from influence.methods.tracin import TracIn
from influence.methods.tracin_last import TracInLast
from influence.methods.tracin_we import TracInWE
from influence.methods.tracin_we_topk import TracInWETopK
from influence.scoring import Scorer, needs_of, word_contributions
from tasks.errors import RefitError

METHODS = {
    "all": TracIn(bias=True),
    "second": TracIn(layers="second"),
    "tracin_last": TracInLast(),
    "tracin_we": TracInWE(),
    "topk": TracInWETopK(k=3),
    "tfidf": TfIdf(checkpoints="last"),
    "oracle": ScoresFile(path="planted:oracle", axes="query_train", orientation="helpful_positive"),
}


def scorer(task, methods=METHODS, points=None, **options):
    queries = query_block(task)
    points = points or [checkpoint(task, seed, step=seed, weight=0.1) for seed in (1, 2)]
    prepared = {label: method.prepare(task, None, queries) for label, method in methods.items()}
    return Scorer(task, points, queries, methods, prepared, **options)


def in_shards(scores, size, n=30):
    parts = [scores.score_range(start, min(start + size, n)) for start in range(0, n, size)]
    return {label: np.concatenate([part[label] for part in parts], 1) for label in parts[0]}


@pytest.mark.parametrize("model", [SmallCNN(), SmallBert()], ids=lambda m: m.name)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_shards_give_the_numbers_of_the_whole(model, size):
    task = SmallTask(model)
    scores = scorer(task)
    whole, parts = scores.score_range(0, 30), in_shards(scores, size)
    for label, expected in whole.items():
        np.testing.assert_allclose(parts[label], expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max(), err_msg=label)


def test_a_range_has_the_same_bits_whatever_else_was_scored():
    task = SmallTask(SmallBert())
    fresh, used = scorer(task), scorer(task)
    used.score_range(0, 30)
    used.score_range(3, 9)
    expected = fresh.score_range(12, 27)
    for label, found in used.score_range(12, 27).items():
        np.testing.assert_array_equal(found, expected[label], err_msg=label)


def test_an_empty_range_has_no_columns():
    assert {found.shape for found in scorer(SmallTask(SmallCNN())).score_range(5, 5).values()} == {(3, 0)}


@pytest.mark.parametrize("model", [SmallCNN(), SmallBert()], ids=lambda m: m.name)
def test_rows_that_are_scored_by_length_keep_their_columns(model):
    task = SmallTask(model)
    widths, make = [], task.batch

    def batch(split, rows, **options):
        widths.append((split, make(split, rows, **options)["input_ids"].shape[1]))
        return make(split, rows, **options)

    whole = scorer(task, batch_size=8).score_range(2, 29)
    grouped = task.with_length_groups(8)
    grouped.batch = batch
    for label, found in scorer(grouped, batch_size=8).score_range(2, 29).items():
        expected = whole[label]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max(), err_msg=label)
    train = [width for split, width in widths if split == "train"]
    assert train == sorted(train, reverse=True)
    assert train[0] > train[-1]


def test_methods_scored_together_and_alone_agree():
    task = SmallTask(SmallCNN())
    together = scorer(task).score_range(0, 30)
    for label, method in METHODS.items():
        np.testing.assert_array_equal(
            scorer(task, {label: method}).score_range(0, 30)[label], together[label], err_msg=label
        )


def test_checkpoints_that_no_method_uses_are_not_loaded():
    task = SmallTask(SmallCNN())
    broken = checkpoint(task, 1, step=1)
    broken.state.clear()
    points = [broken, checkpoint(task, 2, step=2)]
    assert scorer(task, {"m": TracInLast(checkpoints="last")}, points).score_range(0, 2)["m"].shape == (3, 2)
    with pytest.raises(ValueError, match="does not fit"):
        scorer(task, {"m": TracInLast()}, points)


def test_needs_are_the_union():
    assert needs_of([TracIn(), TracInLast(), TfIdf()]) == {"layers", "last"}
    assert needs_of([]) == set()


class Wrong(Method):
    name = "wrong"

    def score(self, queries, train, prepared):
        return prepared


def test_scores_of_the_wrong_shape_or_not_finite_raise():
    task, queries = SmallTask(SmallCNN()), query_block(SmallTask(SmallCNN()))
    for bad, message in ((np.zeros((3, 1)), "shape"), (np.full((3, 2), np.nan), f"query {queries.ids[0]} and train")):
        with pytest.raises(RefitError, match=message):
            Scorer(task, [], queries, {"w": Wrong()}, {"w": bad}).score_range(0, 2)


def test_only_methods_that_may_diverge_leave_out_the_scores_of_a_query_and_then_all_of_them():
    class Diverging(Wrong):
        may_diverge = True

    task, queries = SmallTask(SmallCNN()), query_block(SmallTask(SmallCNN()))
    without = np.array([[0, 1], [np.nan, np.nan], [2, 3]])
    found = Scorer(task, [], queries, {"d": Diverging()}, {"d": without}).score_range(0, 2)["d"]
    np.testing.assert_array_equal(found, without.astype(np.float32))
    for method, bad in (
        (Wrong(), without),
        (Diverging(), np.where(without == 3, np.nan, without)),
        (Diverging(), without + np.inf),
    ):
        with pytest.raises(RefitError, match="method d: the score of query"):
            Scorer(task, [], queries, {"d": method}, {"d": bad}).score_range(0, 2)


@pytest.mark.parametrize("method", [TracInWE(), TracInWETopK(k=3), TracInWE(tokens="content")], ids=str)
def test_word_contributions_sum_to_the_score(method):
    task, queries = SmallTask(SmallCNN()), query_block(SmallTask(SmallCNN()))
    points = [checkpoint(task, seed, step=seed, weight=0.1) for seed in (1, 2)]
    scores, train_ids = scorer(task, {"m": method}, points).score_range(0, 30)["m"], task.splits["train"].ids
    pairs = [(int(queries.ids[q]), int(train_ids[i])) for q, i in ((0, 5), (2, 5), (1, 29), (0, 0), (0, 12))]
    words = word_contributions(task, method, points, queries, pairs)
    assert list(words) == pairs
    for q, i in pairs:
        row, column = list(queries.ids).index(q), list(train_ids).index(i)
        assert sum(value for *_, value in words[q, i]) == pytest.approx(scores[row, column], rel=1e-5, abs=1e-8)
        sizes = [abs(value) for *_, value in words[q, i]]
        assert sizes == sorted(sizes, reverse=True)
        shared = set(task.tokens["test"][queries.rows[row]]) & set(task.tokens["train"][column])
        assert all(ours == theirs for ours, theirs, _ in words[q, i])
        assert {token for token, *_ in words[q, i]} <= shared
    assert any(words.values())


@pytest.mark.parametrize("model", [SmallCNN(), SmallBert()], ids=lambda m: m.name)
def test_the_words_of_1000_random_pairs_sum_to_their_scores(model):
    task = SmallTask(model, n_train=60, n_test=30, vocabulary=15)
    queries, train_ids = query_block(task, range(30)), task.splits["train"].ids
    points = [checkpoint(task, seed, step=seed, weight=0.1) for seed in (1, 2)]
    for method in (TracInWE(), TracInWETopK(k=4)):
        prepared = {"m": method.prepare(task, None, queries)}
        scores = Scorer(task, points, queries, {"m": method}, prepared).score_range(0, 60)["m"]
        drawn = np.random.default_rng(0).permutation(scores.size)[:1000]
        places = [divmod(int(place), 60) for place in drawn]
        pairs = [(int(queries.ids[q]), int(train_ids[i])) for q, i in places]
        words = word_contributions(task, method, points, queries, pairs)
        sums = np.array([sum(value for *_, value in words[pair]) for pair in pairs])
        expected = np.array([scores[place] for place in places])
        assert len(words) == 1000
        assert np.abs(sums - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
        assert (np.abs(expected) > 1e-5).mean() > 0.5, "most of these pairs share a word"


class Soft(TracInWE):
    """Matches token t of the query with token t + 1 of the train example, as a method with synonyms would."""

    name = "soft"

    def word_pairs(self, queries, train, query_row, train_row, prepared):
        found = self.words(queries, train, query_row, train_row, prepared)
        return [(token, token + 1, value) for token, value in found]


def test_a_method_may_pair_different_words_and_one_with_words_alone_pairs_each_with_itself():
    task = SmallTask(SmallCNN())
    queries, points = query_block(task), [checkpoint(task)]
    pair = (int(queries.ids[0]), int(task.splits["train"].ids[0]))
    plain, soft = (word_contributions(task, method, points, queries, [pair])[pair] for method in (TracInWE(), Soft()))
    assert plain
    assert [(a, a + 1, value) for a, _, value in plain] == soft
    assert (TracInWE().has_words, Soft().has_words, TracInLast().has_words) == (True, True, False)


def test_no_pairs_need_no_work():
    task = SmallTask(SmallCNN())
    assert word_contributions(task, TracInWE(), [], query_block(task), []) == {}


class ThreadsSeen(TracInWE):
    """Records with how many threads the words of a pair are computed."""

    seen: ClassVar[list[int]] = []

    def words(self, queries, train, query_row, train_row, prepared):
        self.seen.append(torch.get_num_threads())
        return super().words(queries, train, query_row, train_row, prepared)


def test_words_are_computed_by_one_thread_and_the_number_of_threads_is_restored():
    task, method, before = SmallTask(SmallCNN()), ThreadsSeen(), torch.get_num_threads()
    queries = query_block(task)
    pairs = [(int(queries.ids[0]), int(task.splits["train"].ids[0]))]
    torch.set_num_threads(2)
    try:
        word_contributions(task, method, [checkpoint(task)], queries, pairs)
        assert (ThreadsSeen.seen, torch.get_num_threads()) == ([1], 2)
        with pytest.raises(KeyError):
            word_contributions(task, method, [checkpoint(task)], queries, [(-5, -5)])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
