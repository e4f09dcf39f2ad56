"""Reading score files made elsewhere: npz matrices, and parquet or csv with one row per pair. Nothing is unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ARRAYS = ("scores", "query_ids", "train_ids")
COLUMNS = ("query_id", "train_id", "score")


def read_scores(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """(scores, query_ids, train_ids, is_matrix) of a score file.

    is_matrix: scores have the axes of the file (npz); else they were put together from pairs as [n_queries, n_train].
    Raises InputError naming the file, and the row or array in it.
    """
    readers: dict[str, Callable[[Path], tuple[np.ndarray, np.ndarray, np.ndarray]]]
    readers = {".npz": _read_npz, ".parquet": _read_pairs, ".csv": _read_pairs}
    if path.suffix not in readers:
        raise InputError(path, f"unknown kind of file {path.suffix!r}; allowed: {', '.join(readers)}")
    return *readers[path.suffix](path), path.suffix == ".npz"


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise InputError(path, "is not an npz file of plain arrays: it is no zip archive")
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in ARRAYS if name not in stored.files]
            if missing:
                raise InputError(
                    path, f"array {missing[0]!r} is missing; it holds {', '.join(stored.files) or 'nothing'}"
                )
            scores, query_ids, train_ids = (stored[name] for name in ARRAYS)
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(path, f"is not an npz file of plain arrays: {error}") from error
    if scores.dtype.kind not in "fiu":
        raise InputError(path, f"scores have dtype {scores.dtype}; numbers are needed")
    for name, ids in (("query_ids", query_ids), ("train_ids", train_ids)):
        if ids.dtype.kind not in "iu":
            raise InputError(path, f"{name} have dtype {ids.dtype}; whole numbers are needed")
    return scores, query_ids, train_ids


def _read_pairs(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import pandas as pd

    table = _read_table(path)
    if sorted(table.columns) != sorted(COLUMNS):
        raise InputError(
            path, f"columns are {', '.join(map(str, table.columns))}; exactly {', '.join(COLUMNS)} are needed"
        )
    for column in COLUMNS:
        _check_column(path, pd.Series(table[column]), whole=column != "score")
    query_ids, rows = np.unique(table["query_id"].to_numpy(np.int64), return_inverse=True)
    train_ids, columns = np.unique(table["train_id"].to_numpy(np.int64), return_inverse=True)
    counts = np.bincount(rows * len(train_ids) + columns, minlength=len(query_ids) * len(train_ids))
    for problem, wrong in (("there twice", counts > 1), ("missing", counts == 0)):
        if wrong.any():
            row, column = divmod(int(np.argmax(wrong)), len(train_ids))
            raise InputError(path, f"the pair of query {query_ids[row]} and train {train_ids[column]} is {problem}")
    scores = np.empty((len(query_ids), len(train_ids)))
    scores[rows, columns] = table["score"].to_numpy(np.float64)
    return scores, query_ids, train_ids


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, low_memory=False)
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise InputError(path, f"cannot be read as {path.suffix[1:]}: {error}") from error


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
