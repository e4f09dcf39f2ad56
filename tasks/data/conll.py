"""CoNLL files -> sentences as lists of tokens: column text files, and parquet files with a column `tokens`."""

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
    """The sentences of a CoNLL file, in file order; lines and rows of `-DOCSTART-` are no sentences.

    `.parquet`: a list of tokens a row in the column `tokens`. Any other name: UTF-8 text with one token a line, the token
    in the first column (blanks or tabs between columns), an empty line between sentences.
    Raises InputError naming the file, and the line or row. Source: Tjong Kim Sang and De Meulder 2003, section 2.
    """
    if path.is_dir():
        raise InputError(path, "is a directory; a CoNLL column file or a parquet file with a column tokens is needed")
    found = list(_rows(path) if path.suffix == ".parquet" else _blocks(_lines(path)))
    sentences = [sentence for sentence in found if sentence and sentence[0] != DOCUMENT_START]
    if not sentences:
        raise InputError(path, "holds no sentences; one token a line and an empty line between sentences are needed")
    return sentences


def read_token_rows(path: Path, others: Sequence[str] = ()) -> tuple[list[Sentence], dict[str, list[Any]]]:
    """The column `tokens` of a parquet file, checked, and the columns `others` as they are. Raises InputError."""
    table = read_parquet(path, ["tokens", *others])
    for row, tokens in enumerate(table.columns["tokens"]):
        if not isinstance(tokens, list) or not all(isinstance(token, str) and token for token in tokens):
            raise InputError(
                f"{path}: {table.row_name(row)}", f"tokens {_shown(tokens)} is not a list of texts that are not empty"
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
            f"byte 0x{data[error.start]:02x} is not UTF-8; a CoNLL column file is text (.parquet is read by its name)"
        )
        raise InputError(f"{path}: line {line}", problem) from error
    # not str.splitlines: that also splits at form feeds and Unicode separators, which belong to a token
    return iter(re.split(r"\r\n|\n|\r", text))


def _blocks(lines: Iterator[str]) -> Iterator[Sentence]:
    """The first columns of the lines between empty ones."""
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
