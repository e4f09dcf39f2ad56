"""Pairs of texts: how two segments share the tokens that a model reads, and which encodings can read pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def encoding_of_pairs(encoding: Any, model: str) -> Any:
    """Return the encoding of pairs that belongs to `encoding`. Raises InputError if it has none, or if pairs do not fit it."""
    make = getattr(encoding, "of_pairs", None)
    if make is None:
        raise InputError("task.model", f"{model!r} reads single texts only; text_pair needs a model that reads pairs")
    return make()


def cut_longest_first(n_first: int, n_second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of each segment are kept if both together have at most `room`.

    The longer segment is cut until both are equally long, then both in turn; if `room` is odd, the longer segment (the
    second if both are equally long) keeps one token more. This is `longest_first` of the Hugging Face tokenizers.
    """
    if n_first + n_second <= room:
        return n_first, n_second
    shorter = min(n_first, n_second, room // 2)
    return (room - shorter, shorter) if n_first > n_second else (shorter, room - shorter)


def require_room(max_length: int, n_special: int) -> None:
    """Raise InputError unless `max_length` tokens hold the special tokens of a pair and one token of each segment."""
    if max_length < n_special + 2:
        problem = f"{max_length} is too small for text_pair; allowed: at least {n_special + 2}, for {n_special} special tokens and one of each text"
        raise InputError("task.model.max_length", problem)


def require_separator(fast: Tokenizer, directory: Path) -> None:
    """Raise InputError if the tokeniser runs the two texts of a pair together, with no special token between them."""
    if fast.num_special_tokens_to_add(True) <= fast.num_special_tokens_to_add(False):
        problem = f"the tokeniser in {directory} puts no token between two texts, so text_pair cannot be used with it"
        raise InputError("task.model.pretrained", problem)
