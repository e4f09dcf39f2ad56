"""Texts as pieces a page can show: which words helped or harmed, and how much of a long text is shown at once."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

LEVELS = 5
FAINTEST = 0.06  # of the text's largest contribution: fainter marks would drown the page
WORDS_SHOWN = 70

Span = tuple[int, int, float]


@dataclass(frozen=True)
class MarkedText:
    """A stretch of text. `level` 0: no mark, 1-5: its intensity; `value`: the contribution, positive = helpful."""

    text: str
    value: float = 0.0
    level: int = 0

    @property
    def mark(self) -> str:
        """CSS class of the mark: h1-h5 helpful, x1-x5 harmful."""
        return f"{'h' if self.value > 0 else 'x'}{self.level}"


@dataclass(frozen=True)
class Passage:
    """A text in two parts: what is shown, and what an expander holds."""

    shown: tuple[MarkedText, ...]
    hidden: tuple[MarkedText, ...]
    n_hidden_words: int


def passage(text: str, spans: Sequence[Span] = (), words_shown: int = WORDS_SHOWN) -> Passage:
    """`text` cut after `words_shown` words and marked by `spans` (start, end, contribution)."""
    cut = _cut(text, words_shown)
    shown: list[MarkedText] = []
    hidden: list[MarkedText] = []
    start = 0
    for piece in pieces(text, spans):
        inside = len(piece.text) if piece.level else max(cut - start, 0)  # a marked word is never cut in two
        if start < cut:
            shown.append(replace(piece, text=piece.text[:inside]))
        if start >= cut or inside < len(piece.text):
            hidden.append(piece if start >= cut else replace(piece, text=piece.text[inside:]))
        start += len(piece.text)
    return Passage(tuple(shown), tuple(hidden), len(text[cut:].split()))


def _cut(text: str, words_shown: int) -> int:
    """Where to cut: nowhere when less than a third more words would be hidden."""
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    return len(text) if len(ends) <= words_shown * 4 // 3 else ends[words_shown - 1]


def pieces(text: str, spans: Sequence[Span]) -> list[MarkedText]:
    """`text` split at `spans`; the pieces joined are `text` again.

    Spans that are empty, reach outside the text or overlap an earlier one are left out.
    """
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
