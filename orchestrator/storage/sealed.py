"""Safetensors files that carry their own SHA-256: what is read is what was written, or it is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

UNSEALED = "0" * 64
SEAL = "sha256"


def seal(data: bytes) -> bytes:
    """The file with its digest in the place of UNSEALED, which its metadata hold under SEAL; equal content gives equal bytes."""
    data = _ordered(data)
    end = _header_end(data)
    digest = hashlib.sha256(data).hexdigest()
    return data[:end].replace(UNSEALED.encode(), digest.encode(), 1) + data[end:]


def sealed_metadata(data: bytes) -> Mapping[str, str] | None:
    """The file's metadata; None unless the digest in it is that of the file with the digest's place zeroed."""
    end = _header_end(data)
    try:
        metadata = json.loads(data[8:end])["__metadata__"]
        digest = metadata[SEAL].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if len(digest) != len(UNSEALED):
        return None
    hasher = hashlib.sha256(data[:end].replace(digest, UNSEALED.encode(), 1))
    hasher.update(memoryview(data)[end:])  # weights are large: no copy of them
    return metadata if hasher.hexdigest().encode() == digest else None


def _ordered(data: bytes) -> bytes:
    """The file with its metadata in the order of their names: safetensors writes them in an order of chance."""
    end = _header_end(data)
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")
