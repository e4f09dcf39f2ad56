"""Splits texts into pieces for the page: words marked as helpful or harmful, and the hidden rest of a long text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

LEVELS = 5
FAINTEST = 0.06  # fraction of the text's largest contribution below which a word is not marked
WORDS_SHOWN = 70

Span = tuple[int, int, float]


@dataclass(frozen=True)
class MarkedText:
    """A piece of text. `level`: 0 for no mark, 1-5 for its intensity; `value`: the contribution, positive = helpful."""

    text: str
    value: float = 0.0
    level: int = 0

    @property
    def mark(self) -> str:
        """The CSS class of the mark: h1-h5 if helpful, x1-x5 if harmful."""
        return f"{'h' if self.value > 0 else 'x'}{self.level}"


@dataclass(frozen=True)
class Passage:
    """A text in two parts: the shown part, and the part that the reader must expand."""

    shown: tuple[MarkedText, ...]
    hidden: tuple[MarkedText, ...]
    n_hidden_words: int


def passage(text: str, spans: Sequence[Span] = (), words_shown: int = WORDS_SHOWN) -> Passage:
    """Cut `text` after `words_shown` words and mark it by `spans` (start, end, contribution)."""
    cut = _cut(text, words_shown)
    shown: list[MarkedText] = []
    hidden: list[MarkedText] = []
    start = 0
    for piece in pieces(text, spans):
        inside = len(piece.text) if piece.level else max(cut - start, 0)  # a marked word is not cut
        if start < cut:
            shown.append(replace(piece, text=piece.text[:inside]))
        if start >= cut or inside < len(piece.text):
            hidden.append(piece if start >= cut else replace(piece, text=piece.text[inside:]))
        start += len(piece.text)
    return Passage(tuple(shown), tuple(hidden), len(text[cut:].split()))


def _cut(text: str, words_shown: int) -> int:
    """Return the position of the cut; the text is not cut if it has at most a third more words than are shown."""
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    return len(text) if len(ends) <= words_shown * 4 // 3 else ends[words_shown - 1]


def pieces(text: str, spans: Sequence[Span], largest: float | None = None) -> list[MarkedText]:
    """Split `text` at `spans`; the joined pieces are `text` again.

    Spans that are empty, reach outside the text or overlap an earlier span are left out. `largest`: the magnitude that
    has the strongest mark; by default the largest of the spans.
    """
    if largest is None:
        largest = max((abs(value) for _, _, value in spans if math.isfinite(value)), default=0.0)
    result: list[MarkedText] = []
    position = 0
    for start, end, value in sorted(spans):
        level = _level(value, largest)
        if level and position <= start < end <= len(text):
            result += [MarkedText(text[position:start])] * (position < start)
            result.append(MarkedText(text[start:end], value, level))
            position = end
    return result + [MarkedText(text[position:])] * (position < len(text))


def _level(value: float, largest: float) -> int:
    if not math.isfinite(value) or largest == 0 or abs(value) < FAINTEST * largest:
        return 0
    return min(LEVELS, 1 + int(LEVELS * abs(value) / largest))
