"""Reads score files made elsewhere: npz matrices, and parquet or csv with one row per pair. Nothing is unpickled.

What a file declares (shapes, number of rows, ids) is checked before memory is allocated for its scores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from influence.given_ids import NO_TEXT, GivenIds
from influence.matrix import Axes
from influence.npz import Header, read_array, read_headers, total_bytes
from tasks.data.parquet_columns import read_parquet_columns
from tasks.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ARRAYS = ("scores", "query_ids", "train_ids")
COLUMNS = ("query_id", "train_id", "score")
BYTES_PER_PAIR = 64  # memory of a table: three columns, the positions of both ids, and the copies that sorting makes


def read_scores(
    path: Path,
    axes: Axes,
    check_train_ids: Callable[[np.ndarray], None],
    most_bytes: int | None = None,
    given: GivenIds = NO_TEXT,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Return (scores, query_ids, train_ids, is_matrix) of a score file.

    is_matrix: the scores have the axis order of the file (npz), `axes`; otherwise they were assembled from pairs as
    [n_queries, n_train]. `check_train_ids` is called with the file's train ids before its scores are read, and may
    raise. `most_bytes` is the memory that the file may use, by default that of this machine. `given`: the ids that may
    be text in the file. Raises InputError naming the file, and the row or array in it.
    """
    most_bytes = _memory_bytes() if most_bytes is None else most_bytes
    if path.suffix == ".npz":
        return *_read_npz(path, axes, check_train_ids, most_bytes, given), True
    if path.suffix in (".parquet", ".csv"):
        return *_read_pairs(path, check_train_ids, most_bytes, given), False
    raise InputError(path, f"unknown kind of file {path.suffix!r}; allowed: .npz, .parquet, .csv")


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _read_npz(
    path: Path, axes: Axes, check_train_ids: Callable[[np.ndarray], None], most_bytes: int, given: GivenIds
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    headers = read_headers(path, ARRAYS)
    _check_headers(path, headers, axes, given)
    if (n_bytes := total_bytes(headers)) > most_bytes:
        raise InputError(path, f"holds arrays of {n_bytes} bytes; at most {most_bytes} bytes fit in memory")
    query_ids, train_ids = (_numbered(read_array(path, name), name, path, given) for name in ARRAYS[1:])
    for name, ids in (("query", query_ids), ("train", train_ids)):
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise InputError(path, f"{name} id {values[counts > 1][0]} appears {counts[counts > 1][0]} times")
    check_train_ids(train_ids)
    return read_array(path, "scores"), query_ids, train_ids


def _numbered(ids: np.ndarray, name: str, path: Path, given: GivenIds) -> np.ndarray:
    return given.numbers(ids, name, path) if ids.dtype.kind == "U" else ids


def _check_headers(path: Path, headers: dict[str, Header], axes: Axes, given: GivenIds) -> None:
    scores, *ids = (headers[name] for name in ARRAYS)
    if scores.dtype.kind not in "fiu":
        raise InputError(path, f"scores have dtype {scores.dtype}; numbers are needed")
    for name, header in zip(ARRAYS[1:], ids, strict=True):
        if header.dtype.kind not in ("iuU" if given.names(name) else "iu"):
            raise InputError(path, f"{name} have dtype {header.dtype}; whole numbers are needed")
        if len(header.shape) != 1:
            raise InputError(path, f"{name} have {len(header.shape)} axes; one is needed")
    if len(scores.shape) != 2:
        raise InputError(path, f"scores have {len(scores.shape)} axes; two are needed")
    ours = scores.shape[::-1] if axes == "train_query" else scores.shape
    expected = (ids[0].shape[0], ids[1].shape[0])
    if ours != expected:
        problem = f"scores have shape {ours}; the ids give {expected} (queries, train examples) with axes: {axes}"
        raise InputError(path, problem)


def _read_pairs(
    path: Path, check_train_ids: Callable[[np.ndarray], None], most_bytes: int, given: GivenIds
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import pandas as pd

    table = _read_table(path, most_bytes, given)
    for column in COLUMNS[:2]:
        if given.names(column) and not table.empty and not table[column].isna().to_numpy().any():
            table[column] = given.numbers(table[column].to_numpy(), column, path)
    for column in COLUMNS:
        _check_column(path, pd.Series(table[column]), whole=column != "score")
    query_ids, rows = np.unique(table["query_id"].to_numpy(np.int64), return_inverse=True)
    train_ids, columns = np.unique(table["train_id"].to_numpy(np.int64), return_inverse=True)
    check_train_ids(train_ids)
    _check_pairs(path, query_ids, train_ids, rows * len(train_ids) + columns)
    scores = np.empty((len(query_ids), len(train_ids)))
    scores[rows, columns] = table["score"].to_numpy(np.float64)
    return scores, query_ids, train_ids


def _check_pairs(path: Path, query_ids: np.ndarray, train_ids: np.ndarray, places: np.ndarray) -> None:
    """Refuse repeated and missing pairs; `places` holds query position * n_train + train position of each row."""
    ordered = np.sort(places)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    off = np.flatnonzero(ordered != np.arange(len(ordered)))
    n_pairs = len(query_ids) * len(train_ids)
    missing = off[0] if len(off) else len(ordered)  # the first place without a row, unless one appears twice
    for problem, place in (("listed twice", twice[0] if len(twice) else n_pairs), ("missing", missing)):
        if place < n_pairs:
            row, column = divmod(int(place), len(train_ids))
            raise InputError(path, f"the pair of query {query_ids[row]} and train {train_ids[column]} is {problem}")


def _read_table(path: Path, most_bytes: int, given: GivenIds) -> pd.DataFrame:
    import pandas as pd

    def check(found: Sequence[str]) -> None:
        if sorted(found) != sorted(COLUMNS):
            shown = ", ".join(map(str, found[:20])) + (" ..." if len(found) > 20 else "")
            raise InputError(path, f"columns are {shown}; exactly {', '.join(COLUMNS)} are needed")

    if path.suffix == ".parquet":
        return read_parquet_columns(path, check, most_bytes // BYTES_PER_PAIR)
    if (n_bytes := path.stat().st_size) > most_bytes:
        raise InputError(path, f"has {n_bytes} bytes; at most {most_bytes} bytes fit in memory")
    try:
        check([str(name) for name in pd.read_csv(path, nrows=0).columns])
        as_text = {column: str for column in COLUMNS[:2] if given.names(column)}  # "NA" may be an id, and 007 is not 7
        return pd.read_csv(path, low_memory=False, converters=as_text)
    except InputError:
        raise
    except Exception as error:  # pandas reports damage by any of a dozen exception types
        raise InputError(path, f"cannot be read as csv: {error or type(error).__name__}") from error


def _check_column(path: Path, values: pd.Series, whole: bool) -> None:
    import pandas as pd

    if values.empty:
        raise InputError(path, "holds no rows")
    missing = values.isna().to_numpy()
    if missing.any():
        raise InputError(f"{path}: row {int(np.argmax(missing)) + 1}", f"{values.name} is missing or NaN")
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        numbers = pd.Series(pd.to_numeric(values, errors="coerce"))
        row = int(np.argmax(numbers.isna().to_numpy()))
        raise InputError(f"{path}: row {row + 1}", f"{values.name} {values.iloc[row]!r} is not a number")
    if whole and not pd.api.types.is_integer_dtype(values):
        row = int(np.argmax(values.to_numpy(np.float64) % 1 != 0))
        raise InputError(f"{path}: row {row + 1}", f"{values.name} {values.iloc[row]!r} is not a whole number")
