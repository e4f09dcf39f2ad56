"""Policies for failures and time: what a failed attempt is charged to, when a spec is quarantined, how long to wait.

This module reads no clock and does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.scheduling.events import FailureKind

Purse = Literal["retries", "preemptions"]

# A lost machine or an unavailable store is not the fault of the retrain. If it were charged to `retries`, healthy specs would
# be quarantined. The budget of preemptions is finite too, so that a retrain that is always interrupted is not paid for forever.
# A failure that ends the session is charged to neither.
CHARGED_TO: Mapping[FailureKind, Purse | None] = {
    "error": "retries",
    "timeout": "retries",
    "out_of_memory": "retries",  # memory of the device
    "host_memory": "retries",  # memory of the machine, which other processes use too, so running alone on a device would not help
    "preempted": "preemptions",
    "node_lost": "preemptions",
    "storage": "preemptions",
    "store_refused": None,
    "source_changed": None,
}


@dataclass(frozen=True)
class Budgets:
    """The number of failures of each kind after which a spec is still retried."""

    retries: int = 2
    preemptions: int = 20


@dataclass(frozen=True)
class ChargedFailures:
    """Failures of one spec so far, by the budget they are charged to."""

    retries: int = 0
    preemptions: int = 0


def charge(spent: ChargedFailures, kind: FailureKind) -> ChargedFailures:
    """Return `spent` after one more failure of this kind."""
    purse = CHARGED_TO[kind]
    if purse is None:
        return spent
    return replace(spent, **{purse: getattr(spent, purse) + 1})


def is_exhausted(spent: ChargedFailures, budgets: Budgets) -> bool:
    """Return whether a spec with these failures is quarantined instead of retried."""
    return spent.retries > budgets.retries or spent.preemptions > budgets.preemptions


@dataclass(frozen=True)
class Timing:
    """Limits in seconds after which the scheduler acts. A worker that has been idle for `idle_s` is released.

    A retrain is a straggler after max(straggler_min_s, straggler_factor x typical), and is reported as stuck after
    stuck_factor x max(straggler_min_s, typical), where `typical` is Durations.typical_s. An attempt on a node that will be
    removed must have ended or been given back `drain_margin_s` before the removal, because storing a snapshot takes time. `grace_s`
    is the time that workers have for this after budget or deadline is used up.
    """

    idle_s: float = 60.0
    straggler_factor: float = 3.0
    straggler_min_s: float = 30.0
    stuck_factor: float = 10.0
    drain_margin_s: float = 10.0
    grace_s: float = 30.0


@dataclass(frozen=True)
class Backoff:
    """Waiting times between failed operations: first_s, doubling up to longest_s, at most `limit` failures in a row.

    The defaults allow five minutes of retries, so that nothing is lost while a disk is full for a short time.
    """

    first_s: float = 0.5
    longest_s: float = 15.0
    limit: int = 24

    def delay_s(self, n_failures: int) -> float | None:
        """Return the seconds to wait after the n-th failure in a row (1-based); None if there is no further attempt."""
        if n_failures > self.limit:
            return None
        return min(self.first_s * 2.0 ** min(n_failures - 1, 30), self.longest_s)
