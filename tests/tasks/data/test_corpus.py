"""Sentences are cut and numbered the same way whatever file they come from."""

import json

import numpy as np
import pytest

from tasks.components import parse_component
from tasks.data.corpus import (
    CorpusConfig,
    Sentences,
    Vocabulary,
    VocabularyConfig,
    cut_sentences,
    read_corpus,
    words_of,
)
from tasks.data.ids import number_of
from tasks.errors import InputError

TEXTS = ["The cat sat. The cat ran!\nA dog ran", "The dog", "zebra", "The the THE cat"]


def corpus_of(base_dir, train, vocabulary=None, **options):
    data = parse_component(CorpusConfig, {"train": train, **options}, "c.yaml", "task.data")
    words = parse_component(VocabularyConfig, vocabulary or {"min_count": 2}, "c.yaml", "task.vocabulary")
    return read_corpus(data, words, base_dir, "c.yaml", "task")


@pytest.fixture
def jsonl(tmp_path):
    lines = [json.dumps({"body": text, "number": 10 * row}) for row, text in enumerate(TEXTS)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    return {"path": "t.jsonl", "format": "jsonl", "text": "body", "id": "number"}


@pytest.mark.parametrize(
    ("how", "given"),
    [
        ("whole", ["doc-0", "doc-1", "doc-3"]),
        ("split", ["doc-0/0", "doc-0/1", "doc-0/2", "doc-1/0", "doc-3/0"]),
    ],
)
def test_sentences_of_records_with_ids_of_text_keep_them(tmp_path, jsonl, how, given):
    lines = [json.dumps({"body": text, "number": f"doc-{row}"}) for row, text in enumerate(TEXTS)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    corpus = corpus_of(tmp_path, jsonl, sentences=how)
    assert corpus.given_ids == tuple(given)
    assert corpus.ids.tolist() == [number_of(one) for one in given]


def test_sentences_of_records_with_numbers_have_no_other_ids(tmp_path, jsonl):
    assert corpus_of(tmp_path, jsonl).given_ids is None


def test_words_are_lower_cased_with_inner_apostrophes_and_numbers_are_one_word():
    text = "Don't 'quote' the O’Neil's 1980s: 3,000.50 or 7, b2b 1.5m über-cool x_y"
    assert " ".join(words_of(text)) == "don't quote the o'neil's 1980s <num> or <num> b2b <num> 5m über cool x y"
    assert words_of("In 1999", "keep") == ["in", "1999"]
    assert words_of("In 1999", "0") == ["in", "0"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? four", ["One.", "Two!", "Three? four"]),
        ('He said "No." Then (so.) 5 left', ['He said "No."', "Then (so.)", "5 left"]),
        ("a line\r\nanother\n\n  a third ", ["a line", "another", "a third"]),
        ("v1.5 of e.g. this… That", ["v1.5 of e.g. this…", "That"]),
        ("  \n ", []),
    ],
)
def test_sentences_are_cut_at_line_breaks_and_after_stops(text, sentences):
    assert cut_sentences(text) == sentences


def test_vocabulary_is_by_count_then_alphabet_without_stop_words():
    found = Vocabulary.of([["b", "a", "c"], ["b", "a", "the"], ["the", "the"]], 2, ["the"])
    assert found.words == ("a", "b")
    assert found.counts.tolist() == [2, 2]
    assert found.index == {"a": 0, "b": 1}


def test_whole_records_keep_their_ids_and_short_ones_are_left_out(tmp_path, jsonl):
    corpus = corpus_of(tmp_path, jsonl)
    assert corpus.vocabulary.words == ("the", "cat", "dog", "ran")
    assert corpus.ids.tolist() == [0, 10, 30]
    assert corpus.texts == (TEXTS[0], TEXTS[1], TEXTS[3])
    sentences = corpus.sentences
    rows = [sentences.tokens[sentences.offsets[i] : sentences.offsets[i + 1]].tolist() for i in range(3)]
    assert rows == [[0, 1, 0, 1, 3, 2, 3], [0, 2], [0, 0, 0, 1]]


def test_cut_sentences_are_numbered_within_their_record_before_any_is_left_out(tmp_path, jsonl):
    corpus = corpus_of(tmp_path, jsonl, sentences="split", min_tokens=3)
    assert corpus.texts == ("The cat ran!", TEXTS[3])
    assert corpus.ids.tolist() == [1, 30_000]


def test_a_folder_needs_no_columns_and_formats_agree(tmp_path, jsonl):
    for row, text in enumerate(TEXTS):
        (tmp_path / "f" / "any").mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / "any" / f"{row}.txt").write_text(text)
    folder = corpus_of(tmp_path, {"path": "f", "format": "folder"}, sentences="split")
    other = corpus_of(tmp_path, {key: value for key, value in jsonl.items() if key != "id"}, sentences="split")
    assert folder.content_digest() == other.content_digest()


def test_stop_words_come_from_a_list_or_a_file(tmp_path, jsonl):
    (tmp_path / "stop.txt").write_text("The\n\nran\n")
    listed = corpus_of(tmp_path, jsonl, {"min_count": 2, "stopwords": ["ran", "the"]})
    filed = corpus_of(tmp_path, jsonl, {"min_count": 2, "stopwords": "stop.txt"})
    assert listed.vocabulary.words == ("cat", "dog")
    assert listed.content_digest() == filed.content_digest() != corpus_of(tmp_path, jsonl).content_digest()


def test_the_digest_holds_content_and_no_path(tmp_path, jsonl):
    (tmp_path / "other.jsonl").write_text((tmp_path / "t.jsonl").read_text())
    first = corpus_of(tmp_path, jsonl).content_digest()
    assert corpus_of(tmp_path, {**jsonl, "path": "other.jsonl"}).content_digest() == first
    (tmp_path / "t.jsonl").write_text((tmp_path / "t.jsonl").read_text().replace("zebra", "zebras"))
    assert corpus_of(tmp_path, jsonl).content_digest() == first, "a sentence that is left out changes nothing"
    (tmp_path / "t.jsonl").write_text((tmp_path / "t.jsonl").read_text().replace("sat", "sits"))
    assert corpus_of(tmp_path, jsonl).content_digest() != first


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"label": "body"}, "sentences have no label"),
        ({"text": None}, "needs the columns of the text"),
        ({"text": "nothing"}, "no column 'nothing'"),
    ],
)
def test_what_is_wrong_with_the_source_is_said_in_one_line(tmp_path, jsonl, change, problem):
    with pytest.raises(InputError, match=problem):
        corpus_of(tmp_path, {**jsonl, **change})


def test_a_corpus_of_nothing_is_refused(tmp_path, jsonl):
    with pytest.raises(InputError, match=r"task\.vocabulary: none of 4 sentences has 2 words that occur 50 times"):
        corpus_of(tmp_path, jsonl, {"min_count": 50})
    with pytest.raises(InputError, match=r"stopwords.*does not exist"):
        corpus_of(tmp_path, jsonl, {"stopwords": "missing.txt"})


def test_more_sentences_than_ids_are_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps({"body": "Go on.\n" * 1001}))
    with pytest.raises(InputError, match=r"line 1: record 0 has 1001 sentences; allowed: 1000"):
        corpus_of(tmp_path, {"path": "t.jsonl", "format": "jsonl", "text": "body"}, sentences="split")


def test_rows_with_words_are_those_that_hold_one():
    sentences = Sentences.of([[1, 2], [], [3], [2, 2, 0]])
    assert sentences.rows_with(np.array([2, 9])).tolist() == [0, 3]
    tokens, owners, places = sentences.flat(np.array([3, 1, 0]))
    assert (tokens.tolist(), owners.tolist(), places.tolist()) == ([2, 2, 0, 1, 2], [0, 0, 0, 2, 2], [0, 1, 2, 0, 1])
