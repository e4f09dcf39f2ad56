"""What can happen to a campaign, and what the scheduler can ask for. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.records import Outcome

# storage: the store was away for longer than a worker waits. store_refused: a path in it is wrong or forbidden.
# source_changed: a plugin was edited before the worker imported it.
FailureKind = Literal[
    "error", "timeout", "out_of_memory", "host_memory", "preempted", "node_lost", "storage", "store_refused",
    "source_changed",
]  # fmt: skip
# Every other retrain would be lost in the same way: the driver ends the session, and no retrain is given up.
ENDS_SESSION: frozenset[FailureKind] = frozenset({"store_refused", "source_changed"})


@dataclass(frozen=True)
class Tick:
    """Time has passed: `now_s` seconds on the driver's monotonic clock, and what is left of budget and deadline in seconds of
    wall-clock time at the present burn rate (None: no limit). Everything that depends on time depends on the last tick."""

    now_s: float
    seconds_left: float | None = None


@dataclass(frozen=True)
class WorkerJoined:
    """A worker is ready for work. `devices` are the GPUs it holds, as `<node>:<id>`: workers that share one share its memory."""

    worker: str
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerDraining:
    """The node of a worker goes away in `seconds_left`: it gets nothing new, and finishes what it has if that fits.

    Infinite: no node goes, the process is to be replaced; what it has always fits.
    """

    worker: str
    seconds_left: float


@dataclass(frozen=True)
class WorkerLeft:
    """An idle worker is gone by intent (let go, recycled, or its node was drained): nothing is lost and nothing charged."""

    worker: str


@dataclass(frozen=True)
class WorkerLost:
    """A worker is gone; what it was doing is lost with it. `kind` says whose fault: crash of the process (error), preempted, node_lost."""

    worker: str
    kind: FailureKind
    message: str


@dataclass(frozen=True)
class Completed:
    """A worker finished a retrain (ok or diverged)."""

    worker: str
    outcome: Outcome


@dataclass(frozen=True)
class Failed:
    """An attempt failed; the worker lives on. Kind `preempted`: it was asked to give the retrain back, and did."""

    worker: str
    spec_id: str
    kind: FailureKind
    message: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Published:
    """A ledger part holding these specs is durable: only now are they finished."""

    spec_ids: tuple[str, ...]


@dataclass(frozen=True)
class PublishFailed:
    """Writing a part failed; its rows go into the next one."""

    spec_ids: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class StopRequested:
    """Take on nothing new (Ctrl-C, budget, deadline); what runs is given up, what is finished is published."""

    reason: str


Event = (
    Tick
    | WorkerJoined
    | WorkerDraining
    | WorkerLeft
    | WorkerLost
    | Completed
    | Failed
    | Published
    | PublishFailed
    | StopRequested
)


@dataclass(frozen=True)
class Submit:
    """Start attempt number `attempt` (1-based) of `spec_id` on `worker`."""

    worker: str
    spec_id: str
    attempt: int


@dataclass(frozen=True)
class GiveBack:
    """Ask a worker to store how far it is, if its recipe can, and to give its retrain back: answered by Failed(preempted), or by its result."""

    worker: str
    spec_id: str


@dataclass(frozen=True)
class Release:
    """There is no work for this worker, or nobody waits for what it does (its retrain is done elsewhere): let it go, so that
    its node can go. The scheduler has forgotten it."""

    worker: str


@dataclass(frozen=True)
class Publish:
    """Write one ledger part with these finished specs, quarantined ones included."""

    spec_ids: tuple[str, ...]


@dataclass(frozen=True)
class Finish:
    """Nothing is left to do: everything is published, or a stop was asked for and everything finished is published."""

    complete: bool


Instruction = Submit | GiveBack | Release | Publish | Finish
