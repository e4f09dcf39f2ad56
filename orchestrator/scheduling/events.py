"""Events, which the driver reports to the scheduler, and instructions, which the scheduler returns. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.records import Outcome

# storage: the store was unavailable for longer than a worker waits. store_refused: a path in the store is wrong or may
# not be accessed. source_changed: a plugin was edited before the worker imported it.
FailureKind = Literal[
    "error", "timeout", "out_of_memory", "host_memory", "preempted", "node_lost", "storage", "store_refused",
    "source_changed",
]  # fmt: skip
# Every other retrain would fail in the same way, so the driver ends the session and quarantines no retrain.
ENDS_SESSION: frozenset[FailureKind] = frozenset({"store_refused", "source_changed"})


@dataclass(frozen=True)
class Tick:
    """Time has passed. `now_s` is the driver's monotonic clock in seconds; `seconds_left` is the wall-clock time in seconds until
    budget or deadline is used up at the present rate of spending (None: no limit). The scheduler reads time only from ticks."""

    now_s: float
    seconds_left: float | None = None


@dataclass(frozen=True)
class WorkerJoined:
    """A worker is ready for work. `devices` are its GPUs as `<node>:<id>`; workers that share a device share its memory."""

    worker: str
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerDraining:
    """The node of a worker will be removed in `seconds_left`. The worker gets no new retrain, and finishes its present one if time allows.

    Infinity means that the node stays and the worker's process is replaced; then the worker always finishes its present retrain.
    """

    worker: str
    seconds_left: float


@dataclass(frozen=True)
class WorkerLeft:
    """An idle worker ended as intended. Nothing is lost and no failure is charged.

    It was released, its process has to be replaced (see RecyclePolicy), or its node was drained.
    """

    worker: str


@dataclass(frozen=True)
class WorkerLost:
    """A worker was lost, and with it the attempt it was running. `kind` is the cause: error (its process crashed), preempted or node_lost."""

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
    """An attempt failed, and the worker stays available. Kind `preempted`: the worker gave the retrain back after a GiveBack."""

    worker: str
    spec_id: str
    kind: FailureKind
    message: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Published:
    """A ledger part (one file of the ledger) with the rows of these specs is durable. Only now are the specs finished."""

    spec_ids: tuple[str, ...]


@dataclass(frozen=True)
class PublishFailed:
    """Writing a ledger part failed; its rows go into the next part."""

    spec_ids: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class StopRequested:
    """The session must stop (Ctrl-C, budget, deadline): nothing new is started, running attempts are ended, finished retrains are published."""

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
    """Make a worker store a snapshot, if its recipe supports that, and give its retrain back.

    The worker answers with a Failed of kind `preempted`, or with Completed if the retrain ends first.
    """

    worker: str
    spec_id: str


@dataclass(frozen=True)
class Release:
    """End this worker, so that its node can be removed.

    Either there is no work for this worker, or its node is being drained, or two workers ran attempts of the same retrain and the
    other one has finished it. The scheduler no longer knows this worker.
    """

    worker: str


@dataclass(frozen=True)
class Publish:
    """Write one ledger part with the rows of these specs. Each of them is completed or quarantined; a quarantined spec has a row too."""

    spec_ids: tuple[str, ...]


@dataclass(frozen=True)
class Finish:
    """The session is over: every spec is published, or the session stops early and all completed specs are published."""

    complete: bool


Instruction = Submit | GiveBack | Release | Publish | Finish
