"""Reads csv, tsv, jsonl, parquet, one folder per class, and Hugging Face datasets into columns. Nothing is guessed."""

from __future__ import annotations

import codecs
import csv
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.data.compressed import compression_of, decompressed
from tasks.data.decoding import decoded
from tasks.data.delimiters import delimiter_hint
from tasks.data.json_lines import json_object
from tasks.data.wording import quoted
from tasks.errors import InputError
from tasks.suggestions import did_you_mean

Quoting = Literal["standard", "none"]
BadBytes = Literal["error", "replace"]
TAB = "\t"


@dataclass(frozen=True)
class Table:
    """Columns of equal length as read, and how messages name a record."""

    columns: dict[str, list[Any]]
    n_rows: int
    source: Path | str
    row_name: Callable[[int], str]
    place_of: Callable[[int], str] | None = None  # set for a table that was joined from several files

    def place(self, row: int) -> str:
        """Return the file and the name of a record, for error messages."""
        return self.place_of(row) if self.place_of else f"{self.source}: {self.row_name(row)}"


def joined(tables: Sequence[Table], source: str) -> Table:
    """Concatenate tables with the same columns; messages still name each record by its own file."""
    starts = [0]
    for table in tables:
        starts.append(starts[-1] + table.n_rows)

    def found(row: int) -> tuple[Table, int]:
        number = bisect_right(starts, row) - 1
        return tables[number], row - starts[number]

    def row_name(row: int) -> str:
        table, inside = found(row)
        return f"{Path(table.source).name}: {table.row_name(inside)}"

    def place_of(row: int) -> str:
        table, inside = found(row)
        return table.place(inside)

    columns = {name: [value for table in tables for value in table.columns[name]] for name in tables[0].columns}
    return Table(columns, starts[-1], source, row_name, place_of)


@dataclass(frozen=True)
class TextFormat:
    """How bytes are decoded and split into fields."""

    encoding: str = "utf-8"
    bad_bytes: BadBytes = "error"
    quoting: Quoting = "standard"


def read_delimited(path: Path, columns: Sequence[str], how: TextFormat, delimiter: str) -> Table:
    """Read the records of a csv or tsv file with a header line. Raises InputError naming the line that is malformed."""
    text = decoded(decompressed(_file_bytes(path), path), path, how)
    header, records, lines = _parsed(text, path, how, delimiter, columns)
    chosen = {name: header.index(name) for name in columns}
    return Table(
        {name: [record[at] for record in records] for name, at in chosen.items()},
        len(records),
        path,
        lambda row: f"line {lines[row]}",
    )


def _parsed(
    text: str, path: Path, how: TextFormat, delimiter: str, columns: Sequence[str]
) -> tuple[list[str], list[list[str]], list[int]]:
    csv.field_size_limit(2**31 - 1)  # csv refuses fields above 128 KiB by default, which long documents exceed
    quoting = csv.QUOTE_MINIMAL if how.quoting == "standard" else csv.QUOTE_NONE
    reader = csv.reader(_lines(text), delimiter=delimiter, quoting=quoting, strict=True)
    records: list[list[str]] = []
    lines: list[int] = []
    header: list[str] = []
    before = 0
    try:
        for record in reader:
            first_line, before = before + 1, reader.line_num
            if not record:
                continue
            if not header:
                header = record
                _check_header(path, columns, header, text, delimiter)
            elif len(record) != len(header):
                raise InputError(
                    f"{path}: line {first_line}",
                    f"{len(record)} fields, the header has {len(header)} ({quoted(header)})",
                )
            else:
                records.append(record)
                lines.append(first_line)
    except csv.Error as error:
        raise InputError(
            f"{path}: line {before + 1}",
            f"not valid {'tsv' if delimiter == TAB else 'csv'}: {error}; quoting: none reads quotes as text",
        ) from error
    if not header:
        raise InputError(path, "the file is empty; a header line with column names is needed")
    return header, records, lines


def _check_header(path: Path, columns: Sequence[str], header: Sequence[str], text: str, delimiter: str) -> None:
    """Refuse a header that lacks or repeats a column.

    This happens before records are read, because a wrong delimiter makes records malformed too.
    """
    repeated = sorted({name for name in columns if header.count(name) > 1})
    if repeated:
        raise InputError(path, f"column {repeated[0]!r} appears {header.count(repeated[0])} times in the header")
    first_line = text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    _check_columns(path, columns, header, delimiter_hint(first_line, columns, delimiter))


def _lines(text: str) -> list[str]:
    # str.splitlines would also split at form feeds and Unicode separators, which belong to the text
    return re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+$", text)


def read_jsonl(path: Path, columns: Sequence[str], how: TextFormat) -> Table:
    """Read one JSON object per line. Raises InputError naming a line that is not an object, or that lacks a column."""
    values: dict[str, list[Any]] = {name: [] for name in columns}
    lines: list[int] = []
    text = decoded(decompressed(_file_bytes(path), path), path, how)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        record = json_object(line, f"{path}: line {number}")
        for name in columns:
            if name not in record:
                _check_columns(f"{path}: line {number}", [name], list(record))
            values[name].append(record[name])
        lines.append(number)
    return Table(values, len(lines), path, lambda row: f"line {lines[row]}")


def read_parquet(path: Path, columns: Sequence[str]) -> Table:
    """Read the rows of a parquet file. Raises InputError if it is truncated, corrupt or of another format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_file(path)
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, columns, names)
            repeated = [name for name in columns if names.count(name) > 1]
            if repeated:
                raise InputError(path, f"column {repeated[0]!r} appears {names.count(repeated[0])} times")
            table = file.read(columns=list(columns), use_threads=False)
            values = {name: table.column(name).to_pylist() for name in columns}
    except (pa.ArrowException, OSError, LookupError, ValueError, OverflowError, MemoryError, TypeError) as error:
        kind = compression_of(_first_bytes(path))
        hint = f"; the file is compressed by {kind}; decompress it" if kind else ""
        raise InputError(path, f"not a readable parquet file: {error}{hint}") from error
    return Table(values, table.num_rows, path, lambda row: f"row {row}")


def read_folder(path: Path, how: TextFormat) -> Table:
    """Read one folder per class and one text file per example into columns `text` and `label`; files in natural order (2 before 10)."""
    if not path.is_dir():
        raise InputError(path, "is not a directory; format: folder needs one folder per class")
    folders = [entry for entry in _entries(path) if entry.is_dir()]
    if not folders:
        raise InputError(path, "holds no folder; format: folder needs one folder per class")
    files = [file for folder in folders for file in sorted(_entries(folder), key=_natural) if file.is_file()]
    texts = [decoded(decompressed(_file_bytes(file), file), file, how) for file in files]
    names = [str(file.relative_to(path)) for file in files]
    return Table(
        {"text": texts, "label": [file.parent.name for file in files]}, len(files), path, lambda row: names[row]
    )


def read_hf(
    path: str, local: Path | None, config: str | None, split: str, columns: Sequence[str], where: object
) -> Table:
    """Read a Hugging Face dataset by its hub name, from a folder of data files, or from a save_to_disk directory.

    `config` names one subset of a dataset that has several. Code from the hub is never run.
    """
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(where, "format: hf needs the package datasets; pip install 'refit[hf]'") from error
    try:
        if local and _is_saved(local):
            if config is not None:
                raise InputError(
                    where, f"{path!r} was written by save_to_disk and has no config {config!r}; remove config"
                )
            found = datasets.load_from_disk(str(local))
        else:
            found = datasets.load_dataset(str(local) if local else path, config)
    except InputError:
        raise
    except Exception as error:  # every error of the hub, the disk or the format concerns the user's path
        raise InputError(where, f"cannot read the dataset {path!r}: {type(error).__name__}: {error}") from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise InputError(
                where, f"{path!r} has no split {split!r}; splits: {quoted(found)}{did_you_mean(split, found)}"
            )
        found = found[split]
    _check_columns(path, columns, found.column_names)
    values = {name: _named_classes(found.features[name], list(found[name])) for name in columns}
    return Table(values, len(found), path, lambda row: f"row {row}")


def _is_saved(folder: Path) -> bool:
    """Say whether datasets wrote the folder by save_to_disk, as one dataset or as several splits."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _named_classes(feature: Any, values: list[Any]) -> list[Any]:
    names = getattr(feature, "names", None)  # only a ClassLabel has names; it writes a missing label as -1
    if not isinstance(names, list):
        return values
    return [names[value] if isinstance(value, int) and 0 <= value < len(names) else None for value in values]


def _file_bytes(path: Path) -> bytes:
    _check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror or error}") from error


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(16)
    except OSError:
        return b""


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(path, "is a directory; a file is needed (format: folder and hf read directories)")


def check_encoding(name: str) -> str:
    """Return `name` if Python knows this text encoding. Raises ValueError."""
    try:
        is_text = getattr(codecs.lookup(name), "_is_text_encoding", True)
    except LookupError:
        is_text = False
    if not is_text:
        raise ValueError(f"unknown text encoding {name!r}; allowed: utf-8, latin-1, cp1252 and others Python knows")
    return name


def _check_columns(path: Path | str, columns: Sequence[str], there: Sequence[str], hint: str = "") -> None:
    for name in columns:
        if name not in there:
            raise InputError(path, f"no column {name!r}; columns: {quoted(there)}{hint or did_you_mean(name, there)}")


def _natural(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", path.name)], path.name


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "__")))
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror or error}") from error
