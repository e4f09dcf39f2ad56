"""What can happen to a campaign, and what the scheduler can ask for. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.records import Outcome

FailureKind = Literal["error", "timeout", "out_of_memory", "preempted", "node_lost"]


@dataclass(frozen=True)
class WorkerJoined:
    """A worker is ready for work."""

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
    """An attempt failed; the worker lives on."""

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


Event = WorkerJoined | WorkerLost | Completed | Failed | Published | PublishFailed | StopRequested


@dataclass(frozen=True)
class Submit:
    """Start attempt number `attempt` (1-based) of `spec_id` on `worker`."""

    worker: str
    spec_id: str
    attempt: int


@dataclass(frozen=True)
class Publish:
    """Write one ledger part with these finished specs, quarantined ones included."""

    spec_ids: tuple[str, ...]


@dataclass(frozen=True)
class Finish:
    """Nothing is left to do: everything is published, or a stop was asked for and everything finished is published."""

    complete: bool


Instruction = Submit | Publish | Finish
