"""Checks whether a folder can be written to, by creating a temporary file or folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tasks.errors import InputError


def check_writable(folder: Path, where: object) -> None:
    """Check that files can be created in `folder`. Raises InputError that names `where` and the reason.

    If the folder exists, a temporary file is created in it. Otherwise a temporary folder is created in its nearest
    existing parent; `folder` itself is not created, since another run may begin to use it at the same moment. Reading the
    permissions would not suffice, because a read-only file system and /proc refuse writes regardless of them.
    """
    nearest = folder.absolute()
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        _check_names(folder.absolute().relative_to(nearest), nearest)
        if nearest == folder.absolute():
            with tempfile.TemporaryFile(dir=nearest):
                pass
        else:
            os.rmdir(tempfile.mkdtemp(prefix=".refit-", dir=nearest))
    except OSError as error:
        raise InputError(where, f"{_shown(folder)} cannot be written to: {error.strerror or error}") from error


def _check_names(missing: Path, nearest: Path) -> None:
    """Check that the file system accepts the names of the folders that do not exist yet. Raises OSError."""
    longest = os.pathconf(nearest, "PC_NAME_MAX")
    for name in missing.parts:
        if len(os.fsencode(name)) > longest:
            raise OSError(0, f"the name {_shown(name)} is longer than {longest} bytes")


def _shown(path: Path | str) -> str:
    return repr(str(path)) if len(str(path)) <= 200 else f"{str(path)[:200]!r}..."
