"""Copies of queries among training texts: exact, nearly exact, and what only looks alike."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.data import near_duplicates as near_duplicates_module
from tasks.data.near_duplicates import Copy, equal_rows, near_duplicates

LONG = "the quick brown fox jumps over the lazy dog while nobody in the whole village looks up from breakfast today"


def brute_force(queries, texts, threshold):
    """The definition, pair by pair."""

    def shingles(text):
        words = "".join(c if c.isalnum() or c == "_" else " " for c in text.lower()).split()
        return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}

    found = []
    for q, query in enumerate(queries):
        for row, text in enumerate(texts):
            one, other = shingles(query), shingles(text)
            similarity = len(one & other) / len(one | other)
            if similarity >= threshold:
                found.append(Copy(q, row, similarity))
    return found


def test_case_punctuation_and_blanks_do_not_hide_a_copy():
    texts = ["Something else entirely, three words and more.", "  The quick,  brown FOX jumps!\n"]
    assert near_duplicates(["the quick brown fox jumps"], texts) == [Copy(0, 1, 1.0)]


def test_one_changed_word_of_many_is_near_and_every_other_word_is_not():
    words = LONG.split()
    near = " ".join([*words[:-1], "yesterday"])
    far = " ".join(word if i % 2 else "other" for i, word in enumerate(words))
    (copy,) = near_duplicates([LONG], [far, near])
    assert copy.row == 1
    assert 0.8 <= copy.similarity < 1
    assert near_duplicates([LONG], [near], threshold=0.99) == []


@pytest.mark.parametrize("short", ["Yes", "so good", "!!!"])
def test_texts_of_fewer_words_than_a_shingle_match_themselves_only(short):
    texts = [short, f"{short} and then some more words", "another"]
    assert near_duplicates([short], texts) == [Copy(0, 0, 1.0)]


def test_texts_without_a_word_are_copies_only_if_they_are_equal():
    assert near_duplicates(["!!!", "", "???"], ["!!! ", "...", " "]) == [Copy(0, 0, 1.0)]


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_the_index_finds_what_comparing_every_pair_finds(threshold):
    rng = np.random.default_rng(7)
    vocabulary = np.array(["a", "b", "c", "d"])
    texts = [" ".join(rng.choice(vocabulary, rng.integers(1, 9))) for _ in range(150)]
    queries = texts[:10] + [" ".join(rng.choice(vocabulary, 6)) for _ in range(10)]
    found = near_duplicates(queries, texts, threshold)
    assert len(found) > 10
    assert found == brute_force(queries, texts, threshold)


def test_rows_of_numbers_are_copies_only_if_every_number_is_equal():
    features = np.array([[1.0, 2.0], [1.0, 2.0000002], [3.0, 4.0]], np.float32)
    queries = np.array([[3.0, 4.0], [1.0, 2.0], [0.0, 0.0]], np.float32)
    assert equal_rows(queries, features) == [Copy(0, 2, 1.0), Copy(1, 0, 1.0)]


def test_texts_of_blanks_alone_are_copies_of_nothing():
    assert near_duplicates(["", " \t", "!!!"], ["", "  ", "!!!"]) == [Copy(2, 2, 1.0)]
    assert near_duplicates([""] * 200, [""] * 20_000) == []


def test_equal_texts_are_compared_once_and_each_of_them_is_found():
    """2 distinct queries and 2 distinct texts are 4 comparisons, however often each of them stands there."""
    template = "please answer the question below in one word and say why you think so"
    queries = [f"{template} {'first' if i % 2 else 'second'} thing" for i in range(6)]
    texts = [f"{template.upper()} {'first' if i % 3 else 'other'} thing!" for i in range(30)]
    found = near_duplicates(queries, texts, threshold=1.0)
    assert found == [Copy(q, t, 1.0) for q in (1, 3, 5) for t in range(30) if t % 3]
    compared = []
    for _ in near_duplicates_module._pairs(
        near_duplicates_module._grouped(queries * 100), near_duplicates_module._grouped(texts * 700), 0.1
    ):
        compared.append(1)
    assert len(compared) == 4


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_sizes_that_cannot_reach_the_threshold_are_all_that_is_passed_over(threshold):
    """Prefixes of one text: |S(a) & S(b)| is the smaller size, so that the sizes alone decide, up to the threshold itself."""
    words = [f"w{i}" for i in range(24)]
    texts = [" ".join(words[: n + 2]) for n in range(1, 21)]
    assert near_duplicates(texts, texts, threshold) == brute_force(texts, texts, threshold)
