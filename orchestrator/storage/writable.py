"""Whether a folder can be written to, found out by doing it."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from tasks.errors import InputError


def check_writable(folder: Path, where: object) -> None:
    """Make the folder and a file in it, and take away what was made.

    Permissions say too little: a read-only file system, /proc or a name that is too long refuse whoever has them. Raises
    InputError naming `where` and the reason.
    """
    made: list[Path] = []
    try:
        _make(folder.absolute(), made)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(where, f"{str(folder)!r} cannot be written to: {error.strerror or error}") from error
    finally:
        for path in reversed(made):
            _remove(path)


def _make(folder: Path, made: list[Path]) -> None:
    if not os.path.isdir(folder):
        _make(folder.parent, made)
        try:
            folder.mkdir()
        except FileExistsError:  # another process made it meanwhile; a file in its place is found when it is written to
            return
        made.append(folder)


def _remove(folder: Path) -> None:
    with suppress(OSError):  # another process may have begun to use it
        folder.rmdir()
