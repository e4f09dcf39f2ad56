"""The sentences, words and neighbours that the report of a debias campaign shows, on a campaign that was really run."""

from __future__ import annotations

import json
import math
import re
import shutil

import numpy as np
import pytest
import yaml

from orchestrator import api
from orchestrator.campaigns.debias.page import debias_page, short_setting
from orchestrator.campaigns.debias.page_view import Sentence
from orchestrator.campaigns.debias.sentences import (
    base_checkpoints,
    cause,
    influential_sentences,
    list_names,
    nearest_neighbours,
    places,
    spans,
)
from orchestrator.inspection.report_data import report_data
from orchestrator.report.render import page
from tasks.recipes.skip_gram import SkipGramTraining
from tests.word_fakes import word_task

HOSTILE = "<script>alert(1)</script> {{7*7}}"
LISTS = {"x": ["w1", "w2"], "y": ["w3", "w4", "w9", "w10"], "a": ["w5", "w6"], "b": ["w7", "w8"]}
ONE_SIDED = {letter: LISTS[letter] for letter in "xya"}
SWAPPED = {**LISTS, "x": LISTS["y"], "y": LISTS["x"]}  # the effect of `both` with the other sign
SENTENCES = 4


def debias_config(folder, **changes):
    """A campaign on 60 random sentences, each with markup in its text."""
    base = word_task(SkipGramTraining.model_validate({}), n_train=60)
    records = [
        {"id": int(i), "text": f"{HOSTILE} {text}"} for i, text in zip(base.corpus.ids, base.corpus.texts, strict=True)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    weat = {"name": "weat", "min_uses": 1, "min_words": 2}
    options = {
        "name": "words",
        "campaign": "debias",
        "task": {
            "name": "word_vectors",
            "data": {"train": {"path": "train.jsonl", "format": "jsonl", "text": "text", "id": "id"}},
            "vocabulary": {"min_count": 1},
            "properties": [
                {**weat, "as": "both", **LISTS},
                {**weat, "as": "one_sided", **ONE_SIDED},
                {**weat, "as": "swapped", **SWAPPED},
                {"name": "neighbour", "word": "w2", "near": ["w3", "w7"], "as": "near"},
                {**weat, "as": "left_out", "test": "math", "if_too_few": "skip"},
            ],
            "watch": ["w12"],
            "model": {"name": "skip_gram", "dim": 6},
            "recipe": {"name": "skip_gram", "epochs": 3, "batch_sentences": 8, "learning_rate": 0.1, "subsample": 0},
        },
        "queries": {"split": "properties", "count": "all"},
        "measurement": "output",
        "methods": [
            {"name": "cross_loss_influence", "as": "influence", "solver": {"name": "exact", "damping": 0.1}},
            {"name": "random"},
        ],
        "debias": {
            "correct": ["both", "one_sided", "swapped", "near"],
            "actions": ["undo"],
            "sizes": [2],
            "passes": [1],
            "starts": ["original"],
            "finetune": {"name": "reinforce", "learning_rate": 0.001},
            "permutations": 20,
            "sentences": SENTENCES,
        },
        "repeats": {"seeds": [1, 2]},
        "compute": {"workers": 1},
        "tracking": None,
        "output": str(folder / "runs"),
    }
    options["debias"] |= changes
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    return api.load_config(folder / "config.yaml")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    config = debias_config(tmp_path_factory.mktemp("debias"))
    api.run(config, address="local")
    return config


@pytest.fixture(scope="module")
def pipeline(campaign):
    return api.open_pipeline(campaign, address="local")


@pytest.fixture(scope="module")
def sentences(pipeline):
    return influential_sentences(pipeline.campaign, pipeline.finished, base_checkpoints(pipeline.finished))


def signed_row(pipeline, test):
    """Train id -> score on the first base model, > 0 = adds to |value|; from the stored scores and the recorded value."""
    matrix, task = pipeline.all_matrices["r0", "influence"], pipeline.experiment.task
    position = [found.label for found in task.properties].index(test)
    outputs = pipeline.ledger_rows([pipeline.groups[0].models[0].work.spec_id])
    [row] = outputs.values()
    value = row.outcome.outputs["properties"][position, 0]
    return dict(zip(matrix.train_ids.tolist(), (np.sign(value) * matrix.scores[position]).tolist(), strict=True))


def test_sentences_are_the_strongest_of_each_sign_in_order(pipeline, sentences):
    train = pipeline.experiment.train
    for test in ("both", "one_sided", "swapped", "near"):
        scores = signed_row(pipeline, test)
        for name, sign in (("A", 1), ("M", -1)):
            shown = [one for one in sentences if (one.test, one.set) == (test, name)]
            ranked = sorted((i for i in scores if sign * scores[i] > 0), key=lambda i: (-sign * scores[i], i))
            assert [one.rank for one in shown] == list(range(1, 1 + min(SENTENCES, len(ranked))))
            np.testing.assert_allclose([one.score for one in shown], [scores[i] for i in ranked[:SENTENCES]], rtol=1e-6)
            for one in shown:
                assert scores[one.train_id] == pytest.approx(one.score)
                assert one.text == train.texts[train.rows_of([one.train_id])[0]]
        assert any(one.test == test for one in sentences)


def test_the_contributions_shown_sum_to_the_score_and_name_each_word_s_list(sentences):
    lists = {
        test: {word: letter for letter, words in given.items() for word in words}
        for test, given in (("both", LISTS), ("one_sided", ONE_SIDED), ("swapped", SWAPPED))
    } | {"near": dict.fromkeys(["w2", "w3", "w7"], "")}
    assert any(len(one.words) > 1 for one in sentences)
    for one in sentences:
        assert sum(part for _, _, part in one.words) == pytest.approx(one.score, rel=1e-3)
        sizes = [abs(part) for _, _, part in one.words]
        assert sizes == sorted(sizes, reverse=True)
        assert all(lists[one.test][word] == which for word, which, _ in one.words)


def test_the_same_sentences_and_words_add_to_a_bias_of_either_sign(sentences):
    both, swapped = ([one for one in sentences if one.test == test] for test in ("both", "swapped"))
    assert [one[1:5] for one in swapped] == [one[1:5] for one in both]
    for one, other in zip(swapped, both, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-4)
        parts, others = ({word: part for word, _, part in found.words} for found in (one, other))
        assert parts == pytest.approx(others, rel=1e-3)


def test_every_word_of_the_test_that_a_sentence_holds_is_told(sentences):
    for one in sentences:
        tested = {"w2", "w3", "w7"} if one.test == "near" else {w for k, ws in LISTS.items() for w in ws}
        tested -= set(LISTS["b"]) if one.test == "one_sided" else set()
        assert {word for word, _, _ in one.words} == tested & set(one.text.split())


def test_lists_are_named_by_their_first_words_and_a_one_sided_test_has_no_b(pipeline):
    assert list_names(pipeline.experiment.task.properties) == {
        "both": {"x": "w1, w2", "y": "w3, w4, w9 … (4 words)", "a": "w5, w6", "b": "w7, w8"},
        "one_sided": {"x": "w1, w2", "y": "w3, w4, w9 … (4 words)", "a": "w5, w6"},
        "swapped": {"x": "w3, w4, w9 … (4 words)", "y": "w1, w2", "a": "w5, w6", "b": "w7, w8"},
    }


def test_neighbours_are_those_of_the_base_model_of_watched_and_listed_words(pipeline):
    checkpoints = base_checkpoints(pipeline.finished)
    found = dict(nearest_neighbours(pipeline.campaign, pipeline.finished, checkpoints))
    assert list(found) == ["w12", "w1", "w3", "w5", "w7", "w2"]
    vectors, index = checkpoints[0].state["input.weight"].astype(float), pipeline.experiment.task.vocabulary
    for word, nearest in found.items():
        assert len(nearest) == 10
        for other, cosine in nearest:
            v, w = vectors[index[word]], vectors[index[other]]
            assert cosine == pytest.approx(v @ w / np.linalg.norm(v) / np.linalg.norm(w))


def test_the_page_shows_them_with_the_text_escaped(pipeline):
    source = page(report_data(pipeline))
    assert "<script>alert" not in source
    assert source.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt; {{7*7}}" in source
    text = " ".join(re.sub(r"<[^>]*>", " ", source).split())
    assert "target Y: w3, w4, w9 … (4 words)" in text
    assert "those of repeat 0 (seed 1), by the method influence" in text
    assert {section.id for section in debias_page(pipeline.campaign, pipeline.finished).sections} >= {
        "sentences",
        "neighbours",
        "refused",
    }


def test_without_the_weights_sentences_are_shown_and_contributions_are_not_known(campaign, sentences, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(campaign.path.parent, folder)
    shutil.rmtree(folder / "runs" / "checkpoints")
    pipeline = api.open_pipeline(
        api.load_config(folder / "config.yaml", [f"output={folder / 'runs'}"]), address="local"
    )
    assert base_checkpoints(pipeline.finished) == []
    sections = {section.id: section for section in debias_page(pipeline.campaign, pipeline.finished).sections}
    assert "neighbours" not in sections
    cards = [card for one in sections["sentences"].data["tests"] for _, cards in one["sides"] for card in cards]
    assert [card["sentence"][:-1] for card in cards] == [one[:-1] for one in sentences]
    parts = [part for card in cards for _, _, part in card["sentence"].words]
    assert parts
    assert all(map(math.isnan, parts))
    assert all(card["cause"].startswith("Holds w") for card in cards)


def test_a_campaign_that_shows_no_sentences_has_no_such_section(campaign, tmp_path):
    shutil.copy(campaign.path.parent / "train.jsonl", tmp_path)
    config = debias_config(tmp_path, sentences=0, correct=["both"])
    api.run(config, address="local")
    pipeline = api.open_pipeline(config, address="local")
    page = debias_page(pipeline.campaign, pipeline.finished)
    assert "sentences" not in {section.id for section in page.sections}


# --- words ---------------------------------------------------------------------------------------------------------


def test_the_cause_tells_the_other_words_of_the_test_last():
    words = [("he", "x", 0.3), ("his", "x", 0.0), ("manager", "a", -0.1)]
    assert cause(Sentence("t", "A", 1, 7, "", 0.2, words)) == (
        "Adds to the bias through he (target X, +0.3); against it: manager (attribute A, −0.1); also holds his (target X)."
    )
    unknown = [(word, which, math.nan) for word, which, _ in words]
    told = cause(Sentence("t", "A", 1, 7, "", 0.2, unknown))
    assert told == "Holds he (target X), his (target X) and manager (attribute A)."
    assert cause(Sentence("t", "M", 1, 7, "", -0.2, [("w2", "", -0.2)])) == "Takes from the bias through w2 (−0.2)."


def test_a_word_stands_where_the_corpus_has_it_and_not_inside_another():
    assert places("He said he's the hero; he, HE_he", "he") == [(0, 2), (23, 25), (27, 29), (30, 32)]
    assert places("o’neill and o'neill", "o'neill") == [(0, 7), (12, 19)]
    assert places("the boys' club", "boys") == [(4, 8)]
    assert spans("'his' home", [("his", "x", 1.0)]) == [(1, 4, 1.0)]


def test_a_setting_chosen_on_both_halves_is_said_once():
    assert short_setting("undo 10 x 5 (on first); undo 10 x 5 (on second)") == "undo 10 x 5 (on each half)"
    differing = "undo 10 x 5 (on first); undo 5 x 5 (on second)"
    assert short_setting(differing) == differing
    assert short_setting("undo 10 x 5") == "undo 10 x 5"
