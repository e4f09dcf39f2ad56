"""Stores that map keys to bytes. A write stores all bytes of a key or changes nothing.

Ledger, scores and checkpoints are kept in such a store.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from tasks.errors import RefitError

Keys = list[str]
STORE_FOLDERS = ("ledger", "scores", "checkpoints", "diagnoses", "spend")
TEMPORARY = ".refit-tmp-"
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class StoreAwayError(OSError, RefitError):
    """The store does not answer or refuses access, so its content is unknown. Arguments: (errno, reason, URL)."""

    is_resumable = True

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class BlobStore(Protocol):
    """Bytes by key, where a key is a relative path with forward slashes.

    A crash during a write leaves the complete old content or the complete new content.
    """

    at_once: ClassVar[int]
    """The number of simultaneous calls (from threads) beyond which more would not be faster."""

    def get(self, key: str) -> bytes:
        """Return the content. Raises FileNotFoundError."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the content. If this raises OSError, no partial content is visible."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write `data` if the key is absent. True: this call wrote it; False: the key exists, or another writer won."""
        ...

    def swap(self, key: str, data: bytes, expected: bytes) -> bool:
        """Replace the content `expected` by `data`; of several simultaneous calls one succeeds.

        Returns False if the content differs from `expected` or the key is absent. If the server's answer was lost, a
        swap that was made may also return False, so the caller must read the key again.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete the key; an absent key is no error."""
        ...

    def list(self, prefix: str) -> Keys:
        """Return every key that starts with `prefix`, sorted."""
        ...

    def versions(self, prefix: str) -> dict[str, str]:
        """Return the keys that start with `prefix`, each with a version string that changes when the content changes."""
        ...

    def exists(self, key: str) -> bool: ...

    def size(self, key: str) -> int:
        """Return the size in bytes. Raises FileNotFoundError."""
        ...

    def url(self, key: str) -> str:
        """Return the URL by which a person can find the content."""
        ...


@dataclass(frozen=True)
class LocalBlobs:
    """A folder as a BlobStore. `root` is made absolute because a worker may have another working directory."""

    root: Path
    at_once: ClassVar[int] = 1  # a local disk answers without delay, so threads would gain nothing

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(os.path.abspath(self.root)))

    def get(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def put(self, key: str, data: bytes) -> None:
        write_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        _make_folder(path.parent)
        temporary = _write_temporary(path.parent, data)
        try:
            _claim(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return True

    def swap(self, key: str, data: bytes, expected: bytes) -> bool:
        path = self._path(key)
        try:
            with locked_folder(path.parent):
                if path.read_bytes() != expected:
                    return False
                write_file(path, data)
        except FileNotFoundError:
            return False
        return True

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def list(self, prefix: str) -> Keys:
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self.root
        return sorted(self._walk(start, folder + "/" if folder else "", prefix))

    def versions(self, prefix: str) -> dict[str, str]:
        found = {}
        for key in self.list(prefix):
            with suppress(FileNotFoundError):  # the key was deleted after the listing
                state = self._path(key).stat()
                found[key] = f"{state.st_ino} {state.st_size} {state.st_mtime_ns}"
        return found

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def size(self, key: str) -> int:
        return self._path(key).stat().st_size

    def url(self, key: str) -> str:
        return self._path(key).as_uri()

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """Delete temporary files that killed writers left in the store's own folders; return the number deleted."""
        oldest, swept = time.time() - older_than_s, 0
        for folder in STORE_FOLDERS:
            for parent, _, names in os.walk(self.root / folder):
                swept += sum(_delete_older(Path(parent, name), oldest) for name in names if name.startswith(TEMPORARY))
        return swept

    def _path(self, key: str) -> Path:
        return self.root.joinpath(*check_key(key).split("/"))

    def _walk(self, folder: Path, stem: str, prefix: str) -> Iterator[str]:
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            key = stem + entry.name
            if entry.is_dir():
                if (key + "/").startswith(prefix):
                    yield from self._walk(Path(entry.path), key + "/", prefix)
            elif key.startswith(prefix) and not entry.name.startswith(TEMPORARY) and entry.is_file():
                yield key


def check_key(key: str) -> str:
    """Return `key` if it is a valid key. Raises ValueError."""
    parts = key.split("/")
    if "\\" in key or "\0" in key or any(part in ("", ".", "..") or part.startswith(TEMPORARY) for part in parts):
        raise ValueError(f"{key!r} is not a key: keys are relative paths without empty, '.' or '..' parts")
    return key


def write_file(path: Path, data: bytes) -> None:
    """Write or replace a file atomically: a crash leaves the complete old or the complete new content. Raises OSError."""
    _make_folder(path.parent)
    temporary = _write_temporary(path.parent, data)
    try:
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time run the body, if the file system supports locks (some network file systems do not).

    Raises FileNotFoundError.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # this also releases the lock


def _write_temporary(folder: Path, data: bytes) -> Path:
    temporary = folder / f"{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex}"
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _delete_older(leftover: Path, oldest: float) -> bool:
    try:
        if leftover.stat().st_mtime >= oldest:
            return False
        leftover.unlink()
        return True
    except OSError:  # another driver deleted it, or the store is read-only; a leftover file does no harm
        return False


def _claim(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # the file is empty until os.replace
        os.replace(temporary, path)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
