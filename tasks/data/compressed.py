"""Reads the bytes of a file and decompresses them if they are compressed by gzip, bzip2 or Zstandard."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

from tasks.errors import InputError

_BEGINS = {"gzip": b"\x1f\x8b\x08", "bzip2": b"BZh", "zstd": b"\x28\xb5\x2f\xfd"}
_SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}
_OTHERS = {
    b"PK\x03\x04": "a zip archive (an Excel workbook is one)",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"PAR1": "a parquet file: format: parquet reads it",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"%PDF-": "a PDF document",
}
_CHUNK_BYTES = 1 << 24
_FREE_BYTES = 1 << 28  # a file may expand to this size, however small it is
_MOST_RATIO = 200  # text rarely shrinks to less than a fiftieth of its size


def compression_of(data: bytes) -> str | None:
    """Return gzip, bzip2 or zstd according to the first bytes, or None."""
    is_bzip2 = data[3:4].isdigit() and data[4:10] in (b"1AY&SY", b"\x17rE8P\x90", b"")
    return next(
        (kind for kind, begin in _BEGINS.items() if data.startswith(begin) and (kind != "bzip2" or is_bzip2)), None
    )


def decompressed(data: bytes, path: Path) -> bytes:
    """Return `data` as it was before gzip, bzip2 or zstd compressed it; return other data unchanged.

    The first bytes decide, not the name of the file. Raises InputError if the data is truncated or corrupt, if it
    expands to more than 256 MiB and more than 200 times its size, if the name says that it is compressed but it is not,
    or if the file is of a kind that holds no text.
    """
    kind, named = compression_of(data), _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        if named and data:
            raise InputError(path, f"the name ends in {path.suffix!r}, but the content is not compressed by {named}")
        other = next((what for begin, what in _OTHERS.items() if data.startswith(begin)), None)
        if other:
            raise InputError(path, f"is {other}; text is needed, or text compressed by gzip, bzip2 or zstd")
        return data
    try:
        with _opened(kind, data) as stream:
            return _read(stream, len(data), path)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(path, f"compressed by {kind}, and truncated or corrupt: {error}") from error


def _read(stream: IO[bytes], compressed_bytes: int, path: Path) -> bytes:
    chunks, n_bytes = [], 0
    while chunk := stream.read(_CHUNK_BYTES):
        chunks.append(chunk)
        n_bytes += len(chunk)
        if n_bytes > max(_FREE_BYTES, _MOST_RATIO * compressed_bytes):
            raise InputError(
                path,
                f"{compressed_bytes} compressed bytes expand to more than {n_bytes}; decompress the file first if this is intended",
            )
    return b"".join(chunks)


def _opened(kind: str, data: bytes) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=io.BytesIO(data))
    import pyarrow as pa  # Python's bz2 module ignores what follows a stream, so it would miss a damaged second stream

    return pa.CompressedInputStream(pa.BufferReader(data), {"bzip2": "bz2"}.get(kind, kind))
