"""The option `leave_out` of tracin_we and tracin_we_topk."""

from pathlib import Path

import numpy as np
import pytest
from small_task import SmallBert, SmallCNN, SmallTask, checkpoint, query_block

from influence.methods.tracin_we import TracInWE
from influence.registry import METHODS
from influence.scoring import Scorer, word_contributions
from tasks.components import parse_named
from tasks.errors import InputError

WHERE = "config.yaml: methods[0]"


def made(name="tracin_we", **options):
    return parse_named(METHODS, {"name": name, **options}, "config.yaml", "methods[0]")


def score(task, method, point):
    queries = query_block(task)
    prepared = {"m": method.prepare(task, Path(), queries)}
    return Scorer(task, [point], queries, {"m": method}, prepared).score_range(0, len(task.splits["train"]))["m"]


def contributions(task, method, point):
    queries, train = query_block(task), task.splits["train"]
    pairs = [(int(q), int(t)) for q in queries.ids for t in train.ids]
    found = word_contributions(task, method, [point], queries, pairs)
    return {pair: [(token, value) for token, _, value in words] for pair, words in found.items()}


def most_frequent(task, n):
    """The n most frequent tokens that are not special, counted one by one."""
    counts = dict.fromkeys(range(3, task.vocabulary), 0)
    for text in task.tokens["train"]:
        for token in text[1:-1]:
            counts[token] += 1
    return sorted(counts, key=lambda token: (-counts[token], token))[:n]


@pytest.mark.parametrize("model", [SmallCNN, SmallBert])
@pytest.mark.parametrize("n", [1, 5])
def test_the_most_frequent_tokens_and_the_special_ones_add_nothing(model, n):
    task = SmallTask(model())
    point, left_out = checkpoint(task), {0, 1, 2, *most_frequent(task, n)}
    method = made(leave_out={"most_frequent": n})
    assert set(method.prepare(task, Path(), None)) == left_out
    whole, found = contributions(task, TracInWE(), point), score(task, method, point)
    expected = [sum(part for token, part in words if token not in left_out) for words in whole.values()]
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert np.abs(found - score(task, TracInWE(), point)).max() > 1e-4


def test_listed_words_add_nothing_and_the_other_words_keep_their_part():
    task = SmallTask(SmallCNN())
    point = checkpoint(task)
    whole = contributions(task, TracInWE(), point)
    found = contributions(task, made(leave_out=["w4", "w11"]), point)
    assert any(token in (4, 11) for words in whole.values() for token, _ in words)
    for pair, words in whole.items():
        assert dict(found[pair]) == pytest.approx({token: part for token, part in words if token not in (4, 11)})


def test_special_tokens_are_left_out_beside_a_list_by_tokens_content():
    task = SmallTask(SmallCNN())
    assert set(made(leave_out=["w4"], tokens="content").prepare(task, Path(), None)) == {0, 1, 2, 4}


def test_topk_chooses_its_positions_among_those_that_are_left():
    task = SmallTask(SmallCNN())
    point, without_option = checkpoint(task), made("tracin_we_topk", k=3)
    kept = [token for words in contributions(task, without_option, point).values() for token, _ in words if token > 2]
    words = [f"w{token}" for token in sorted(set(kept))[:2]]  # words that the choice of three positions had kept
    method, all_positions = made("tracin_we_topk", k=3, leave_out=words), made(leave_out=words)
    scores = score(task, method, point).ravel()
    assert np.abs(scores - score(task, without_option, point).ravel()).max() > 1e-3 * np.abs(scores).max()
    left, found = contributions(task, all_positions, point), contributions(task, method, point)
    assert all({token for token, _ in found[pair]} <= {token for token, _ in left[pair]} for pair in found)
    sums = [sum(part for _, part in parts) for parts in found.values()]
    np.testing.assert_allclose(sums, scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["tracin_we", "tracin_we_topk"])
def test_the_identity_has_the_option_only_if_it_is_set_and_does_not_depend_on_the_order_of_words(name):
    assert "leave_out" not in made(name).identity()
    assert made(name, leave_out=["b", "a", "a"]).identity() == made(name, leave_out=["a", "b"]).identity()
    assert made(name, leave_out={"most_frequent": 3}).identity()["leave_out"] == {"most_frequent": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leave_out": []}, r"methods\[0\].leave_out: \[\]: an empty list leaves out no word"),
        ({"leave_out": {"most_frequent": 0}}, r"methods\[0\].leave_out.most_frequent: 0: "),
        ({"leave_out": {"most": 3}}, r"methods\[0\].leave_out.*most_frequent"),
        ({"leave_out": ["the"], "tokens": "special"}, r"methods\[0\]: .*tokens: special takes none"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        made(**options)


def test_unknown_words_and_a_number_that_leaves_nothing_are_refused_before_anything_starts():
    task = SmallTask(SmallCNN())
    with pytest.raises(InputError, match=r"^config.yaml: methods\[0\].leave_out: 'w99' is not in the vocabulary"):
        made(leave_out=["w4", "w99"]).check(task, Path(), WHERE)
    method = made(leave_out={"most_frequent": 17})
    method.check(task, Path(), WHERE)
    with pytest.raises(
        InputError, match=r"^config.yaml: methods\[0\].leave_out.most_frequent: 17 leaves out every word"
    ):
        method.check_network(task, task.network(0), query_block(task), WHERE)
