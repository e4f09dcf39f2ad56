"""Reads arrays of an npz file after checking their headers. Nothing is unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.errors import InputError

_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Header:
    """The declared shape and dtype of an array, whose data are known to be complete."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_headers(path: Path, names: Sequence[str]) -> dict[str, Header]:
    """Return the headers of the arrays `names`.

    Raises InputError if the file is no npz file, or if an array is missing, encrypted, of Python objects, or does not
    have the number of bytes that its shape implies; so memory is never allocated for data that do not exist.
    """
    if not zipfile.is_zipfile(path):
        raise InputError(path, "is not an npz file of plain arrays: it is no zip archive")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            for name in names:
                if name not in members:
                    problem = f"array {name!r} is missing; the file holds {', '.join(members) or 'nothing'}"
                    raise InputError(path, problem)
            return {name: _header(path, archive, name, members[name]) for name in names}
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and numpy report damage by any of a dozen exception types
        raise InputError(path, f"is not an npz file of plain arrays: {error}") from error


def read_array(path: Path, name: str) -> np.ndarray:
    """Read one array whose header has been checked. Raises InputError if its data are damaged or memory does not suffice."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored[name]
    except Exception as error:  # zipfile, zlib and numpy, as above
        raise InputError(path, f"array {name!r} cannot be read: {error or type(error).__name__}") from error


def _header(path: Path, archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> Header:
    if member.flag_bits & 1:
        raise InputError(path, f"array {name!r} is encrypted; give a file without a password")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _READ_HEADER:
            raise InputError(path, f"array {name!r} has the unknown format {version}")
        shape, _, dtype = _READ_HEADER[version](file)
        n_bytes = member.file_size - file.tell()
    if dtype.hasobject:
        raise InputError(path, f"is not an npz file of plain arrays: {name!r} holds Python objects")
    asked = dtype.itemsize * int(np.prod([int(size) for size in shape], dtype=object))
    if asked != n_bytes:
        raise InputError(path, f"array {name!r} has {n_bytes} bytes; shape {shape} of {dtype} needs {asked}")
    return Header(shape, dtype)


def total_bytes(headers: Mapping[str, Header]) -> int:
    """Return the number of bytes of all arrays."""
    return sum(header.dtype.itemsize * int(np.prod(header.shape, dtype=object)) for header in headers.values())
