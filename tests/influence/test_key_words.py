"""The key word of a pair: the word with the most negative (opponents) or most positive (proponents) contribution to its score."""

import numpy as np
import pytest
from small_task import SmallBert, SmallCNN, SmallTask, checkpoint, query_block

from influence.methods.key_words import NO_WORD, KeyWords, _lowest
from influence.methods.tracin_we import TracInWE
from influence.methods.tracin_we_syn import TracInWESyn
from influence.methods.tracin_we_topk import TracInWETopK
from influence.scoring import Scorer, word_contributions


def scorer(task, methods, points):
    queries = query_block(task)
    prepared = {label: method.prepare(task, None, queries) for label, method in methods.items()}
    return Scorer(task, points, queries, methods, prepared)


@pytest.mark.parametrize("model", [SmallCNN(), SmallBert()], ids=lambda model: model.name)
@pytest.mark.parametrize(
    "of", [TracInWE(), TracInWETopK(k=3), TracInWE(checkpoints="last"), TracInWESyn(k=4, similarity=0.2)], ids=str
)
def test_key_words_are_the_extremes_of_the_word_decomposition_without_special_tokens(model, of):
    task, queries = SmallTask(model), query_block(SmallTask(model))
    points = [checkpoint(task, seed, step=seed, weight=0.1) for seed in (1, 2)]
    methods = {"opponents": KeyWords(side="opponents", of=of), "proponents": KeyWords(side="proponents", of=of)}
    found = scorer(task, methods, points).score_range(0, 30)
    train_ids = task.splits["train"].ids
    pairs = [(int(q), int(i)) for q in queries.ids for i in train_ids]
    words = word_contributions(task, of, points, queries, pairs)
    n_none = 0
    for (q, i), parts in words.items():
        at = list(queries.ids).index(q), list(train_ids).index(i)
        own = dict.fromkeys((token for _, token, _ in parts if token not in task.special_ids), 0.0)
        for _, token, value in parts:  # a word of the example may have other matches at another checkpoint
            if token in own:
                own[token] += value
        for side, sign in (("opponents", 1), ("proponents", -1)):
            token = int(found[side][at])
            against = {t: sign * value for t, value in own.items() if sign * value < 0}
            n_none += not against
            assert (token == NO_WORD) == (not against)
            if against:
                assert against[token] == pytest.approx(min(against.values()), rel=1e-5)
    assert 0 < n_none < 2 * len(pairs)


def test_key_words_do_not_depend_on_the_shards():
    task = SmallTask(SmallBert())
    points = [checkpoint(task, seed, step=seed, weight=0.1) for seed in (1, 2)]
    found = scorer(task, {"w": KeyWords(side="opponents")}, points)
    whole = found.score_range(0, 30)["w"]
    parts = [found.score_range(start, min(start + 7, 30))["w"] for start in range(0, 30, 7)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert found.score_range(4, 4)["w"].shape == (len(query_block(task).ids), 0)


def test_ties_go_to_the_smaller_token_and_positions_of_one_token_are_summed():
    pairs = np.array([0, 0, 0, 3, 3, 5])
    tokens = np.array([9, 4, 4, 8, 7, 2])
    at, word = _lowest(pairs, tokens, np.array([-1.5, -2.0, 0.5, -1.0, -1.0, 0.25]))
    assert (at.tolist(), word.tolist()) == ([0, 3], [4, 7])


def test_the_identity_names_the_side_and_the_decomposed_method():
    ids = [
        KeyWords(side=side, of=of).options_identity(None)
        for side in ("opponents", "proponents")
        for of in (TracInWE(), TracInWETopK())
    ]
    assert len({str(one) for one in ids}) == 4
