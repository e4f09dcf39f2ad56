"""Which pairs a sentence is shown as: closed forms, frequencies, and nothing of other sentences."""

import numpy as np
import pytest

from tasks.data.corpus import Sentences
from tasks.data.pairs import NoiseTable, PairSampler, below, draws, mixed

KEY = 12345
COUNTS = np.array([50, 30, 20, 10, 5, 1])


def sampler(**options):
    defaults = {"window": 2, "dynamic_window": False, "window_shape": "symmetric"}
    defaults |= {"negatives": 3, "negatives_per": "pair", "subsample": 0.0}
    return PairSampler(COUNTS, NoiseTable(COUNTS, 0.75), **{**defaults, **options})


def listed(pairs):
    """(owner, centre, target, positive, copies) of every target."""
    owner, centre = (np.repeat(array, np.diff(pairs.starts)) for array in (pairs.owners, pairs.centres))
    columns = (owner, centre, pairs.targets, pairs.positive, pairs.copies)
    return list(zip(*(column.tolist() for column in columns), strict=True))


SENTENCES = Sentences.of([[0, 1, 2, 3, 4], [5], [2, 2], [1, 0, 3, 0, 1, 4, 2]])
IDS = np.array([7, 8, 9, 10])


def sampled(rows, key=KEY, ids=IDS, sentences=SENTENCES, **options):
    rows = np.asarray(rows)
    return sampler(**options).sample(sentences, rows, ids[rows], key)


def test_split_mix_is_the_published_one():
    # the first outputs of the reference implementation for the seed 1234567 (Vigna, splitmix64.c)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [int(draws(np.array([1234567], np.uint64), n)[0]) for n in range(3)] == expected


def test_numbers_below_n_are_equally_frequent():
    random = mixed(np.arange(60_000, dtype=np.uint64))
    assert np.abs(np.bincount(below(random, 6).astype(int), minlength=6) - 10_000).max() < 400


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_the_noise_table_holds_the_exact_shares(power):
    table = NoiseTable(COUNTS, power)
    kept = table.keep / 2.0**32
    shares = kept + np.bincount(table.alias, weights=1 - kept, minlength=len(COUNTS))
    expected = COUNTS**power / (COUNTS**power).sum()
    np.testing.assert_allclose(shares / len(COUNTS), expected, atol=1e-9)


def test_noise_words_are_drawn_with_these_shares():
    words = NoiseTable(COUNTS, 0.75).words(mixed(np.arange(200_000, dtype=np.uint64)))
    expected = COUNTS**0.75 / (COUNTS**0.75).sum()
    np.testing.assert_allclose(np.bincount(words, minlength=6) / 200_000, expected, atol=0.005)


def test_a_symmetric_window_is_every_word_around():
    positives = [target[:3] for target in listed(sampled([2, 0])) if target[3]]
    assert positives == [
        *((0, 2, 2), (0, 2, 2)),
        *((1, 0, 1), (1, 0, 2), (1, 1, 0), (1, 1, 2), (1, 1, 3), (1, 2, 0), (1, 2, 1), (1, 2, 3), (1, 2, 4)),
        *((1, 3, 1), (1, 3, 2), (1, 3, 4), (1, 4, 2), (1, 4, 3)),
    ]


def test_the_published_window_is_one_shorter_behind():
    after = [
        (centre, target)
        for _, centre, target, positive, _ in listed(sampled([0], window_shape="published"))
        if positive
    ]
    assert after == [(0, 1), (1, 0), (1, 2), (2, 0), (2, 1), (2, 3), (3, 1), (3, 2), (3, 4), (4, 2), (4, 3)]
    assert not listed(sampled([1], window_shape="published"))


def test_every_pair_has_negatives_of_its_own_or_every_centre():
    by_pair, by_centre = sampled([0, 3]), sampled([0, 3], negatives_per="centre")
    n_pairs = int(by_pair.positive.sum())
    assert len(by_pair.targets) == 4 * n_pairs
    assert by_pair.positive.reshape(-1, 4).tolist() == [[True, False, False, False]] * n_pairs
    assert len(by_centre.targets) == n_pairs + 3 * 12
    assert by_centre.copies[~by_centre.positive].sum() == 3 * n_pairs
    assert [t[:3] for t in listed(by_centre) if t[3]] == [t[:3] for t in listed(by_pair) if t[3]]
    assert by_centre.positive[: by_centre.starts[1]].tolist() == [True] * 2 + [False] * 3


@pytest.mark.parametrize("options", [{}, {"negatives_per": "centre"}, {"dynamic_window": True, "subsample": 0.05}])
def test_a_sentence_is_shown_the_same_way_in_any_company(options):
    together = listed(sampled([0, 1, 2, 3], **options))
    for row in range(4):
        alone = [target[1:] for target in listed(sampled([row], **options))]
        assert alone == [target[1:] for target in together if target[0] == row]
    assert listed(sampled([0, 1, 2, 3], **options)) == together
    assert listed(sampled([0, 1, 2, 3], key=KEY + 1, **options)) != together
    assert listed(sampled([0, 1, 2, 3], ids=IDS + 100, **options)) != together


def test_parts_are_the_pairs_of_their_sentences():
    pairs = sampled([3, 1, 0, 2])
    assert listed(pairs.part(1, 3)) == [target for target in listed(pairs) if target[0] in (1, 2)]
    assert listed(pairs.part(0, 4)) == listed(pairs)
    assert not listed(pairs.part(1, 2))


def long_corpus(n=4000):
    return Sentences.of([[0, 1, 2, 3, 4, 5, 0, 1, 2]] * n), np.arange(n)


def test_dynamic_windows_are_all_widths_equally_often():
    sentences, rows = long_corpus()
    pairs = sampled(rows, ids=rows, sentences=sentences, window=4, dynamic_window=True, negatives=1)
    middle = pairs.centres == 4  # the one word with a full window on both sides
    widths = (np.diff(pairs.starts)[middle] // 2) // 2
    np.testing.assert_allclose(np.bincount(widths, minlength=5) / 4000, [0, 0.25, 0.25, 0.25, 0.25], atol=0.03)


def test_frequent_words_are_dropped_as_in_word2vec():
    sentences, rows = long_corpus()
    pairs = sampled(rows, ids=rows, sentences=sentences, window=8, subsample=0.01, negatives=1)
    frequency = COUNTS / COUNTS.sum()
    chance = np.minimum(1, (np.sqrt(frequency / 0.01) + 1) * 0.01 / frequency)
    uses = np.array([2, 2, 2, 1, 1, 1])
    np.testing.assert_allclose(np.bincount(pairs.centres, minlength=6) / 4000 / uses, chance, atol=0.06)


def test_a_corpus_of_no_sentences_has_no_pairs():
    pairs = sampled(np.zeros(0, int))
    assert not listed(pairs)
    assert pairs.starts.tolist() == [0]
