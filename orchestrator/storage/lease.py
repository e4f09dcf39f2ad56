"""A lease keeps two drivers from paying for the same retrains twice. Correctness never depends on it."""

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
_TRIES = 10  # a conditional write is lost to another driver, or its answer to the network: look again


class LeaseHeld(RefitError):  # noqa: N818  (a state, not a fault)
    """Another driver is at work on this ledger."""

    is_resumable = True


@dataclass(frozen=True)
class Holder:
    """Who holds a lease. `machine`: the boot and process namespace of `pid`; `started` tells a reused pid apart."""

    driver: str
    host: str
    machine: str
    pid: int
    started: str
    expires_at: float  # seconds since the epoch
    ledger: str = ""  # whose lease this is; one of a version before 0.2 does not say

    def is_alive(self, machine: str) -> bool:
        """False only when the process ran on `machine` and has ended."""
        return self.machine != machine or _started(self.pid) == self.started

    def __str__(self) -> str:
        until = datetime.fromtimestamp(self.expires_at, UTC).isoformat(timespec="seconds")
        return f"process {self.pid} on host {self.host}, until {until}"


@dataclass
class Lease:
    """The lease of one task's ledger, for one driver; one that stops renewing keeps others out for `ttl_s`."""

    blobs: BlobStore
    task_id: str
    ttl_s: float = 120.0
    driver: str = field(default_factory=lambda: uuid.uuid4().hex)

    def acquire(self, now: float) -> None:
        """Take it if it is free, expired, damaged or of an ended process; `now` in epoch seconds. Raises LeaseHeld.

        Every step is a conditional write: of several drivers that take over at once one has it.
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
        raise LeaseHeld(f"ledger {self.task_id}: other drivers take its lease at the same time; try again")

    def renew(self, now: float) -> bool:
        """Extend the lease; False if this driver no longer has it."""
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
        """Give the lease back, if this driver has it: the file stays, without a holder.

        To look and then delete could delete the lease of a driver that has just taken over.
        """
        found = self._stored()
        holder = self._decoded(found)
        if found is not None and holder is not None and holder.driver == self.driver:
            self.blobs.swap(self._key, _encode(replace(holder, driver="", expires_at=0.0)), found)

    def holder(self) -> Holder | None:
        """Who has the lease, expired or not; None if nobody has, or the file is damaged."""
        holder = self._decoded(self._stored())
        return holder if holder is not None and holder.driver else None

    def _stored(self) -> bytes | None:
        try:
            return self.blobs.get(self._key)
        except FileNotFoundError:
            return None

    def _decoded(self, data: bytes | None) -> Holder | None:
        """The holder; None also for what is damaged, or the lease of another ledger."""
        holder = _decoded(data)
        return holder if holder is not None and holder.ledger in ("", self.task_id) else None

    def _yields_to(self, holder: Holder, now: float) -> bool:
        return holder.driver != self.driver and holder.expires_at > now and holder.is_alive(_machine())

    @property
    def url(self) -> str:
        """Where a person finds it."""
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
    """None also for what is damaged."""
    try:
        stored = json.loads(data or b"")
        holder = Holder(
            driver=str(stored["driver"]), host=str(stored["host"]), machine=str(stored["machine"]),
            pid=int(stored["pid"]), started=str(stored["started"]), expires_at=float(stored["expires_at"]),
            ledger=str(stored.get("ledger", "")),
        )  # fmt: skip
        str(holder)  # an expiry that is no date is damage
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return holder


def _machine() -> str:
    """The boot and process namespace, in which pid and start time name a process; without /proc, the host name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When the process started, in ticks since boot; "" if it has ended."""
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
        pass  # it is there, and another user's
    return "running"
