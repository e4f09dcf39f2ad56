"""Reads a parquet file of numbers, limited by its number of rows, whatever metadata pandas left in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_INDEX = re.compile(r"__index_level_\d+__")  # pandas gives this name to an unnamed index


def read_parquet_columns(path: Path, check: Callable[[Sequence[str]], None], most_rows: int) -> pd.DataFrame:
    """Return all columns of the file except an unnamed index.

    `check` is called with the column names before anything is read; a file of more than `most_rows` rows is not read.
    Raises InputError for a file that is not readable parquet, and whatever `check` raises.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if not _INDEX.fullmatch(name)]
            check(names)
            if file.metadata.num_rows > most_rows:
                raise InputError(path, f"has {file.metadata.num_rows} rows; at most {most_rows} fit in memory")
            table = file.read(columns=names, use_threads=False).replace_schema_metadata(None)
            return table.to_pandas(use_threads=False)
    except InputError:
        raise
    except Exception as error:  # pyarrow reports a damaged file by any of a dozen exception types
        raise InputError(path, f"cannot be read as parquet: {error}") from error
