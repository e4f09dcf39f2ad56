"""The state of every worker: idle since when, its attempt, when its node will be removed, and whether it keeps a device.

This module reads no clock and does no I/O.

A worker is idle, busy, held or a keeper. A keeper is a worker that will run a spec alone on its devices. Its neighbours are
the workers that share one of these devices: they are held, the busy ones as soon as their attempts end. The keeper begins
when no neighbour is busy.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

LOOK_AT = 64  # the number of idle workers among which a worker with free devices is searched


@dataclass(slots=True)
class Attempt:
    """Attempt `number` (1-based) of a spec on `worker`.

    `alone`: nothing else runs on its devices meanwhile. `gives_back`: the worker was instructed to give the retrain back.
    """

    worker: str
    spec_id: str
    number: int
    began_s: float
    alone: bool = False
    gives_back: bool = False


class Workers:
    """All workers, by name. An event costs O(1) if devices are not shared, otherwise O(workers on these devices)."""

    def __init__(self) -> None:
        self.idle: OrderedDict[str, float] = OrderedDict()  # worker -> time since which it is idle, earliest first
        self.busy: dict[str, Attempt] = {}
        self.held: dict[str, None] = {}  # without work, because a neighbour is a keeper or runs alone
        self.keepers: dict[str, None] = {}  # without work until no neighbour is busy
        self.draining: dict[str, float] = {}  # busy worker -> time at which its node will be removed
        self._devices: dict[str, tuple[str, ...]] = {}
        self._on: dict[str, dict[str, None]] = {}  # device -> workers
        self._kept: dict[str, str] = {}  # device -> the keeper or the worker running alone that it is reserved for
        self._ends: list[tuple[float, str]] = []  # heap of the times in `draining`, including outdated ones
        self._maybe_ready: dict[str, None] = {}
        self._released: list[str] = []

    def __contains__(self, worker: str) -> bool:
        return worker in self._devices

    # --- joining and leaving -------------------------------------------------------------------------------------

    def join(self, worker: str, devices: tuple[str, ...], now_s: float) -> None:
        """Add a worker that is ready; a known worker does not change."""
        if worker in self._devices:
            return
        self._devices[worker] = devices
        for device in devices:
            self._on.setdefault(device, {})[worker] = None
        self._rest(worker, now_s)

    def remove(self, worker: str, now_s: float) -> Attempt | None:
        """Forget a worker and return its attempt, if it was busy."""
        if worker not in self._devices:
            return None
        attempt = self.busy.pop(worker, None)
        self._forget(worker, now_s)
        return attempt

    def drain(self, worker: str, until_s: float, now_s: float) -> None:
        """Record that the node of a worker will be removed at `until_s`. A worker without work is released at once."""
        if worker in self.busy:
            self.draining[worker] = until_s
            heapq.heappush(self._ends, (until_s, worker))
        elif worker in self._devices:
            self.dismiss(worker, now_s)

    def dismiss(self, worker: str, now_s: float) -> None:
        """Forget a worker, busy or not, and release it."""
        self.busy.pop(worker, None)
        self._forget(worker, now_s)
        self._released.append(worker)

    def drained_by(self, time_s: float) -> list[str]:
        """Return the busy workers whose nodes will have been removed by `time_s`; each is returned once per drain."""
        drained: dict[str, None] = {}
        while self._ends and self._ends[0][0] <= time_s:
            _, worker = heapq.heappop(self._ends)
            if self.draining.get(worker, float("inf")) <= time_s:
                drained[worker] = None
        return list(drained)

    def take_released(self, idle_before_s: float, now_s: float) -> list[str]:
        """Return the workers to release: those idle since `idle_before_s` or longer, and those dismissed since the last call."""
        while self.idle and next(iter(self.idle.values())) <= idle_before_s:
            self.dismiss(next(iter(self.idle)), now_s)
        released, self._released = self._released, []
        return released

    # --- work ----------------------------------------------------------------------------------------------------

    def begin(self, attempt: Attempt) -> None:
        """Record that an idle worker, or a keeper that is ready, begins an attempt."""
        if self.idle.pop(attempt.worker, None) is None:
            del self.keepers[attempt.worker]
        self.busy[attempt.worker] = attempt

    def end(self, worker: str, spec_id: str, now_s: float) -> Attempt | None:
        """Record that a worker has ended its attempt of `spec_id`, and return the attempt; None if it was not running that spec."""
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
            self._recheck_keepers(worker)
        return attempt

    # --- alone on a device ---------------------------------------------------------------------------------------

    def have_keepers(self, n: int, now_s: float) -> None:
        """Change the number of keepers to `n`, as far as there are idle workers; workers on free devices are chosen first.

        A keeper that waits for a busy neighbour is replaced by an idle worker whose devices have become free.
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
        """Return a keeper that has no busy neighbour; None if there is none."""
        while self._maybe_ready:
            worker = next(iter(self._maybe_ready))
            if worker in self.keepers and not self.is_disturbed(worker):
                return worker
            del self._maybe_ready[worker]
        return None

    def neighbours(self, worker: str) -> Iterator[str]:
        """Yield the workers that share a device with this one, once for every shared device."""
        return (other for device in self._devices[worker] for other in self._on[device] if other != worker)

    def is_blocked(self, worker: str) -> bool:
        """Return whether a device of this worker is reserved for another worker."""
        return bool(self._kept) and any(self._kept.get(d, worker) != worker for d in self._devices[worker])

    def is_disturbed(self, worker: str) -> bool:
        """Return whether a neighbour is busy."""
        return any(neighbour in self.busy for neighbour in self.neighbours(worker))

    # --- changes of state ----------------------------------------------------------------------------------------

    def _rest(self, worker: str, now_s: float) -> None:
        """Make a worker without work idle, or held if one of its devices is reserved for another worker."""
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

    def _recheck_keepers(self, worker: str) -> None:
        for device in self._devices[worker] if self._kept else ():
            if self._kept.get(device) in self.keepers:
                self._maybe_ready[self._kept[device]] = None

    def _forget(self, worker: str, now_s: float) -> None:
        self.idle.pop(worker, None)
        self.held.pop(worker, None)
        self.keepers.pop(worker, None)
        self.draining.pop(worker, None)
        self._recheck_keepers(worker)
        if any(self._kept.get(device) == worker for device in self._devices[worker]):
            self._unkeep(worker, now_s)
        for device in self._devices.pop(worker):
            del self._on[device][worker]
            if not self._on[device]:
                del self._on[device]
