"""Synchronises a run directory in an object store with the local folder where it is read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.storage.blobs import BlobStore, LocalBlobs, locked_folder

_STATE = ".mirror.json"
_LOG = "refit.log"


@dataclass
class _Synced:
    """The state of a file when it was last equal on both sides: the store's version and the content's SHA-256.

    `here`: the local file's version from before its content was read; empty if the content came from the store, and
    then the local file is compared again.
    """

    version: str
    sha256: str
    here: str = ""


@dataclass(frozen=True)
class RunMirror:
    """Keeps the folder `local` equal to `prefix`/ of `blobs`. If `blobs` is None, `local` is the run directory itself.

    A file that changed on one side since both were equal is copied to the other; if it changed on both, the store's
    version is kept. A lock lets one thread of a machine synchronise at a time; the lease keeps two machines apart. Files
    whose names begin with a dot are not copied.
    """

    blobs: BlobStore | None
    prefix: str
    local: Path

    def fetch(self) -> int:
        """Copy new and changed files from the store; return their number. Raises OSError.

        A file that was deleted in the store is deleted locally unless it has changed here.
        """
        if self.blobs is None or not (self.local.is_dir() or self._remote(self.blobs)):
            return 0
        self.local.mkdir(parents=True, exist_ok=True)
        with locked_folder(self.local):
            # read under the lock, so that files sent by another process of this machine are included
            synced, found = self._synced(), self._remote(self.blobs)
            changed = [name for name in found if not self._is_fetched(name, synced, found[name])]
            for name in changed:
                data = self.blobs.get(f"{self.prefix}/{name}")
                if self._here(name) != data:
                    self._write(name, data)
                synced[name] = _Synced(found[name], _sha256(data))
            for name in synced.keys() - found.keys():
                self._forget(name, synced)
            self._keep(synced)
        return len(changed)

    def publish(self) -> int:
        """Copy new and changed files to the store; return their number. Nothing is deleted.

        Raises OSError; files sent before the error stay in the store. If nothing has changed, only the time and size of
        every local file are read, and no request is made.
        """
        if self.blobs is None or not self.local.is_dir():
            return 0
        with locked_folder(self.local):
            synced = self._synced()
            touched = self._touched(synced)
            sent = [name for name, here in touched.items() if self._send(self.blobs, name, here, synced)]
            found = self._remote(self.blobs) if sent else {}
            for name in sent:
                if name in found:
                    synced[name].version = found[name]
                else:  # the file was deleted in the store after it was sent
                    del synced[name]
            if touched:
                self._keep(synced)
        return len(sent)

    def _send(self, blobs: BlobStore, name: str, here: str, synced: dict[str, _Synced]) -> bool:
        """Send a file if its content has changed since both sides were equal; return whether it was sent."""
        data, known = self._here(name), synced.get(name, _Synced("", ""))
        if data is None:
            return False
        sha256 = _sha256(data)
        if sha256 != known.sha256:
            blobs.put(f"{self.prefix}/{name}", data)
        synced[name] = _Synced(known.version, sha256, here)
        return sha256 != known.sha256

    def _touched(self, synced: Mapping[str, _Synced]) -> dict[str, str]:
        """Return the files that may have changed, with their versions, which are taken before the contents are read."""
        found = ((name, here) for name, here in self._folder.versions("").items() if not _is_hidden(name))
        return {name: here for name, here in found if name not in synced or synced[name].here != here}

    def _write(self, name: str, data: bytes) -> None:
        """Write a fetched file. A log is overwritten in place, so that a process that has it open keeps appending to it."""
        if name == _LOG and (self.local / name).exists():
            (self.local / name).write_bytes(data)
        else:
            self._folder.put(name, data)

    @property
    def _folder(self) -> LocalBlobs:
        return LocalBlobs(self.local)

    def _remote(self, blobs: BlobStore) -> dict[str, str]:
        start = self.prefix + "/"
        return {key.removeprefix(start): version for key, version in blobs.versions(start).items()}

    def _is_fetched(self, name: str, synced: dict[str, _Synced], version: str) -> bool:
        return name in synced and synced[name].version == version and self._folder.exists(name)

    def _forget(self, name: str, synced: dict[str, _Synced]) -> None:
        here = self._here(name)
        if here is not None and _sha256(here) == synced[name].sha256:
            self._folder.delete(name)
        del synced[name]

    def _here(self, name: str) -> bytes | None:
        try:
            return self._folder.get(name)
        except FileNotFoundError:
            return None

    def _synced(self) -> dict[str, _Synced]:
        """Read the state of the last synchronisation; if it is empty or unreadable, all files are compared."""
        try:
            stored = json.loads(self._here(_STATE) or b"{}")
            return {
                name: _Synced(str(one["version"]), str(one["sha256"]), str(one["here"])) for name, one in stored.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _keep(self, synced: dict[str, _Synced]) -> None:
        stored = {name: vars(synced[name]) for name in sorted(synced)}
        self._folder.put(_STATE, (json.dumps(stored, indent=1) + "\n").encode())


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
