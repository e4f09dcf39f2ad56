"""tracin_we_syn against all assignments of the words of short texts."""

import itertools

import numpy as np
import pytest
import torch
from small_task import END, SmallBert, SmallCNN, SmallTask, autograd_gradients, checkpoint, query_block

from influence.methods.tracin_we_syn import TracInWESyn
from influence.methods.tracin_we_topk import TracInWETopK
from influence.products import TokenGradients
from influence.scoring import Scorer, word_contributions
from influence.synonyms import matched_dot, matched_words


def score(task, method, points, start=0, stop=None, **options):
    queries = query_block(task)
    prepared = {"m": method.prepare(task, None, queries)}
    stop = stop or len(task.splits["train"])
    return Scorer(task, points, queries, {"m": method}, prepared, **options).score_range(start, stop)["m"]


def best_assignment(ours, theirs, embeddings, similarity):
    """The sum of products over the one-to-one assignment with the largest sum of absolute products, out of all of them.

    ours, theirs: token -> gradient. Words may stay without a match.
    """

    def product(w, v):
        a, b = embeddings[w], embeddings[v]
        matches = w == v or float(a @ b / (a.norm() * b.norm())) >= similarity
        return float(ours[w] @ theirs[v]) if matches else 0.0

    longer, shorter = sorted((list(ours), list(theirs)), key=len, reverse=True)
    turned = longer == list(theirs) and len(ours) != len(theirs)
    best = (-1.0, 0.0)
    for chosen in itertools.permutations(longer, len(shorter)):
        pairs = zip(shorter, chosen, strict=True) if turned else zip(chosen, shorter, strict=True)
        found = [product(w, v) for w, v in pairs]
        best = max(best, (sum(map(abs, found)), sum(found)), key=lambda one: one[0])
    return best[1]


def words_of(gradients, tokens, name):
    return {token: gradients[name][token].double() for token in dict.fromkeys(tokens) if token > END}


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [(SmallCNN, torch.float64, 1e-6), (SmallCNN, torch.float32, 1e-4), (SmallBert, torch.float64, 1e-6)],
)
def test_scores_equal_the_best_of_all_assignments(kind, dtype, tolerance):
    """Gradients by dense autograd, one example at a time, at two checkpoints; without the special tokens."""
    task = SmallTask(kind(), n_train=8, dtype=dtype, longest=4, vocabulary=12)
    points, queries = [checkpoint(task, seed, step=seed, weight=0.3 * seed) for seed in (1, 2)], query_block(task)
    name = task.model.embedding_module(None) + ".weight"
    expected, similarity = np.zeros((3, 8)), 0.3
    for point in points:
        embeddings = torch.tensor(point.state[name]).double()
        ours = autograd_gradients(task, point, "test", queries.rows, queries.labels)
        theirs = autograd_gradients(task, point, "train", range(8), task.splits["train"].labels)
        for (q, a), (i, b) in itertools.product(enumerate(ours), enumerate(theirs)):
            left = words_of(a, task.tokens["test"][queries.rows[q]], name)
            right = words_of(b, task.tokens["train"][i], name)
            expected[q, i] += point.weight * best_assignment(left, right, embeddings, similarity)
    method = TracInWESyn(k=99, similarity=similarity, tokens="content")
    found = score(task, method, points)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
    without = score(task, TracInWETopK(k=99, tokens="content"), points)
    assert np.abs(found - without).max() > 0.1 * np.abs(found).max()  # synonyms are matched
    for order in ([1, 0], [0, 1]):
        again = score(task, method, [points[i] for i in order], batch_size=3)
        np.testing.assert_allclose(again, found, rtol=1e-4, atol=1e-5 * np.abs(found).max())


def tokens(*entries, n=1):
    """Gradients from (example, token, vector)."""
    rows, words, vectors = zip(*entries, strict=True)
    return TokenGradients(n, torch.tensor(rows), torch.tensor(words), torch.tensor(vectors, dtype=torch.float64))


SIMILAR = torch.tensor(
    [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.0, 0.0]]
)  # 0 and 1 are similar; 2 stands alone; 3 is zero


def test_identical_words_have_no_precedence_over_a_better_match():
    """Word 0 of the query with word 1 of the example, and 1 with 0, gives |-6| + |4|; each with itself gives 1 + 1."""
    query = tokens((0, 0, [2.0, 1.0]), (0, 1, [0.0, 2.0]))
    train = tokens((0, 0, [0.0, 2.0 - 1.0]), (0, 1, [-3.0, 0.5]))
    alone = [2.0 * 0 + 1.0 * 1, 0.0 * -3 + 2.0 * 0.5]
    assert alone == [1.0, 1.0]
    np.testing.assert_allclose(matched_dot(query, train, SIMILAR, 0.7), [[-5.5 + 2.0]])
    assert sorted(matched_words(query, train, SIMILAR, 0.7, 0, 0)) == [(0, 1, -5.5), (1, 0, 2.0)]
    np.testing.assert_allclose(matched_dot(query, train, SIMILAR, 1.0), [[2.0]])


def test_each_word_is_matched_once_and_positions_of_a_word_are_summed_first():
    query = tokens((0, 0, [1.0, 0.0]), (0, 0, [2.0, 0.0]))
    train = tokens((0, 0, [1.0, 0.0]), (0, 1, [2.0, 0.0]), (1, 2, [5.0, 5.0]), n=2)
    np.testing.assert_allclose(matched_dot(query, train, SIMILAR, 0.7), [[6.0, 0.0]])


def test_a_word_with_a_zero_embedding_matches_itself_only():
    query, train = tokens((0, 3, [1.0, 2.0])), tokens((0, 3, [3.0, 1.0]), (0, 0, [9.0, 9.0]))
    np.testing.assert_allclose(matched_dot(query, train, SIMILAR, 0.01), [[5.0]])


def test_texts_without_words_score_zero():
    empty = TokenGradients(2, *(torch.zeros(0, dtype=torch.int64) for _ in range(2)), torch.zeros(0, 2))
    assert matched_dot(empty, empty, SIMILAR, 0.7).tolist() == [[0.0, 0.0]] * 2


def test_a_similarity_of_one_is_topk():
    task = SmallTask(SmallCNN())
    points = [checkpoint(task, seed, step=seed, weight=0.5) for seed in (1, 2)]
    found, expected = score(task, TracInWESyn(k=3, similarity=1), points), score(task, TracInWETopK(k=3), points)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_words_of_both_sides_sum_to_the_score_and_to_the_words_of_the_example():
    task = SmallTask(SmallCNN())
    points, queries = [checkpoint(task, seed, step=seed, weight=0.5) for seed in (1, 2)], query_block(task)
    method, train = TracInWESyn(k=4, similarity=0.3), task.splits["train"]
    pairs = [(int(q), int(t)) for q in queries.ids for t in train.ids]
    found = word_contributions(task, method, points, queries, pairs)
    sums = [sum(part for *_, part in found[pair]) for pair in pairs]
    np.testing.assert_allclose(sums, score(task, method, points).ravel(), rtol=1e-5, atol=1e-6)
    n_different = 0
    for (query_id, train_id), words in found.items():
        [row], [query] = np.flatnonzero(train.ids == train_id), np.flatnonzero(queries.ids == query_id)
        assert {token for token, _, _ in words} <= set(task.tokens["test"][queries.rows[query]])
        assert {token for _, token, _ in words} <= set(task.tokens["train"][row])
        assert len({(one, other) for one, other, _ in words}) == len(words)
        assert [abs(part) for *_, part in words] == sorted((abs(part) for *_, part in words), reverse=True)
        n_different += sum(one != other for one, other, _ in words)
    assert n_different > 10, "synonyms are listed with both words"
