"""MSGS from files: the sets that Han & Tsvetkov 2021 published, or the same sets rebuilt from the files of nyu-mll/msgs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tasks.base import Split
from tasks.components import place
from tasks.data.msgs_grammar import msgs_split
from tasks.data.paths import resolve_path
from tasks.data.readers import Table, TextFormat, read_jsonl, read_parquet
from tasks.errors import InputError

Item = TypeVar("Item")


class MsgsPublished(BaseModel):
    """A directory with {train,dev,test}.parquet, columns text, label, linguistic and surface; label = linguistic."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    published: str

    def splits(self, base_dir: Path, where: object, key: str) -> dict[str, Split]:
        """Return the splits as published; `key` is the dotted key of this block. Raises InputError naming file and row."""
        folder = _Folder(self.published, base_dir, where, f"{key}.published")
        columns = ["text", "label", "linguistic", "surface"]
        return {name: self._split(folder.table(f"{name}.parquet", columns)) for name in ("train", "dev", "test")}

    def _split(self, table: Table) -> Split:
        labels, linguistic, surface = (_bits(table, name) for name in ("label", "linguistic", "surface"))
        for row, (label, core) in enumerate(zip(labels, linguistic, strict=True)):
            if label != core:
                raise InputError(_at(table, row, "label"), f"label {label} is not the linguistic attribute, {core}")
        return msgs_split(_texts(table, "text"), linguistic, surface)


class MsgsSource(BaseModel):
    """A directory with train.jsonl, test.jsonl and inoculating.jsonl of one task of nyu-mll/msgs, mixed as published.

    `rows: one_of_pair` keeps one of every two consecutive rows of train and inoculating, drawn with `seed` and seed +
    1; `all` keeps every row. The last int(inoculation n) rows of train are replaced by the last inoculating ones, and
    the whole is shuffled. The first half of test becomes dev (shuffled with seed + 2), the second half test (seed + 3).
    With the defaults these are the sets of Han & Tsvetkov 2021, section 5.2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str
    inoculation: float = Field(default=0.003, ge=0, le=0.5)
    rows: Literal["one_of_pair", "all"] = "one_of_pair"
    seed: int = Field(default=2021, ge=0)
    sentence: str = Field(default="sentence", min_length=1)
    linguistic: str = Field(default="linguistic_feature_label", min_length=1)
    surface: str = Field(default="surface_feature_label", min_length=1)

    def splits(self, base_dir: Path, where: object, key: str) -> dict[str, Split]:
        """Return the splits train, dev and test; `key` is the dotted key of this block. Raises InputError naming file and row."""
        folder = _Folder(self.source, base_dir, where, f"{key}.source")
        names = ("train", "inoculating", "test")
        train, inoculating, both = (self._rows(folder.table(f"{name}.jsonl", self._columns)) for name in names)
        half = len(both) // 2
        if not half:
            raise InputError(
                folder.path / "test.jsonl", "holds one row; at least one for dev and one for test are needed"
            )
        found = {
            "train": self._train(train, inoculating, place(where, f"{key}.inoculation")),
            "dev": shuffled(both[:half], random.Random(self.seed + 2)),
            "test": shuffled(both[half:], random.Random(self.seed + 3)),
        }
        return {name: msgs_split(*zip(*rows, strict=True)) for name, rows in found.items()}

    @property
    def _columns(self) -> list[str]:
        return [self.sentence, self.linguistic, self.surface]

    def _rows(self, table: Table) -> list[_Row]:
        core, surface = _bits(table, self.linguistic), _bits(table, self.surface)
        return [_Row(*values) for values in zip(_texts(table, self.sentence), core, surface, strict=True)]

    def _train(self, train: list[_Row], inoculating: list[_Row], where: str) -> list[_Row]:
        # the published set is defined by the streams of random.Random, which start at these seeds and continue into the
        # shuffle
        rng = random.Random(self.seed + 1)
        if self.rows == "one_of_pair":
            train, inoculating = one_of_pair(train, random.Random(self.seed)), one_of_pair(inoculating, rng)
        n_inoculating = int(len(train) * self.inoculation)
        if n_inoculating > len(inoculating):
            problem = f"{self.inoculation} of {len(train)} sentences are {n_inoculating}, inoculating.jsonl gives"
            raise InputError(where, f"{problem} {len(inoculating)}")
        kept = train[: len(train) - n_inoculating]
        return shuffled(kept + inoculating[len(inoculating) - n_inoculating :], rng)


class _Row(NamedTuple):
    text: str
    linguistic: int
    surface: int


def one_of_pair(rows: Sequence[Item], rng: random.Random) -> list[Item]:
    """Return one of every two consecutive rows; a last row without a partner is left out."""
    return [rng.choice(rows[start : start + 2]) for start in range(0, len(rows) - 1, 2)]


def shuffled(rows: Sequence[Item], rng: random.Random) -> list[Item]:
    """Return the rows in the order that random.shuffle gives them."""
    found = list(rows)
    rng.shuffle(found)
    return found


class _Folder:
    """The directory that a config names, whose files are read by name."""

    def __init__(self, path: str, base_dir: Path, where: object, key: str):
        self.where = place(where, key)
        self.path = resolve_path(path, base_dir, self.where)

    def table(self, name: str, columns: list[str]) -> Table:
        """Return the columns of a file with at least one record. Raises InputError."""
        path = self.path / name
        if not path.is_file():
            raise InputError(self.where, f"no file {name} in {self.path}")
        is_parquet = path.suffix == ".parquet"
        table = read_parquet(path, columns) if is_parquet else read_jsonl(path, columns, TextFormat())
        if not table.n_rows:
            raise InputError(path, "holds no records")
        return table


def _bits(table: Table, column: str) -> list[int]:
    values: list[Any] = table.columns[column]
    for row, value in enumerate(values):
        if type(value) is not int or value not in (0, 1):
            raise InputError(_at(table, row, column), f"{value!r} is neither 0 nor 1")
    return values


def _texts(table: Table, column: str) -> list[str]:
    values: list[Any] = table.columns[column]
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise InputError(_at(table, row, column), f"{value!r} is not text")
    return values


def _at(table: Table, row: int, column: str) -> str:
    return f"{table.source}: {table.row_name(row)}: {column}"
