"""Errors of a file system that no waiting mends, and how they are told to people."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from orchestrator.storage.blobs import TEMPORARY, StoreAwayError
from tasks.errors import RefitError

# A path that is wrong, or a right that is missing. Everything else may pass: a full disk, a mount that is away, too
# many open files, an expired ticket of a network file system. What is unknown is waited for, since waiting loses nothing.
PERMANENT = frozenset(
    {
        errno.EACCES,  # permission denied
        errno.EPERM,
        errno.EROFS,  # read-only file system
        errno.ENOTDIR,  # a file where a folder should be
        errno.EISDIR,  # a folder where a file should be
        errno.EEXIST,  # a file where a folder is to be made
        errno.ENOTEMPTY,
        errno.ENAMETOOLONG,
        errno.ELOOP,  # symbolic links in a circle
        errno.EXDEV,  # a rename across file systems
        errno.EMLINK,
        errno.EFBIG,  # larger than the file system or the limit of the process allows
        errno.EILSEQ,  # a name the file system cannot encode
        errno.EINVAL,
        errno.ENXIO,  # a pipe or socket where a file should be
        errno.ENODEV,
        errno.ENOTBLK,
        errno.ESPIPE,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
        errno.ENOTSUP,
    }
)

_IN_WORDS = {
    errno.EEXIST: "a file is where a folder is needed",
    errno.ENOTDIR: "a file is where a folder is needed",
    errno.EISDIR: "a folder is where a file is needed",
    errno.ELOOP: "symbolic links lead in a circle",
}


class StoreRefusesError(OSError, RefitError):
    """A store that cannot be read or written as it stands, and that no waiting mends. (errno, reason, path)"""

    def __str__(self) -> str:
        return told(self)


def refused(error: OSError) -> StoreRefusesError:
    """The same refusal, told as one of the store: what a worker fails with is then no fault of the retrain."""
    return StoreRefusesError(error.errno, error.strerror or str(error), error.filename)


def is_permanent(error: BaseException) -> bool:
    """Whether an error is a file system's refusal that stays until a person mends the path or its rights.

    False for StoreAwayError: a bucket that refuses may let us in again once credentials are renewed.
    """
    return isinstance(error, OSError) and not isinstance(error, StoreAwayError) and error.errno in PERMANENT


def told(error: OSError) -> str:
    """`<path>: <reason>`, the path being the one a person knows: of a temporary file its folder."""
    reason = error.strerror or str(error) or type(error).__name__
    if isinstance(error.errno, int) and error.errno in _IN_WORDS:
        reason = f"{_IN_WORDS[error.errno]} ({reason})"
    if not isinstance(error.filename, (str, bytes)):
        return reason
    path = Path(os.fsdecode(error.filename))
    return f"{path.parent if path.name.startswith(TEMPORARY) else path}: {reason}"
