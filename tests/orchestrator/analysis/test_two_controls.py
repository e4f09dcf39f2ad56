"""What is said of a method that beats one control and not the other."""

from __future__ import annotations

import pytest

from orchestrator.analysis.two_controls import two_control_verdicts
from orchestrator.analysis.verdicts import verdict, verdicts

BOTH = ("random", "random_same_label")


def row(method, baseline, diff, p=0.001, group="proponents"):
    return {
        "method": method,
        "baseline": baseline,
        "group": group,
        "diff": diff,
        "se": 0.01,
        "ci_low": diff - 0.02,
        "ci_high": diff + 0.02,
        "p": p,
        "p_holm": p,
        "n_queries": 10,
        "n_repeats": 5,
    }


def said(*rows):
    return two_control_verdicts(verdicts(rows), rows, *BOTH)


@pytest.mark.parametrize(("group", "sign"), [("proponents", -1), ("opponents", 1)])
def test_a_method_that_beats_both_controls_found_examples_beyond_their_label(group, sign):
    (sentence,) = said(*(row("tracin", control, 0.1 * sign, group=group) for control in BOTH))
    assert sentence.startswith(f"For {group}, tracin beats both controls, so it found examples that matter beyond")
    assert sentence.count(f"difference {0.1 * sign:g} [") == 2


@pytest.mark.parametrize(
    ("group", "sign", "drawn"),
    [("proponents", -1, "examples of the label that is asked about"), ("opponents", 1, "examples of the other labels")],
)
def test_a_method_that_beats_random_alone_found_the_label(group, sign, drawn):
    rows = row("tracin", BOTH[0], 0.1 * sign, group=group), row("tracin", BOTH[1], 0.001 * sign, 0.63, group)
    (sentence,) = said(*rows)
    assert sentence.startswith(
        f"For {group}, tracin beats random but not random_same_label, so it found the label, not the examples"
    )
    assert f"could not be told apart from that of removing random {drawn}" in sentence
    assert "Holm p 0.001" in sentence
    assert "Holm p 0.63" in sentence


@pytest.mark.parametrize(("group", "sign"), [("proponent_words", -1), ("opponent_words", 1)])
def test_groups_of_words_are_said_to_have_found_words(group, sign):
    (sentence,) = said(*(row("tracin", control, 0.1 * sign, group=group) for control in BOTH))
    assert "beats both controls, so it found words that matter beyond the label of their examples." in sentence
    (sentence,) = said(row("tracin", BOTH[0], 0.1 * sign, group=group), row("tracin", BOTH[1], 0.0, 0.6, group))
    assert "so it found the label, not the words, as far as this campaign can tell" in sentence
    assert "that of replacing random words of random examples" in sentence


def test_a_method_that_loses_to_the_label_found_the_label_too():
    (sentence,) = said(row("tracin", BOTH[0], -0.1), row("tracin", BOTH[1], 0.05))
    assert "so it found the label, not the examples, as far as this campaign can tell: removing random" in sentence
    assert "has a larger effect" in sentence


def test_nothing_is_added_where_random_was_not_beaten_or_there_is_nothing_to_compare():
    nan = float("nan")
    cases = [
        [row("tracin", BOTH[0], -0.1, 0.2), row("tracin", BOTH[1], -0.1, 0.3)],
        [row("tracin", BOTH[0], 0.1), row("tracin", BOTH[1], -0.1)],
        [row("tracin", BOTH[0], -0.1), row("tracin", BOTH[1], nan, nan)],
        [row("tracin", BOTH[0], -0.1)],
        [row("tracin", BOTH[0], -0.1, group="least"), row("tracin", BOTH[1], -0.1, group="least")],
    ]
    for rows in cases:
        assert said(*rows) == verdicts(rows)


def test_other_sentences_stay_and_keep_their_order():
    pair = row("tracin", "tfidf", -0.05)
    rows = [row("tracin", BOTH[0], -0.1), row("tfidf", BOTH[0], -0.1, 0.4), row("tracin", BOTH[1], -0.1), pair]
    told = said(*rows)
    assert len(told) == 3
    assert told[0].startswith("For proponents, tracin beats both controls")
    assert told[1:] == [verdict(rows[1]), verdict(pair)]


def test_comparisons_that_were_gathered_in_one_sentence_stay_gathered():
    rows = [row(f"m{i}", BOTH[0], -0.1) for i in range(5)] + [row(f"m{i}", BOTH[1], -0.01, 0.5) for i in range(5)]
    told = said(*rows)
    assert sum("found the label, not the examples" in sentence for sentence in told) == 5
    assert len(told) == 6
    assert "could not be told apart" in told[-1]
