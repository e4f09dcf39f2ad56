"""Encodes tables as parquet bytes: equal tables give equal bytes, and a damaged page is detected when it is read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import RefitError


class DamagedError(RefitError):
    """A stored file is truncated, altered or of another layout."""


def to_bytes(table: pa.Table, dictionary: Sequence[str] = (), *, quick: bool = False) -> bytes:
    """Encode `table` with a checksum on every page, dictionaries for the columns `dictionary`, and zstd compression.

    `quick`: compress with snappy, for small files that are written often; zstd takes half a millisecond to set up for
    some 20 columns.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="snappy" if quick else "zstd", write_page_checksum=True, write_statistics=False,
        use_dictionary=list(dictionary),  # type: ignore[arg-type]  # pyarrow's annotation forgets lists
    )  # fmt: skip
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes, schema: pa.Schema | None, columns: Sequence[str] | None = None) -> pa.Table:
    """Decode the table, or some of its columns. Raises DamagedError if it is unreadable or its schema is not `schema`."""
    try:
        stored = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if schema is not None and not stored.schema_arrow.equals(schema):
            raise DamagedError(f"columns are {_columns(stored.schema_arrow)}; expected {_columns(schema)}")
        return stored.read(columns=None if columns is None else list(columns), use_threads=False)
    except (pa.ArrowException, OSError, UnicodeError) as error:  # pyarrow raises OSError on a wrong page checksum
        raise DamagedError("unreadable parquet: " + " ".join(str(error).split())) from error


def schema_of(data: bytes) -> pa.Schema:
    """Decode the schema and its metadata. Raises DamagedError."""
    try:
        return pq.read_schema(pa.BufferReader(data))
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DamagedError("unreadable parquet: " + " ".join(str(error).split())) from error


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
