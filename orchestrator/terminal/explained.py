"""Formats the explanation of a query or of a pair as text for a terminal, with helpful and harmful words in colour."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TextIO

from orchestrator.report.data import QueryPage, ShownExample
from orchestrator.report.highlight import pieces
from orchestrator.report.numbers import significant
from orchestrator.terminal.results_table import printable

WIDTH = 100
WORDS_SHOWN = 12
STRONG = 3  # level of a mark from which it is bold
GREEN, RED, BOLD, UNDERLINE, RESET = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[4m", "\x1b[0m"


def wants_colour(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that shows colours; NO_COLOR (no-color.org) turns them off."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def lines(query: QueryPage, pairs: Mapping[str, ShownExample], scored_on: str, colour: bool) -> list[str]:
    """Return the pairs of the query if there are some, else the query with its top examples."""
    return pair_lines(query, pairs, scored_on, colour) if pairs else query_lines(query, scored_on)


def query_lines(query: QueryPage, scored_on: str = "") -> list[str]:
    """Return the query with its label and prediction, and its top examples by every method."""
    lines = [_title(query, scored_on), *_wrapped(query.text)]
    for method, groups in query.examples.items():
        lines += ["", printable(method)]
        for group, examples in groups.items():
            lines.append(f"  {group}")
            width = max((len(significant(one.score)) for one in examples), default=0)
            lines += [_row(rank, one, width) for rank, one in enumerate(examples, start=1)]
            lines += [] if examples else ["    none: the method has no scores for this query"]
    return lines


def pair_lines(query: QueryPage, pairs: Mapping[str, ShownExample], scored_on: str, colour: bool) -> list[str]:
    """Return both texts and the contributions of words to the score, for every method."""
    lines = [_title(query, scored_on)]
    for method, example in pairs.items():
        lines += ["", f"{printable(method)}: score {significant(example.score)}"]
        lines += [f"  query {query.shown_id}", *_marked(query.text, example.query_spans, colour)]
        label = f" ({printable(example.label)})" if example.label else ""
        lines += [f"  train {printable(example.shown_id)}{label}", *_marked(example.text, example.train_spans, colour)]
        lines += _word_lines(example.words, colour)
    return lines


def _title(query: QueryPage, scored_on: str) -> str:
    parts = [f"query {printable(query.shown_id)}"]
    parts += [f"label {printable(query.label)}"] * bool(query.label)
    if query.predicted:
        parts.append(f"predicted {printable(query.predicted)}, P(label) {query.probability:.3f}")
    return " · ".join([*parts, *([f"scored on {scored_on}"] if scored_on else [])])


def _row(rank: int, example: ShownExample, width: int) -> str:
    head = f"    {rank}. {significant(example.score):>{width}}  train {printable(example.shown_id)}  {printable(example.label)}  "
    return head + textwrap.shorten(_plain(example.text), max(20, WIDTH - len(head)), placeholder=" …")


def _word_lines(words: Sequence[tuple[str, str, float]], colour: bool) -> list[str]:
    if not words:
        return []
    shown = words[:WORDS_SHOWN]
    width = max(len(significant(value)) for *_, value in shown)
    lines = ["  by word"]
    lines += [f"    {significant(v):>{width}}  {_coloured(_pair(one, other), v, 0, colour)}" for one, other, v in shown]
    rest = words[WORDS_SHOWN:]
    if rest:
        lines.append(f"    {significant(math.fsum(v for *_, v in rest)):>{width}}  {len(rest)} more together")
    return lines


def _pair(query_word: str, train_word: str) -> str:
    return printable(query_word if query_word == train_word else f"{query_word} ~ {train_word}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(_plain(text), WIDTH, initial_indent="  ", subsequent_indent="  ")


def _marked(text: str, spans: Sequence[tuple[int, int, float]], colour: bool) -> list[str]:
    """Return the text in lines of WIDTH with marked words; the marks are added after the lines have been broken."""
    plain = _plain(text)  # as long as the text, so that the spans fit
    lines, start = [], 0
    for line in textwrap.wrap(plain, WIDTH - 4, drop_whitespace=False, break_on_hyphens=False):
        inside = [(a - start, b - start, v) for a, b, v in spans if start <= a and b <= start + len(line)]
        lines.append("    " + _line(line, inside, max((abs(v) for *_, v in spans), default=0.0), colour).lstrip())
        start += len(line)
    return lines


def _line(line: str, spans: Sequence[tuple[int, int, float]], largest: float, colour: bool) -> str:
    found = pieces(line, spans, largest)
    return "".join(
        _coloured(one.text, one.value, one.level, colour) if one.level else one.text for one in found
    ).rstrip()


def _coloured(text: str, value: float, level: int, colour: bool) -> str:
    """Return helpful words in green and harmful ones in red and underlined, strong ones in bold."""
    if not colour or not value:
        return text
    return f"{GREEN if value > 0 else RED + UNDERLINE}{BOLD if level >= STRONG else ''}{text}{RESET}"


def _plain(text: str) -> str:
    """Replace line breaks and tabs by blanks, and other control characters by `?`; the length stays."""
    return "".join(" " if char.isspace() else printable(char) for char in text)
