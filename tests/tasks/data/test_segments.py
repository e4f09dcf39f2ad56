"""Pairs of texts become one sequence of tokens: two segments, a separator, and the longer segment cut first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from tasks.base import BETWEEN
from tasks.data.segments import cut_longest_first, encoding_of_pairs
from tasks.data.tokens import PretrainedEncoding, WordEncoding, cached_tokens, tokeniser_digest
from tasks.errors import InputError
from tests.fakes import tiny_bert

PAIRS = [("The cat sat.", "a dog"), ("", "the end"), ("the cat", "")]
words = st.lists(st.sampled_from(["w4", "w5", "w39", "unknown"]), max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def pretrained(folder, max_length=16):
    return PretrainedEncoding(folder, max_length, tokeniser_digest(folder)).of_pairs()


def joined(pair):
    return BETWEEN.join(pair)


def rows_of(tokens):
    return [slice(a, b) for a, b in zip(tokens.offsets, tokens.offsets[1:], strict=False)]


def save_tokeniser(folder, post_processor):
    """Save a word tokeniser with ids <s> 0, </s> 2, and this post-processor, as tokenizer.json; return its folder."""
    fast = Tokenizer(models.WordLevel({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "w4": 4}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    if post_processor is not None:
        fast.post_processor = post_processor
    fast.save(str(folder / "tokenizer.json"))
    return folder


def test_a_separator_stands_between_the_words_of_the_two_segments():
    tokeniser = WordEncoding(16).of_pairs().fit(PAIRS)
    tokens = tokeniser.encode(PAIRS)
    found = [[tokeniser.token_text(i) for i in tokens.ids[row]] for row in rows_of(tokens)]
    assert found == [
        ["[START]", "the", "cat", "sat", ".", "[SEP]", "a", "dog", "[END]"],
        ["[START]", "[SEP]", "the", "end", "[END]"],
        ["[START]", "the", "cat", "[SEP]", "[END]"],
    ]
    assert tokens.types is None
    assert tokeniser.neutral_ids == tuple(tokeniser.encode([("", "")]).ids) == (2, 4, 3)
    assert set(tokeniser.special_ids) == {0, 2, 3, 4}
    assert tokeniser.words[5:] == ("the", "cat", ".", "a", "dog", "end", "sat")


def test_an_encoding_of_single_texts_keeps_its_identity_and_its_ids():
    assert WordEncoding(16).identity() == {
        "kind": "words",
        "version": 1,
        "max_length": 16,
        "lowercase": True,
        "max_vocabulary": None,
        "min_count": 1,
    }
    assert WordEncoding(16).fit(["a"]).words == ("[PAD]", "[UNK]", "[START]", "[END]", "a")
    assert WordEncoding(16).of_pairs().identity() == {**WordEncoding(16).identity(), "pairs": True}


def test_words_that_are_cut_are_not_in_the_vocabulary():
    assert WordEncoding(6).of_pairs().fit([("a b c d", "e")]).words[5:] == ("a", "b", "e")


@given(words, words, st.integers(5, 14))
def test_spans_point_at_the_words_in_the_joined_text(first, second, max_length):
    encoding = WordEncoding(max_length).of_pairs()
    tokeniser = encoding.fit([(first, second)])
    tokens, text = tokeniser.encode([(first, second)]), joined((first, second))
    assert len(tokens.ids) <= max_length
    for token, (start, end) in zip(tokens.ids, tokens.spans, strict=True):
        assert (start == end == 0) if token in tokeniser.special_ids else text[start:end] == tokeniser.token_text(token)
    n_first = np.flatnonzero(tokens.ids == 4)[0] - 1
    assert (n_first, len(tokens.ids) - 3 - n_first) == cut_longest_first(
        len(first.split()), len(second.split()), max_length - 3
    )


@pytest.mark.parametrize("room", range(2, 10))
def test_the_longer_segment_is_cut_first_as_the_tokenizers_of_hugging_face_do(room):
    fast = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.enable_truncation(room, strategy="longest_first")
    for n_first in range(room + 3):
        for n_second in range(room + 3):
            ids = fast.encode("a " * n_first, "b " * n_second).ids
            assert cut_longest_first(n_first, n_second, room) == (ids.count(0), ids.count(1))


@given(words, words.filter(bool))  # transformers takes an empty second text for none
def test_bert_gets_the_tokens_and_types_that_transformers_gives_it(bert, first, second):
    theirs = AutoTokenizer.from_pretrained(bert)(
        first, second, truncation=True, max_length=12, return_token_type_ids=True
    )
    tokens = pretrained(bert, 12).fit([]).encode([(first, second)])
    assert tokens.ids.tolist() == theirs["input_ids"]
    assert tokens.types is not None
    assert tokens.types.tolist() == theirs["token_type_ids"]


def test_spans_of_a_pretrained_tokeniser_point_into_the_joined_text(bert):
    tokeniser, pairs = pretrained(bert).fit([]), [("w4 w5", "w6"), ("", "w7 w8"), ("w9", "")]
    tokens = tokeniser.encode(pairs)
    for pair, row in zip(pairs, rows_of(tokens), strict=True):
        shown = [joined(pair)[start:end] for start, end in tokens.spans[row] if end]
        assert shown == " ".join(pair).split()
    assert tokeniser.neutral_ids == (2, 3, 3)
    assert tokens.types is not None
    padded = tokens.padded_types(np.array([0]), 8)
    assert padded is not None
    assert padded.tolist() == [[0, 0, 0, 0, 1, 1, 0, 0]]


def test_a_tokeniser_without_types_gives_none(tmp_path):
    folder = save_tokeniser(tmp_path, processors.RobertaProcessing(("</s>", 2), ("<s>", 0)))
    tokens = pretrained(folder).fit([]).encode([("w4", "w4")])
    assert tokens.ids.tolist() == [0, 4, 2, 2, 4, 2]
    assert tokens.types is None
    assert tokens.padded_types(np.array([0]), 8) is None


def test_a_tokeniser_that_runs_texts_together_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"task\.model\.pretrained: .* puts no token between two texts"):
        pretrained(save_tokeniser(tmp_path, None))


def test_too_few_tokens_for_a_pair_are_refused(bert):
    assert WordEncoding(5).of_pairs().pairs
    for encoding in (WordEncoding(4), PretrainedEncoding(bert, 4, "")):
        with pytest.raises(InputError, match=r"task\.model\.max_length: 4 is too small .*: at least 5"):
            encoding.of_pairs()


def test_an_encoding_of_single_texts_only_is_refused():
    with pytest.raises(InputError, match="'mine' reads single texts only"):
        encoding_of_pairs(object(), "mine")


def test_cached_tokens_keep_their_types_and_tell_the_segments_apart(bert, tmp_path):
    encoding = pretrained(bert)
    tokeniser = encoding.fit([])
    first, again = (cached_tokens(tokeniser, encoding, [], [("w4", "w5 w6")], tmp_path) for _ in range(2))
    other = cached_tokens(tokeniser, encoding, [], [("w4 w5", "w6")], tmp_path)
    assert first.types is not None
    assert again.types is not None
    assert other.types is not None
    assert first.types.tolist() == again.types.tolist() == [0, 0, 0, 1, 1, 1]
    assert other.types.tolist() == [0, 0, 0, 0, 1, 1]
