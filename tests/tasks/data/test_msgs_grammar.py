"""The grammar's sentences have the attributes they say they have, in the asked numbers, and nothing else tells them."""

import re
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import ks_2samp

from tasks.data import msgs_grammar as grammar
from tasks.data.msgs_grammar import MsgsGrammar, cells, sentence

NOUNS_AND_VERBS = {
    word for words in (*grammar.WORDS.values(), grammar.VERBS, grammar.MOTIONS) for word in map(str.lower, words)
}
INFLECTED = {base.removesuffix("e") + ending for base in grammar.VERBS + grammar.MOTIONS for ending in ("ed", "ing")}
NOUNS_OF_PEOPLE = re.compile(r"\b(?:" + "|".join(grammar.PEOPLE) + r")\b")


def words(text):
    return re.findall(r"[a-z']+", text.lower())


def n_adjectives(text):
    return sum(word in grammar.ADJECTIVES for word in words(text))


def the_before_a(text):
    found = [word for word in words(text) if word in ("the", "a")]
    assert sorted(found) == ["a", "the"], f"one of each: {text}"
    return int(found == ["the", "a"])


def cell_counts(split):
    return Counter(zip(split.labels.tolist(), split.confounds.tolist(), strict=True))


@pytest.fixture(scope="module")
def splits():
    return MsgsGrammar(seed=4).splits()


def test_no_word_is_an_adjective_and_something_else():
    adjectives = set(grammar.ADJECTIVES)
    assert len(adjectives) == len(grammar.ADJECTIVES) >= 90
    others = NOUNS_AND_VERBS | INFLECTED | set(grammar.OTHER_DETERMINERS)
    assert not adjectives & others
    assert min(len(words) for name, words in grammar.WORDS.items() if name != "in") > 30


def test_a_fits_before_every_word_that_can_follow_it():
    after_a = (*grammar.ADJECTIVES, *grammar.MODIFIERS, *grammar.PEOPLE, *grammar.THINGS, *grammar.PLACES)
    assert not [word for word in after_a if word[0] in "aeiou"]


def test_attributes_are_those_of_the_text(splits):
    for split in splits.values():
        assert split.labels.tolist() == [n_adjectives(text) for text in split.texts]
        assert split.confounds.tolist() == [the_before_a(text) for text in split.texts]
        assert (split.classes, split.confound_names) == (("absent", "present"), ("a first", "the first"))
        assert split.ids.tolist() == list(range(len(split)))


def test_counts_of_every_cell_are_those_asked_for(splits):
    assert cell_counts(splits["train"]) == {(0, 0): 2492, (1, 1): 2493, (1, 0): 7, (0, 1): 8}
    for name in ("dev", "test"):
        assert cell_counts(splits[name]) == {(0, 0): 333, (1, 1): 334, (1, 0): 166, (0, 1): 167}


@pytest.mark.parametrize(("inoculation", "n_counter"), [(0.0, 0), (0.003, 1), (0.25, 50), (0.5, 100)])
def test_inoculation_is_the_fraction_of_counter_examples(inoculation, n_counter):
    split = MsgsGrammar(n_train=200, n_dev=10, n_test=10, inoculation=inoculation).splits()["train"]
    assert (split.labels != split.confounds).sum() == n_counter
    assert abs(split.labels.mean() - 0.5) < 0.01


@pytest.mark.parametrize(("agreement", "n_agree"), [(0.0, 0), (0.5, 50), (1.0, 100)])
def test_test_agreement_is_the_fraction_that_agree_in_dev_and_test(agreement, n_agree):
    found = MsgsGrammar(n_train=50, n_dev=100, n_test=100, test_agreement=agreement).splits()
    assert [(found[name].labels == found[name].confounds).sum() for name in ("dev", "test")] == [n_agree] * 2


@pytest.mark.parametrize("n", [4, 5, 6, 7, 1000])
@pytest.mark.parametrize("n_counter", [0, 1, 2, 3])
def test_cells_halve_both_sorts_and_balance_the_labels(n, n_counter):
    found = cells(n, n_counter)
    assert len(found) == n
    assert (found[:, 0] != found[:, 1]).sum() == n_counter
    assert abs(int(found[:, 0].sum()) * 2 - n) <= 1 + (n % 2 == 1 and n_counter % 2 == 0)


def test_no_sentence_occurs_twice(splits):
    texts = [text for split in splits.values() for text in split.texts]
    assert len(set(texts)) == len(texts) == 7000


def test_same_options_same_sentences_and_another_seed_others(splits):
    again, other = MsgsGrammar(seed=4).splits(), MsgsGrammar(seed=5).splits()
    assert [split.content_digest() for split in again.values()] == [s.content_digest() for s in splits.values()]
    assert not set(other["train"].texts) & set(splits["train"].texts)


def test_a_larger_test_set_leaves_train_as_it_is(splits):
    more = MsgsGrammar(seed=4, n_test=1500).splits()
    assert more["train"].content_digest() == splits["train"].content_digest()


def test_order_of_the_articles_is_all_that_the_surface_attribute_changes():
    for draws in np.random.default_rng(0).random((300, grammar.N_DRAWS)).tolist():
        for core in (0, 1):
            a_first, the_first = (words(sentence(draws, core, surface, grammar.ADJECTIVES)) for surface in (0, 1))
            assert Counter(a_first) == Counter(the_first)
            changed = {pair for pair in zip(a_first, the_first, strict=True) if pair[0] != pair[1]}
            assert changed == {("a", "the"), ("the", "a")}


def test_one_noun_in_place_of_the_adjective_is_all_that_the_core_attribute_changes():
    for draws in np.random.default_rng(1).random((300, grammar.N_DRAWS)).tolist():
        for surface in (0, 1):
            without, with_one = (words(sentence(draws, core, surface, grammar.ADJECTIVES)) for core in (0, 1))
            changed = [pair for pair in zip(without, with_one, strict=True) if pair[0] != pair[1]]
            ((noun, adjective),) = changed
            assert noun in (*grammar.MODIFIERS, *grammar.ROLES)
            assert adjective in grammar.ADJECTIVES


def test_length_tells_neither_attribute(splits):
    train, lengths = splits["train"], np.asarray([len(words(text)) for text in splits["train"].texts])
    for attribute in (train.labels, train.confounds):
        parts = lengths[attribute == 0], lengths[attribute == 1]
        assert abs(parts[0].mean() - parts[1].mean()) < 4 * lengths.std() * np.sqrt(4 / len(lengths))
        assert ks_2samp(*parts).pvalue > 0.001


def test_nouns_of_people_tell_neither_attribute(splits):
    train = splits["train"]
    for attribute in (train.labels, train.confounds):
        counts = [Counter(), Counter()]
        for text, value in zip(train.texts, attribute.tolist(), strict=True):
            counts[value].update(NOUNS_OF_PEOPLE.findall(text.lower()))
        a, b = (np.asarray([count[word] for word in grammar.PEOPLE]) for count in counts)
        z = (a - b) / np.sqrt(a + b)
        assert np.abs(z).max() < 4.5


def test_nouns_that_stand_where_an_adjective_could_occur_with_adjectives_too(splits):
    train = splits["train"]
    both = [set(words(" ".join(np.asarray(train.texts)[train.labels == label]))) for label in (0, 1)]
    nouns = set(grammar.MODIFIERS + grammar.ROLES)
    assert nouns <= both[0] & both[1]


def test_articles_stand_at_every_place_of_a_determiner(splits):
    places = Counter(words(text).index("the") for text in splits["train"].texts)
    assert len(places) >= 8
    assert max(places.values()) < 0.5 * len(splits["train"])


def test_every_adjective_is_used_and_held_out_ones_only_in_dev_and_test():
    found = MsgsGrammar(n_adjectives=30, held_out_adjectives=0.4).splits()
    used = {
        name: {w for t in split.texts for w in words(t) if w in grammar.ADJECTIVES} for name, split in found.items()
    }
    assert {name: len(adjectives) for name, adjectives in used.items()} == {"train": 18, "dev": 30, "test": 30}
    assert used["train"] < used["dev"] == used["test"]


def test_one_adjective_is_left_to_train_however_many_are_held_out():
    found = MsgsGrammar(n_train=20, n_dev=10, n_test=10, n_adjectives=2, held_out_adjectives=0.9).splits()
    assert len({w for text in found["train"].texts for w in words(text) if w in grammar.ADJECTIVES}) == 1


@pytest.mark.parametrize(
    "options",
    [{"n_train": 3}, {"inoculation": 0.6}, {"test_agreement": 1.1}, {"held_out_adjectives": 1.0}, {"n_adjectives": 96}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValidationError):
        MsgsGrammar(**options)
