"""Small decisions about failure and time: what an attempt costs, when a spec is given up, how long to wait. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.scheduling.events import FailureKind

Purse = Literal["retries", "preemptions"]

# A machine taken away, or a store that is away, says nothing about the retrain: charged as a failure, it would quarantine
# healthy specs. The purse is finite all the same: what never ends must not be paid for forever.
# What ends the session is charged to none.
CHARGED_TO: Mapping[FailureKind, Purse | None] = {
    "error": "retries",
    "timeout": "retries",
    "out_of_memory": "retries",  # of the device
    "host_memory": "retries",  # others on the machine have their share in it: nobody is alone there
    "preempted": "preemptions",
    "node_lost": "preemptions",
    "storage": "preemptions",
    "store_refused": None,
    "source_changed": None,
}


@dataclass(frozen=True)
class Budgets:
    """How many failures of each kind one spec may have and still be tried again."""

    retries: int = 2
    preemptions: int = 20


@dataclass(frozen=True)
class ChargedFailures:
    """What one spec has used of its budgets."""

    retries: int = 0
    preemptions: int = 0


def charge(spent: ChargedFailures, kind: FailureKind) -> ChargedFailures:
    """`spent` after one more failure of this kind."""
    purse = CHARGED_TO[kind]
    if purse is None:
        return spent
    return replace(spent, **{purse: getattr(spent, purse) + 1})


def is_exhausted(spent: ChargedFailures, budgets: Budgets) -> bool:
    """Whether a spec that has spent this much is quarantined rather than tried again."""
    return spent.retries > budgets.retries or spent.preemptions > budgets.preemptions


@dataclass(frozen=True)
class Timing:
    """What is done when time has passed. A worker nothing waits for is let go after `idle_s`.

    A retrain is a straggler beyond max(straggler_min_s, straggler_factor x typical), and people are told beyond
    stuck_factor x max(straggler_min_s, typical). What runs on a node that goes away
    must be done, or have been given back, `drain_margin_s` before: storing how far it is takes time. `grace_s` is the
    time for that when budget or deadline are used up.
    """

    idle_s: float = 60.0
    straggler_factor: float = 3.0
    straggler_min_s: float = 30.0
    stuck_factor: float = 10.0
    drain_margin_s: float = 10.0
    grace_s: float = 30.0


@dataclass(frozen=True)
class Backoff:
    """Waiting times between failed writes: first_s, doubling up to longest_s, at most `limit` failures in a row.

    The defaults keep trying for five minutes, so that a disk that is full for a while loses nothing.
    """

    first_s: float = 0.5
    longest_s: float = 15.0
    limit: int = 24

    def delay_s(self, n_failures: int) -> float | None:
        """Seconds to wait after the n-th failure in a row (1-based); None: give up."""
        if n_failures > self.limit:
            return None
        return min(self.first_s * 2.0 ** min(n_failures - 1, 30), self.longest_s)
