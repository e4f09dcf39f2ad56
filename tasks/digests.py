"""Canonical JSON and content digests: the one place where identities become digests."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DIGEST_LENGTH = 32
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """Return the canonical JSON text of `value`: keys are sorted, and there are no spaces between tokens.

    Characters outside ASCII are not escaped.
    Raises TypeError on anything whose text could differ between runs or machines: NaN and infinities, sets, bytes,
    numpy scalars, paths and other objects, and mappings with keys that are not strings.
    """
    _check_stable(value, "value")
    return _CANONICAL.encode(value)


def _check_stable(value: Any, where: str) -> None:
    if value is None or isinstance(value, bool) or type(value) in (int, str):
        return
    if type(value) is float:
        if not math.isfinite(value):
            raise TypeError(f"{where}: {value!r} has no stable JSON text")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"{where}: key {key!r} is not a string")
            _check_stable(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            _check_stable(item, f"{where}[{position}]")
    else:
        raise TypeError(f"{where}: {type(value).__name__} is not stable under hashing")


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, first 32 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:DIGEST_LENGTH]


def digest_arrays(**arrays: np.ndarray) -> str:
    """Return the digest of named arrays: names, dtypes (byte order fixed), shapes and bytes."""
    hasher = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        fixed = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        hasher.update(canonical_json([name, fixed.dtype.str, list(fixed.shape)]).encode())
        hasher.update(fixed.tobytes())
    return hasher.hexdigest()[:DIGEST_LENGTH]


def digest_texts(texts: Iterable[str]) -> str:
    """Return the digest of a sequence of strings; their lengths enter, so that moving a boundary changes the digest."""
    hasher = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()[:DIGEST_LENGTH]


def digest_file(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:DIGEST_LENGTH]
