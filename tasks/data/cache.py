"""A cache of Arrow tables by content; a file that is not exactly as it was written is built again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_CHECKSUM_BYTES = hashlib.sha256().digest_size
_KEY = b"refit-key"


def cached_table(cache_dir: Path | None, key: str, build: Callable[[], pa.Table]) -> pa.Table:
    """Return the table that `build` makes, or read it from `<cache_dir>/<key>.arrow` if that file is intact.

    With `cache_dir` None nothing is cached. The file is an Arrow IPC stream followed by its SHA-256. A damaged, foreign
    or truncated file is replaced.
    """
    if cache_dir is None:
        return build()
    path = cache_dir / f"{key}.arrow"
    table = _read(path, key)
    if table is None:
        table = build()
        with contextlib.suppress(OSError):  # a full or read-only disk costs time but does not stop the run
            _write(path, key, table)
    return table


def _read(path: Path, key: str) -> pa.Table | None:
    import pyarrow as pa

    try:
        data = path.read_bytes()
    except OSError:
        return None
    body, checksum = memoryview(data)[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest() != checksum:
        return None
    try:
        table = pa.ipc.open_stream(pa.py_buffer(body)).read_all()
    except (pa.ArrowException, OSError):
        return None
    return table if (table.schema.metadata or {}).get(_KEY) == key.encode() else None


def _write(path: Path, key: str, table: pa.Table) -> None:
    import pyarrow as pa

    table = table.replace_schema_metadata({_KEY: key.encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    write_atomically(path, body, hashlib.sha256(body).digest())


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file so that readers, and writers of the same file, never see a part of it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.writelines(parts)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
