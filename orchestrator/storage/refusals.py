"""File system errors that stay until a person corrects the path or its permissions, and their messages."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from orchestrator.storage.blobs import TEMPORARY, StoreAwayError
from tasks.errors import RefitError

# A wrong path or a missing permission. All other errors may be temporary: a full disk, an unavailable mount, too many
# open files, an expired ticket of a network file system. Unknown errors count as temporary, since retrying loses nothing.
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
    """The store cannot be read or written until a person corrects its path or permissions. Its arguments are errno, reason and path."""

    def __str__(self) -> str:
        return describe_os_error(self)


def refused(error: OSError) -> StoreRefusesError:
    """Convert `error` to a StoreRefusesError, so that the scheduler attributes a worker's failure to the store."""
    return StoreRefusesError(error.errno, error.strerror or str(error), error.filename)


def is_permanent(error: BaseException) -> bool:
    """Return whether `error` is a file system error that stays until a person corrects the path or its permissions.

    False for StoreAwayError: a bucket that refuses access may grant it again once the credentials are renewed.
    """
    return isinstance(error, OSError) and not isinstance(error, StoreAwayError) and error.errno in PERMANENT


def describe_os_error(error: OSError) -> str:
    """Return `<path>: <reason>`; for a temporary file of Refit the path is that of its folder."""
    reason = error.strerror or str(error) or type(error).__name__
    if isinstance(error.errno, int) and error.errno in _IN_WORDS:
        reason = f"{_IN_WORDS[error.errno]} ({reason})"
    if not isinstance(error.filename, (str, bytes)):
        return reason
    path = Path(os.fsdecode(error.filename))
    return f"{path.parent if path.name.startswith(TEMPORARY) else path}: {reason}"
