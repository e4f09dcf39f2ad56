"""Whether a folder can be written to, found out by writing beside it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tasks.errors import InputError


def check_writable(folder: Path, where: object) -> None:
    """Make a file in the folder, or, where there is none yet, a folder of another name in the nearest one above; take it away again.

    Permissions say too little: a read-only file system or /proc refuse whoever has them. The folder itself is not made, since
    another run may begin to use it just then. Raises InputError naming `where` and the reason.
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
    """Raises OSError where a folder that is still to be made has a name that the file system does not take."""
    longest = os.pathconf(nearest, "PC_NAME_MAX")
    for name in missing.parts:
        if len(os.fsencode(name)) > longest:
            raise OSError(0, f"the name {_shown(name)} is longer than {longest} bytes")


def _shown(path: Path | str) -> str:
    return repr(str(path)) if len(str(path)) <= 200 else f"{str(path)[:200]!r}..."
