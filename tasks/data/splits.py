"""Reads the config block of one split of the data into ids, texts and labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks import seeds
from tasks.base import Split
from tasks.components import place
from tasks.data import readers
from tasks.data.ids import Ids, read_ids
from tasks.data.labels import LabelMap, check_spelling, label_texts, mapped_labels
from tasks.data.paths import PACKAGE, resolve_path, resolve_paths
from tasks.data.text_columns import cell, join_pairs, read_texts
from tasks.data.wording import quoted, shown
from tasks.errors import InputError
from tasks.suggestions import did_you_mean

_FORMATS_OF = {
    "split": ("hf",),
    "config": ("hf",),
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

    With `text_pair`, an example is a pair of texts. `labels` maps each label in the file to the class that it stands
    for; everything else in the config uses the names of the classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str | list[str]
    format: Literal["csv", "tsv", "jsonl", "parquet", "folder", "hf"]
    text: str | list[str] | None = None
    text_pair: str | list[str] | None = None
    label: str | None = None
    labels: LabelMap | None = None
    id: str | None = None
    split: str = "train"
    config: str | None = Field(default=None, min_length=1)
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
            if self.text_pair is not None:
                raise ValueError("format: folder takes no text_pair; every file is one text")
        elif not self.text or not self.label:
            raise ValueError(f"format: {self.format} needs the columns text and label")
        if self.text_pair is not None and not self.text_pair:
            raise ValueError("text_pair names at least one column")
        both = sorted(set(self.text_columns) & set(self.pair_columns))
        if both:
            raise ValueError(f"the column {both[0]!r} is in text and in text_pair; a pair has two different texts")
        return self

    @property
    def text_columns(self) -> list[str]:
        """Columns whose texts are joined with one space."""
        return [self.text] if isinstance(self.text, str) else list(self.text or ["text"])

    @property
    def pair_columns(self) -> list[str]:
        """Columns whose texts are joined with one space to the second text of a pair; none for single texts."""
        return [self.text_pair] if isinstance(self.text_pair, str) else list(self.text_pair or [])

    @property
    def segment_columns(self) -> list[list[str]]:
        """The columns of each segment of an example: one list, or two if the examples are pairs."""
        return [columns for columns in (self.text_columns, self.pair_columns) if columns]

    @property
    def columns(self) -> list[str]:
        """Every column that is read, each once."""
        columns: list[str] = [*self.text_columns, *self.pair_columns, self.label_column]
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
    of text. `pair_starts` int64 [n] is set for pairs of texts (see Split).
    """

    ids: np.ndarray  # int64 [n]
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    source: str
    names: tuple[str, ...]
    place: Callable[[int], str]
    given_ids: tuple[str, ...] | None = None
    pair_starts: np.ndarray | None = None


def read_records(config: SplitConfig, base_dir: Path, where: object, key: str) -> Records:
    """Read the records that `config` selects; `key` is its dotted key in the config file `where`. Raises InputError."""
    table = _table(config, base_dir, place(where, f"{key}.path"))
    if not table.n_rows:
        raise InputError(table.source, f"holds no records ({key})")
    ids = _ids(config, table)
    label = config.label_column
    labels = label_texts(table.columns[label], lambda row: cell(table, row, label))
    segments = [read_texts(table, columns) for columns in config.segment_columns]
    rows = _taken(config, table.n_rows).tolist()
    if not len(rows):
        raise InputError(
            place(where, f"{key}.take"), f"{list(config.take or ())} of {table.n_rows} records leaves none"
        )
    if config.labels is None:
        check_spelling([labels[row] for row in rows], f"{table.source}: {label}")
    else:
        labels = mapped_labels(labels, rows, config.labels, lambda row: cell(table, row, label), where, f"{key}.labels")
    for columns, texts in zip(config.segment_columns, segments, strict=True):
        if not any(texts[row] and not texts[row].isspace() for row in rows):
            problem = f"none of {len(rows)} records has any text in {quoted(columns)} ({key})"
            raise InputError(table.source, problem)
    texts, pair_starts = join_pairs(*segments) if len(segments) == 2 else (segments[0], None)
    return Records(
        ids.numbers[rows],
        tuple(texts[row] for row in rows),
        tuple(labels[row] for row in rows),
        str(table.source),
        tuple(table.row_name(row) for row in rows),
        lambda row: table.place(rows[row]),
        tuple(ids.given[row] for row in rows) if ids.given is not None else None,
        pair_starts[rows] if pair_starts is not None else None,
    )


def _table(config: SplitConfig, base_dir: Path, where: str) -> readers.Table:
    columns = config.columns
    if config.format == "hf" and isinstance(config.path, str):
        is_local = config.path.startswith((PACKAGE, ".", "/", "~")) or (base_dir / config.path).exists()
        local = resolve_path(config.path, base_dir, where) if is_local else None
        return readers.read_hf(config.path, local, config.config, config.split, columns, where)
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
    return read_ids(table.columns[column], lambda row: cell(table, row, column))


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
    return Split(
        records.ids,
        labels,
        tuple(classes.values()),
        records.texts,
        given_ids=records.given_ids,
        pair_starts=records.pair_starts,
    )
