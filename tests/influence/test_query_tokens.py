"""Which tokens begin a word, for the vocabularies of BERT, RoBERTa (byte-level BPE) and XLM-RoBERTa (SentencePiece)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from influence.diagnostics.query_tokens import tokens_of


class Spelt:
    """A task of one text, whose tokens are given with their characters."""

    special_ids = frozenset({0})

    def __init__(self, text, tokens):
        self._tokens = tokens
        self.splits = {"test": SimpleNamespace(texts=(text,))}

    def token_spans(self, split, row):
        return [(start, end, number) for number, (_, start, end) in enumerate(self._tokens)]

    def token_text(self, token_id):
        return self._tokens[token_id][0]


def beginning(text, tokens):
    found = tokens_of(Spelt(text, [("<s>", 0, 0), *tokens]), "test", 0)
    return [token.text for token in found if token.begins_word]


def test_later_pieces_of_wordpiece_begin_no_word():
    tokens = [("un", 0, 2), ("##see", 2, 5), ("##n", 5, 6), (",", 6, 7), ("it", 8, 10), ("'", 10, 11), ("s", 11, 12)]
    assert beginning("unseen, it's", tokens) == ["un", ",", "it", "'", "s"]
    assert beginning("中国", [("中", 0, 1), ("国", 1, 2)]) == ["中", "国"]


@pytest.mark.parametrize("n_spaces", [0, 1])
def test_later_pieces_of_byte_level_bpe_begin_no_word(n_spaces):
    """With or without the space before a word among the characters of its first piece."""
    tokens = [("un", 0, 2), ("seen", 2, 6), (",", 6, 7), ("Ġmov", 8 - n_spaces, 11), ("ie", 11, 13), ("2", 13, 14)]
    assert beginning("unseen, movie2", tokens) == ["un", ",", "Ġmov"]


def test_the_bytes_of_one_character_begin_one_word():
    assert beginning("a 🙂", [("a", 0, 1), ("ĠðŁ", 2, 3), ("Ļ", 2, 3), ("Ĥ", 2, 3)]) == ["a", "ĠðŁ"]


def test_a_space_of_its_own_begins_no_word():
    assert beginning("x y", [("▁x", 0, 1), ("▁", 1, 2), ("y", 2, 3)]) == ["▁x", "y"]
    assert beginning("你好", [("▁", 0, 1), ("你好", 0, 2)]) == ["你好"]


def test_a_real_byte_level_tokenizer():
    """Every character is a token of its own, so that only the first letter of a word begins it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    text = "so bad, no?"
    encoded = fast.encode(text)
    tokens = [(token, *span) for token, span in zip(encoded.tokens, encoded.offsets, strict=True)]
    assert beginning(text, tokens) == ["s", "b", ",", "n", "?"]


def test_without_texts_only_the_marks_of_the_vocabulary_count():
    task = Spelt("", [("<s>", 0, 0), ("un", 0, 2), ("##seen", 2, 6)])
    task.splits["test"].texts = None
    assert [token.begins_word for token in tokens_of(task, "test", 0)] == [False, True, False]
