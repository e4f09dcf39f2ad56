"""Numbers of an example that are thought to be artifacts of how the data was made: lexical overlap and negation.

McCoy et al. 2019 (lexical overlap); Gururangan et al. 2018 (negation); Han et al. 2020, section 5.1, which defines neither.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from tasks.base import Split
from tasks.errors import RefitError

_WORD = re.compile(r"\w+(?:['’]\w+)*")
NEGATIONS = (
    "no", "not", "n't", "never", "none", "nobody", "nothing", "nowhere", "neither", "nor", "cannot", "without",
)  # fmt: skip


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case: cut at white space and punctuation marks, which are no words themselves.

    An apostrophe within a word does not cut it, and is written as ' whatever its form.
    """
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def lexical_overlap(premise: str, hypothesis: str) -> float:
    """Return the share of the words of the hypothesis that are words of the premise, in [0, 1]; 0 without words."""
    premise_words, found = set(words_of(premise)), words_of(hypothesis)
    return sum(word in premise_words for word in found) / len(found) if found else 0.0


def negation(text: str, words: Collection[str] = NEGATIONS) -> float:
    """Return 1 if a word of the text is in `words`, else 0; an entry that begins with "n'" stands for every word with this ending."""
    endings = tuple(word for word in words if word.startswith("n'"))
    return float(any(word in words or (endings and word.endswith(endings)) for word in words_of(text)))


def artifact_of(of: str, words: Collection[str], own: Callable[..., Any] | None) -> Callable[[Any], float]:
    """Return the function of one example, a text or a pair (premise, hypothesis), that `of` names; `own` is a user's function.

    negation reads the hypothesis of a pair. A user's function is called with the text, or with both texts of a pair.
    """
    if own is not None:
        return lambda example: own(example) if isinstance(example, str) else own(*example)
    if of == "lexical_overlap":
        return lambda pair: lexical_overlap(*pair)
    return lambda example: negation(example if isinstance(example, str) else example[1], words)


def values_of(function: Callable[[Any], float], of: str, split: Split, rows: np.ndarray | None = None) -> np.ndarray:
    """Return the artifact of the examples of a split at `rows` (default: all), float64 [n].

    Raises RefitError naming the example for which the function raises, or whose value is no finite number.
    """
    segments = split.segments()
    chosen = np.arange(len(split)) if rows is None else np.asarray(rows, np.int64)
    return np.array([_value(function, of, split, segments, int(row)) for row in chosen], np.float64)


def _value(function: Callable[[Any], float], of: str, split: Split, segments: Any, row: int) -> float:
    try:
        value = float(function(segments[row]))
    except Exception as error:  # a user's function may raise any exception
        problem = f"{type(error).__name__}: {error}"
        raise RefitError(f"artifact {of} of example {split.shown_id(split.ids[row])}: {problem}") from error
    if not math.isfinite(value):
        raise RefitError(f"artifact {of} of example {split.shown_id(split.ids[row])} is {value}, not a finite number")
    return value
