"""The parts of a simulated campaign: conditions, faults, machines, and the meter of the driver's CPU time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Faults:
    """The faults of a campaign. Times are in seconds; fractions are of attempts unless a comment says otherwise."""

    between_preemptions_s: float = 180.0  # over the whole fleet, on average
    noticed_frac: float = 0.5  # of lost nodes: announced `notice_s` before
    notice_s: float = 120.0
    detection_s: float = 15.0  # until the loss of a node without notice is detected
    late_frac: float = 0.1  # of nodes without notice: unreachable only; results arrive after the report of the loss
    crashed_frac: float = 0.001  # half of these attempts raise, half also end their worker
    straggling_frac: float = 0.0005
    straggling_factor: float = 10.0


@dataclass(frozen=True)
class Conditions:
    """A campaign and the fleet it runs on. Lengths of retrains are log-normal."""

    workers: int = 1000
    retrains: int = 1_000_000
    median_s: float = 4.0
    sigma: float = 0.5
    seed: int = 0
    faults: Faults | None = None
    boot_s: float = 180.0  # from the request for a node until its workers join
    pending_workers: int = 1000  # the most workers that are requested and have not joined
    node_workers: tuple[int, int] = (4, 8)
    write_s: float = 0.05  # for a ledger part, in addition to `write_row_s` for each row
    write_row_s: float = 1e-4
    driver_s: float = 0.002  # of the driver's thread for each event: Ray's calls and our own
    tick_s: float = 1.0
    outputs: tuple[int, int] = (500, 4)


@dataclass
class Node:
    """A machine: its workers join together, and it is released with the last of them."""

    number: int
    size: int
    billed_from_s: float
    workers: list[Worker] = field(default_factory=list)
    doomed: bool = False


@dataclass
class Worker:
    """One worker process; `busy` is the spec that it trains since `begun_s`."""

    name: str
    node: Node
    joined_s: float
    busy: str | None = None
    begun_s: float = 0.0
    gone: bool = False  # none of its events reaches the driver any more
    cut_off: bool = False  # reported as lost, and still at its last retrain


@dataclass
class CpuMeter:
    """CPU seconds of this process in the scheduler, in making ledger parts and in writing the story, by chunks of published retrains."""

    chunk: int
    n: int = 0
    scheduling_s: float = 0.0
    encoding_s: float = 0.0
    n_encoded: int = 0
    story_s: float = 0.0
    chunks: list[tuple[float, ...]] = field(default_factory=list)  # seconds per retrain: scheduling, encoding, story

    def published(self, n: int) -> None:
        """Count published retrains; close a chunk that is full."""
        self.n += n
        if self.n >= self.chunk:
            encoding_s = self.encoding_s / self.n_encoded if self.n_encoded else np.nan
            self.chunks.append((self.scheduling_s / self.n, encoding_s, self.story_s / self.n))
            self.n = self.n_encoded = 0
            self.scheduling_s = self.encoding_s = self.story_s = 0.0

    def medians(self) -> tuple[float, float, float]:
        """Return medians over chunks of the seconds per retrain: scheduling, encoding, story."""
        scheduling, encoding, story = np.nanmedian(np.array(self.chunks), axis=0)
        return float(scheduling), float(encoding), float(story)
