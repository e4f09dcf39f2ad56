"""The books on workers: who is idle since when, who does what, who is about to go, and who keeps a device to itself. Pure.

A worker is idle, busy, held or a keeper. A keeper is a worker that is to run something alone on its devices: the workers
that share one of them (its neighbours) are held, those at work as soon as they end, and it begins when none is at work.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

LOOK_AT = 64  # idle workers looked at for one whose devices are free already


@dataclass(slots=True)
class Attempt:
    """What `worker` is doing: attempt `number` (1-based) of a spec. `alone`: nothing else runs on its devices meanwhile."""

    worker: str
    spec_id: str
    number: int
    began_s: float
    alone: bool = False
    asked_back: bool = False


class Workers:
    """All workers, by name. O(1) per event where devices are not shared, else O(workers on the devices)."""

    def __init__(self) -> None:
        self.idle: OrderedDict[str, float] = OrderedDict()  # free for any work -> since when, longest first
        self.busy: dict[str, Attempt] = {}
        self.held: dict[str, None] = {}  # without work, for a neighbour's sake
        self.keepers: dict[str, None] = {}  # without work, until no neighbour has any
        self.draining: dict[str, float] = {}  # at work on a node that goes -> when it does
        self._devices: dict[str, tuple[str, ...]] = {}
        self._on: dict[str, dict[str, None]] = {}  # device -> workers
        self._kept: dict[str, str] = {}  # device -> the worker that has it alone, or is about to
        self._ends: list[tuple[float, str]] = []  # heap of the times of `draining`, outdated ones included
        self._maybe_ready: dict[str, None] = {}
        self._let_go: list[str] = []

    def __contains__(self, worker: str) -> bool:
        return worker in self._devices

    # --- coming and going ----------------------------------------------------------------------------------------

    def join(self, worker: str, devices: tuple[str, ...], now_s: float) -> None:
        """A worker is ready; one that is known already is left as it is."""
        if worker in self._devices:
            return
        self._devices[worker] = devices
        for device in devices:
            self._on.setdefault(device, {})[worker] = None
        self._rest(worker, now_s)

    def remove(self, worker: str, now_s: float) -> Attempt | None:
        """Forget a worker: what it was doing."""
        if worker not in self._devices:
            return None
        attempt = self.busy.pop(worker, None)
        self._forget(worker, now_s)
        return attempt

    def drain(self, worker: str, until_s: float, now_s: float) -> None:
        """The node of a worker goes at `until_s`. One without work is let go at once."""
        if worker in self.busy:
            self.draining[worker] = until_s
            heapq.heappush(self._ends, (until_s, worker))
        elif worker in self._devices:
            self.dismiss(worker, now_s)

    def dismiss(self, worker: str, now_s: float) -> None:
        """Forget a worker, whatever it is doing, and let it go."""
        self.busy.pop(worker, None)
        self._forget(worker, now_s)
        self._let_go.append(worker)

    def going_by(self, time_s: float) -> list[str]:
        """Busy workers whose nodes go by then; each is named once per drain."""
        going: dict[str, None] = {}
        while self._ends and self._ends[0][0] <= time_s:
            _, worker = heapq.heappop(self._ends)
            if self.draining.get(worker, float("inf")) <= time_s:
                going[worker] = None
        return list(going)

    def let_go(self, idle_before_s: float, now_s: float) -> list[str]:
        """Workers to let go, forgotten: idle since `idle_before_s` or longer, and those dismissed since the last call."""
        while self.idle and next(iter(self.idle.values())) <= idle_before_s:
            self.dismiss(next(iter(self.idle)), now_s)
        gone, self._let_go = self._let_go, []
        return gone

    # --- work ----------------------------------------------------------------------------------------------------

    def begin(self, attempt: Attempt) -> None:
        """An idle worker, or a keeper that is ready, gets work."""
        if self.idle.pop(attempt.worker, None) is None:
            del self.keepers[attempt.worker]
        self.busy[attempt.worker] = attempt

    def end(self, worker: str, spec_id: str, now_s: float) -> Attempt | None:
        """A worker has no work any more, if this is what it was doing: the attempt that ended, else None."""
        attempt = self.busy.get(worker)
        if attempt is None or attempt.spec_id != spec_id:
            return None
        del self.busy[worker]
        if attempt.alone:
            self._unkeep(worker, now_s)
        if self.draining.pop(worker, None) is not None:
            self.dismiss(worker, now_s)
        else:
            self._rest(worker, now_s)
            self._tell_keepers(worker)
        return attempt

    # --- alone on a device ---------------------------------------------------------------------------------------

    def have_keepers(self, n: int, now_s: float) -> None:
        """Make keepers of idle workers until there are `n`, those on free devices first, and no more than `n`.

        One that waits for a neighbour gives way to a worker whose devices are free by now.
        """
        while len(self.keepers) > n:
            self._resign(next(reversed(self.keepers)), now_s)
        while self.idle and len(self.keepers) < n:
            self._keep(self._undisturbed() or next(iter(self.idle)))
        for keeper in [keeper for keeper in self.keepers if self.idle and self.is_disturbed(keeper)]:
            if (better := self._undisturbed()) is None:
                return
            self._keep(better)
            self._resign(keeper, now_s)

    def _undisturbed(self) -> str | None:
        return next((worker for worker in islice(self.idle, LOOK_AT) if not self.is_disturbed(worker)), None)

    def _keep(self, worker: str) -> None:
        del self.idle[worker]
        self.keepers[worker] = self._maybe_ready[worker] = None
        self._kept.update(dict.fromkeys(self._devices[worker], worker))
        for neighbour in self.neighbours(worker):
            if self.idle.pop(neighbour, None) is not None:
                self.held[neighbour] = None

    def _resign(self, keeper: str, now_s: float) -> None:
        del self.keepers[keeper]
        self._unkeep(keeper, now_s)
        self._rest(keeper, now_s)

    def ready_keeper(self) -> str | None:
        """A keeper none of whose neighbours is at work."""
        while self._maybe_ready:
            worker = next(iter(self._maybe_ready))
            if worker in self.keepers and not self.is_disturbed(worker):
                return worker
            del self._maybe_ready[worker]
        return None

    def neighbours(self, worker: str) -> Iterator[str]:
        """Workers that share a device with this one; one that shares several is named as often."""
        return (other for device in self._devices[worker] for other in self._on[device] if other != worker)

    def is_blocked(self, worker: str) -> bool:
        """Whether a device of this worker is kept for another."""
        return bool(self._kept) and any(self._kept.get(d, worker) != worker for d in self._devices[worker])

    def is_disturbed(self, worker: str) -> bool:
        """Whether a neighbour is at work."""
        return any(neighbour in self.busy for neighbour in self.neighbours(worker))

    # --- how one becomes the other -------------------------------------------------------------------------------

    def _rest(self, worker: str, now_s: float) -> None:
        """A worker without work is idle, unless one of its devices is kept for another."""
        if self.is_blocked(worker):
            self.held[worker] = None
        else:
            self.idle[worker] = now_s

    def _unkeep(self, worker: str, now_s: float) -> None:
        for device in self._devices[worker]:
            self._kept.pop(device, None)
        for neighbour in self.neighbours(worker):
            if neighbour in self.held and not self.is_blocked(neighbour):
                del self.held[neighbour]
                self.idle[neighbour] = now_s

    def _tell_keepers(self, worker: str) -> None:
        for device in self._devices[worker] if self._kept else ():
            if self._kept.get(device) in self.keepers:
                self._maybe_ready[self._kept[device]] = None

    def _forget(self, worker: str, now_s: float) -> None:
        self.idle.pop(worker, None)
        self.held.pop(worker, None)
        self.keepers.pop(worker, None)
        self.draining.pop(worker, None)
        self._tell_keepers(worker)
        if any(self._kept.get(device) == worker for device in self._devices[worker]):
            self._unkeep(worker, now_s)
        for device in self._devices.pop(worker):
            del self._on[device][worker]
            if not self._on[device]:
                del self._on[device]
