"""The tokens of a query, and which of them are the most, the least and the middle salient."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.task import Task

Rank = Literal["lowest", "median", "highest", "smallest", "random"]
RANKS: tuple[Rank, ...] = ("lowest", "median", "highest", "smallest", "random")
_SPACES = ("▁", "Ġ")  # tokens of SentencePiece and byte-level BPE that are a space and nothing else


@dataclass(frozen=True)
class QueryToken:
    """A token: its place in the row, its id and text, its characters in the query's text, and whether it begins a word.

    Special tokens and the later pieces of a word begin no word; punctuation marks and ideographs do.
    """

    position: int
    token_id: int
    text: str
    start: int
    end: int
    begins_word: bool


def tokens_of(task: Task, split: str, row: int) -> list[QueryToken]:
    """Return the tokens of a row of a split, special tokens included.

    A later piece of a word is marked by `##` in the vocabulary of BERT. Other vocabularies mark the pieces after a space
    instead, so that only the text tells a later piece from a punctuation mark: a letter or digit before it, without a gap.
    """
    special, texts, found, before = task.special_ids, task.splits[split].texts, [], 0
    whole = "" if texts is None else texts[row]
    for position, (start, end, token_id) in enumerate(task.token_spans(split, row)):
        text = task.token_text(token_id)
        begins_word = token_id not in special and text not in _SPACES and not text.startswith("##")
        if begins_word and whole:
            begins_word = start >= before and not (start == before and _is_inside_word(whole, start))
        found.append(QueryToken(position, token_id, text, start, end, begins_word))
        before = before if text in _SPACES else end
    return found


def _is_inside_word(text: str, at: int) -> bool:
    """Return whether there are letters or digits on both sides of a place in a text; an ideograph is a word of its own."""
    return 0 < at < len(text) and all(
        char.isalnum() and not unicodedata.name(char, "").startswith("CJK ") for char in text[at - 1 : at + 1]
    )


def chosen_tokens(
    tokens: Sequence[QueryToken], saliency: np.ndarray, ranks: Sequence[Rank], random: np.random.Generator
) -> dict[Rank, QueryToken]:
    """Return the token of each rank among those that begin a word; empty if there is none.

    lowest, highest: by saliency; median: number floor(n / 2), counted from 0, in rising order; smallest: the smallest
    |saliency|; random: drawn from `random`. Ties go to the earlier token. saliency [n_tokens]. Han et al. 2020, section 4.
    """
    words = [token for token in tokens if token.begins_word]
    if not words:
        return {}
    values = np.array([saliency[token.position] for token in words])
    order = np.argsort(values, kind="stable")
    places = {
        "lowest": order[0],
        "median": order[len(order) // 2],
        "highest": values.argmax(),
        "smallest": np.abs(values).argmin(),
        "random": random.integers(len(words)),
    }
    return {rank: words[int(places[rank])] for rank in ranks}
