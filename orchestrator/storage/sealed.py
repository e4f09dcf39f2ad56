"""Safetensors files whose metadata contain their own SHA-256, so that damage is detected when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from mmap import mmap

UNSEALED = "0" * 64
SEAL = "sha256"


def seal(data: bytes, alignment: int = 8) -> bytes:
    """Replace UNSEALED, the placeholder in the metadata under SEAL, by the file's digest. Equal content gives equal bytes.

    The tensors begin at a multiple of `alignment` bytes, which is a multiple of 8.
    """
    data = _ordered(data, alignment)
    end = _header_end(data)
    digest = hashlib.sha256(data).hexdigest()
    return data[:end].replace(UNSEALED.encode(), digest.encode(), 1) + data[end:]


def sealed_metadata(data: bytes | mmap) -> Mapping[str, str] | None:
    """Return the file's metadata; None unless they contain the digest of the file with UNSEALED in the digest's place."""
    end = _header_end(data)
    try:
        metadata = json.loads(data[8:end])["__metadata__"]
        digest = metadata[SEAL].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if len(digest) != len(UNSEALED):
        return None
    hasher = hashlib.sha256(data[:end].replace(digest, UNSEALED.encode(), 1))
    hasher.update(memoryview(data)[end:])  # a view, since copying the weights would be slow
    return metadata if hasher.hexdigest().encode() == digest else None


def _ordered(data: bytes, alignment: int) -> bytes:
    """Sort the metadata by name, because safetensors writes them in random order."""
    end = _header_end(data)
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % alignment)  # the tensors begin after 8 bytes and this text
    return len(text).to_bytes(8, "little") + text + data[end:]


def _header_end(data: bytes | mmap) -> int:
    return 8 + int.from_bytes(data[:8], "little")
