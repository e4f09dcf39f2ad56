"""Reads the config block of one split of the data into ids, texts and labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks import seeds
from tasks.base import Split
from tasks.components import place
from tasks.data import readers
from tasks.data.ids import Ids, read_ids
from tasks.data.labels import check_spelling, label_texts
from tasks.data.paths import PACKAGE, resolve_path, resolve_paths
from tasks.data.wording import quoted, shown
from tasks.errors import InputError
from tasks.suggestions import did_you_mean

_FORMATS_OF = {
    "split": ("hf",),
    "delimiter": ("csv",),
    "quoting": ("csv", "tsv"),
    "encoding": ("csv", "tsv", "jsonl", "folder"),
    "bad_bytes": ("csv", "tsv", "jsonl", "folder"),
}


class SplitConfig(BaseModel):
    """Where the records of a split lie and which of them are used.

    Without `id`, a record's id is its number in the source, counted before `take` and `limit`. `take: [start, stop]`
    keeps that part, as fractions, of the records in file order or, with `shuffle_seed`, in a random order drawn from
    it; `limit` then keeps the first ones. Several files, given as a list or a pattern, are one source, whose records
    are numbered consecutively.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str | list[str]
    format: Literal["csv", "tsv", "jsonl", "parquet", "folder", "hf"]
    text: str | list[str] | None = None
    label: str | None = None
    id: str | None = None
    split: str = "train"
    shuffle_seed: int | None = Field(default=None, ge=0)
    take: tuple[float, float] | None = None
    limit: int | None = Field(default=None, ge=1)
    encoding: str = "utf-8"
    bad_bytes: readers.BadBytes = "error"
    quoting: readers.Quoting = "standard"
    delimiter: str = ","

    @field_validator("path")
    @classmethod
    def _names_a_file(cls, path: str | list[str]) -> str | list[str]:
        if not path and isinstance(path, list):
            raise ValueError("at least one path is needed")
        return path

    @field_validator("delimiter")
    @classmethod
    def _is_one_character(cls, delimiter: str) -> str:
        if len(delimiter) != 1 or delimiter in '"\r\n\0':
            raise ValueError("delimiter is one character, and no quote or line break")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        return readers.check_encoding(name)

    @field_validator("take")
    @classmethod
    def _is_a_part(cls, take: tuple[float, float] | None) -> tuple[float, float] | None:
        if take is not None and not 0 <= take[0] < take[1] <= 1:
            raise ValueError("take is [start, stop] with 0 <= start < stop <= 1")
        return take

    @model_validator(mode="after")
    def _options_fit_format(self) -> SplitConfig:
        for option, formats in _FORMATS_OF.items():
            if option in self.model_fields_set and self.format not in formats:
                raise ValueError(f"{option} is an option of format {', '.join(formats)}, not of {self.format}")
        if self.format == "hf" and not isinstance(self.path, str):
            raise ValueError("format: hf takes one path")
        return self

    @model_validator(mode="after")
    def _columns_fit_format(self) -> SplitConfig:
        if self.format == "folder":
            if self.text is not None or self.label is not None or self.id is not None:
                raise ValueError("format: folder takes no text, label or id; the folder's name is the label")
        elif not self.text or not self.label:
            raise ValueError(f"format: {self.format} needs the columns text and label")
        return self

    @property
    def text_columns(self) -> list[str]:
        """Columns whose texts are joined with one space."""
        return [self.text] if isinstance(self.text, str) else list(self.text or ["text"])

    @property
    def columns(self) -> list[str]:
        """Every column that is read, each once."""
        columns: list[str] = [*self.text_columns, self.label_column]
        if self.id:
            columns.append(self.id)
        return list(dict.fromkeys(columns))

    @property
    def label_column(self) -> str:
        """The column that holds the label."""
        return self.label or "label"


@dataclass(frozen=True)
class Records:
    """The records of a split before labels become numbers.

    `names` names a row in messages, `place` names its file too. `given_ids` holds the ids as text if the data has ids
    of text.
    """

    ids: np.ndarray  # int64 [n]
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    source: str
    names: tuple[str, ...]
    place: Callable[[int], str]
    given_ids: tuple[str, ...] | None = None


def read_records(config: SplitConfig, base_dir: Path, where: object, key: str) -> Records:
    """Read the records that `config` selects; `key` is its dotted key in the config file `where`. Raises InputError."""
    table = _table(config, base_dir, place(where, f"{key}.path"))
    if not table.n_rows:
        raise InputError(table.source, f"holds no records ({key})")
    ids = _ids(config, table)
    label = config.label_column
    labels = label_texts(table.columns[label], lambda row: _row(table, row, label))
    texts = _texts(config, table)
    rows = _taken(config, table.n_rows).tolist()
    if not len(rows):
        raise InputError(
            place(where, f"{key}.take"), f"{list(config.take or ())} of {table.n_rows} records leaves none"
        )
    check_spelling([labels[row] for row in rows], f"{table.source}: {label}")
    taken = tuple(texts[row] for row in rows)
    if not any(text and not text.isspace() for text in taken):
        problem = f"none of {len(rows)} records has any text in {quoted(config.text_columns)} ({key})"
        raise InputError(table.source, problem)
    return Records(
        ids.numbers[rows],
        taken,
        tuple(labels[row] for row in rows),
        str(table.source),
        tuple(table.row_name(row) for row in rows),
        lambda row: table.place(rows[row]),
        tuple(ids.given[row] for row in rows) if ids.given is not None else None,
    )


def _table(config: SplitConfig, base_dir: Path, where: str) -> readers.Table:
    columns = config.columns
    if config.format == "hf" and isinstance(config.path, str):
        is_local = config.path.startswith((PACKAGE, ".", "/", "~")) or (base_dir / config.path).exists()
        return readers.read_hf(
            config.path, resolve_path(config.path, base_dir, where) if is_local else None, config.split, columns, where
        )
    paths = resolve_paths(config.path, base_dir, where, folders=config.format == "folder")
    tables = [_table_of(path, config) for path in paths]
    return tables[0] if len(tables) == 1 else readers.joined(tables, f"{tables[0].source} and {len(tables) - 1} more")


def _table_of(path: Path, config: SplitConfig) -> readers.Table:
    how, columns = readers.TextFormat(config.encoding, config.bad_bytes, config.quoting), config.columns
    if config.format == "folder":
        return readers.read_folder(path, how)
    if config.format == "parquet":
        return readers.read_parquet(path, columns)
    if config.format == "jsonl":
        return readers.read_jsonl(path, columns, how)
    return readers.read_delimited(path, columns, how, config.delimiter if config.format == "csv" else readers.TAB)


def _taken(config: SplitConfig, n_rows: int) -> np.ndarray:
    order = np.arange(n_rows)
    if config.shuffle_seed is not None:
        order = seeds.generator(config.shuffle_seed, "data-order").permutation(n_rows)
    if config.take is not None:
        start, stop = (round(fraction * n_rows) for fraction in config.take)
        order = order[start:stop]
    return order[: config.limit]


def _ids(config: SplitConfig, table: readers.Table) -> Ids:
    column = config.id
    if column is None:
        return Ids(np.arange(table.n_rows, dtype=np.int64))
    return read_ids(table.columns[column], lambda row: _row(table, row, column))


def _texts(config: SplitConfig, table: readers.Table) -> list[str]:
    parts = []
    for column in config.text_columns:
        parts.append([_text(value, table, row, column) for row, value in enumerate(table.columns[column])])
    return [" ".join(row) for row in zip(*parts, strict=True)]


def _text(value: Any, table: readers.Table, row: int, column: str) -> str:
    """Return a text, or the tokens of a list joined with one space."""
    if isinstance(value, list):
        for position, token in enumerate(value):
            if not isinstance(token, str):
                problem = f"token {position} is {shown(token)}; a list of tokens holds texts only"
                raise InputError(_row(table, row, column), problem)
        value = " ".join(value)
    if not isinstance(value, str):
        problem = f"{'no text' if value is None else shown(value)}; text is needed, or a list of tokens"
        raise InputError(_row(table, row, column), problem)
    return _unicode(value, table, row, column)


def _unicode(text: str, table: readers.Table, row: int, column: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                _row(table, row, column), f"a lone surrogate at character {error.start} is not Unicode text"
            ) from error
    return text


def _row(table: readers.Table, row: int, column: str) -> str:
    return f"{table.place(row)}: {column}"


def class_order(labels: Sequence[str]) -> list[str]:
    """Return the classes in `labels`, sorted as numbers if all are whole numbers, else as text."""
    classes = set(labels)
    # Python parses at most 4,300 digits
    are_numbers = all(re.fullmatch(r"-?(0|[1-9][0-9]{0,4000})", name) for name in classes)
    return sorted(classes, key=int) if are_numbers else sorted(classes)


def to_split(records: Records, classes: Mapping[str, str], allowed_from: str) -> Split:
    """Replace labels by indices into `classes` (label in the data -> displayed name). Raises InputError naming row and label."""
    index = {label: position for position, label in enumerate(classes)}
    for row, label in enumerate(records.labels):
        if label not in index:
            problem = f"label {shown(label)} is not one of {allowed_from}: {quoted(index)}{did_you_mean(label, index)}"
            raise InputError(records.place(row), problem)
    labels = np.asarray([index[label] for label in records.labels], np.int64)
    return Split(records.ids, labels, tuple(classes.values()), records.texts, given_ids=records.given_ids)
