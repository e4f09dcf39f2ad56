"""A lease keeps two drivers from doing the same retrains. Correctness never depends on it."""

from __future__ import annotations

import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.storage.blobs import BlobStore
from tasks.errors import RefitError

_GONE = ("Z", "X")  # /proc states of a process that has ended
_TRIES = 10  # a conditional write fails if another driver wrote first or the server's answer was lost


class LeaseHeld(RefitError):  # noqa: N818  (a state, not a fault)
    """Another driver holds the lease of this ledger."""

    is_resumable = True


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease.

    `machine` identifies the boot and the process namespace of `pid`; `started` distinguishes processes that reuse a pid.
    """

    driver: str
    host: str
    machine: str
    pid: int
    started: str
    expires_at: float  # seconds since the epoch
    ledger: str = ""  # task id of the ledger; empty in a lease written by a version before 0.2

    def is_alive(self, machine: str) -> bool:
        """Return False only if the process ran on `machine` and has ended."""
        return self.machine != machine or _started(self.pid) == self.started

    def __str__(self) -> str:
        until = datetime.fromtimestamp(self.expires_at, UTC).isoformat(timespec="seconds")
        return f"process {self.pid} on host {self.host}, until {until}"


@dataclass
class Lease:
    """The lease of one task's ledger, for one driver. A lease that is not renewed expires after `ttl_s` seconds."""

    blobs: BlobStore
    task_id: str
    ttl_s: float = 120.0
    driver: str = field(default_factory=lambda: uuid.uuid4().hex)

    def acquire(self, now: float) -> None:
        """Take the lease if it is free, expired, damaged or held by an ended process. Raises LeaseHeld.

        `now` is in seconds since the epoch. Every write is conditional, so that of several simultaneous drivers exactly
        one gets the lease.
        """
        mine = _encode(self._mine(now))
        for _ in range(_TRIES):
            if self.blobs.create(self._key, mine):
                return
            found = self._stored()
            holder = self._decoded(found)
            if holder is not None and self._yields_to(holder, now):
                raise LeaseHeld(f"ledger {self.task_id} is in use by {holder}")
            if found is not None and (found == mine or self.blobs.swap(self._key, mine, found)):
                return
        raise LeaseHeld(f"ledger {self.task_id}: other drivers are taking its lease at the same time; try again")

    def renew(self, now: float) -> bool:
        """Extend the lease; return False if this driver no longer holds it."""
        mine = _encode(self._mine(now))
        for _ in range(_TRIES):
            found = self._stored()
            holder = self._decoded(found)
            if found is None or (holder is not None and holder.driver != self.driver):
                return False
            if found == mine or self.blobs.swap(self._key, mine, found):
                return True
        return False

    def release(self) -> None:
        """Release the lease if this driver holds it. The file stays and then names no holder.

        Reading and then deleting the file could delete the lease of a driver that has just taken over.
        """
        found = self._stored()
        holder = self._decoded(found)
        if found is not None and holder is not None and holder.driver == self.driver:
            self.blobs.swap(self._key, _encode(replace(holder, driver="", expires_at=0.0)), found)

    def holder(self) -> Holder | None:
        """Return the holder, expired or not; None if there is none or the file is damaged."""
        holder = self._decoded(self._stored())
        return holder if holder is not None and holder.driver else None

    def _stored(self) -> bytes | None:
        try:
            return self.blobs.get(self._key)
        except FileNotFoundError:
            return None

    def _decoded(self, data: bytes | None) -> Holder | None:
        """Return the holder; None if `data` is None, damaged, or the lease of another ledger."""
        holder = _decoded(data)
        return holder if holder is not None and holder.ledger in ("", self.task_id) else None

    def _yields_to(self, holder: Holder, now: float) -> bool:
        return holder.driver != self.driver and holder.expires_at > now and holder.is_alive(_machine())

    @property
    def url(self) -> str:
        """The URL by which a person can find the lease."""
        return self.blobs.url(self._key)

    @property
    def _key(self) -> str:
        return f"ledger/{self.task_id}/lease.json"

    def _mine(self, now: float) -> Holder:
        pid = os.getpid()
        expires_at = now + self.ttl_s
        return Holder(self.driver, socket.gethostname(), _machine(), pid, _started(pid), expires_at, self.task_id)


def _encode(holder: Holder) -> bytes:
    return (json.dumps(asdict(holder), indent=1) + "\n").encode()


def _decoded(data: bytes | None) -> Holder | None:
    """Return the holder; None if `data` is None or damaged."""
    try:
        stored = json.loads(data or b"")
        holder = Holder(
            driver=str(stored["driver"]), host=str(stored["host"]), machine=str(stored["machine"]),
            pid=int(stored["pid"]), started=str(stored["started"]), expires_at=float(stored["expires_at"]),
            ledger=str(stored.get("ledger", "")),
        )  # fmt: skip
        str(holder)  # raises if the expiry cannot be shown as a date, which means damage
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return holder


def _machine() -> str:
    """Identify the boot and process namespace, within which pid and start time identify a process.

    Without /proc this is the host name.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """Return the start time of the process in ticks since boot; "" if it has ended."""
    if not Path("/proc/self/stat").exists():
        return _answers(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in _GONE else fields[19]


def _answers(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass  # the process exists and belongs to another user
    return "running"
