"""Reads CoNLL files (column text files, or parquet files with a column `tokens`) into sentences, which are lists of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.data.readers import read_parquet
from tasks.errors import InputError

DOCUMENT_START = "-DOCSTART-"
Sentence = tuple[str, ...]


def read_sentences(path: Path) -> list[Sentence]:
    """Return the sentences of a CoNLL file in file order, without the `-DOCSTART-` lines and rows.

    A `.parquet` file has one list of tokens per row in the column `tokens`. Any other file is UTF-8 text with one token
    per line, the token in the first column (columns are separated by blanks or tabs), and an empty line between
    sentences. Raises InputError naming the file and the line or row. Source: Tjong Kim Sang and De Meulder 2003,
    section 2.
    """
    if path.is_dir():
        raise InputError(path, "is a directory; a CoNLL column file or a parquet file with a column tokens is needed")
    found = list(_rows(path) if path.suffix == ".parquet" else _blocks(_lines(path)))
    sentences = [sentence for sentence in found if sentence and sentence[0] != DOCUMENT_START]
    if not sentences:
        raise InputError(path, "holds no sentences; one token a line and an empty line between sentences are needed")
    return sentences


def read_token_rows(path: Path, others: Sequence[str] = ()) -> tuple[list[Sentence], dict[str, list[Any]]]:
    """Return the column `tokens` of a parquet file, checked, and the columns `others` unchanged. Raises InputError."""
    table = read_parquet(path, ["tokens", *others])
    for row, tokens in enumerate(table.columns["tokens"]):
        if not isinstance(tokens, list) or not all(isinstance(token, str) and token for token in tokens):
            raise InputError(
                f"{path}: {table.row_name(row)}", f"tokens {_shown(tokens)} is not a list of non-empty texts"
            )
    return [tuple(tokens) for tokens in table.columns["tokens"]], {name: table.columns[name] for name in others}


def _rows(path: Path) -> list[Sentence]:
    return read_token_rows(path)[0]


def _lines(path: Path) -> Iterator[str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = (
            f"byte 0x{data[error.start]:02x} is not UTF-8; a CoNLL column file is text (name a parquet file .parquet)"
        )
        raise InputError(f"{path}: line {line}", problem) from error
    # str.splitlines would also split at form feeds and Unicode separators, which belong to a token
    return iter(re.split(r"\r\n|\n|\r", text))


def _blocks(lines: Iterator[str]) -> Iterator[Sentence]:
    """Yield the sentences: the first columns of the lines between empty lines."""
    tokens: list[str] = []
    for line in lines:
        columns = line.strip(" \t")
        token = re.split(r"[ \t]", columns, maxsplit=1)[0]
        if token and token != DOCUMENT_START:
            tokens.append(token)
        else:
            yield tuple(tokens)
            tokens = []
    yield tuple(tokens)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
