"""What a simulated campaign is made of: conditions, faults, machines, and the meter of the driver's CPU time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Times in seconds; fractions of attempts, or of lost nodes where it says so."""

    between_preemptions_s: float = 180.0  # over the whole fleet, on average
    noticed_frac: float = 0.5  # of lost nodes: announced `notice_s` before
    notice_s: float = 120.0
    detection_s: float = 15.0  # until the loss of a node without notice is seen
    late_frac: float = 0.1  # of nodes without notice: only cut off; what they were at arrives after they were given up
    crashed_frac: float = 0.001  # the attempt raises, or takes its worker with it, in equal parts
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
    boot_s: float = 180.0  # from asking for a node to its workers' joining
    pending_workers: int = 1000  # asked for and not there yet, at most
    node_workers: tuple[int, int] = (4, 8)
    write_s: float = 0.05  # a ledger part: this, and `write_row_s` for each row
    write_row_s: float = 1e-4
    driver_s: float = 0.002  # the driver's thread for each event: Ray's calls and our own
    tick_s: float = 1.0
    outputs: tuple[int, int] = (500, 4)


@dataclass
class Node:
    """A machine: its workers come together, and it goes with the last of them."""

    number: int
    size: int
    billed_from_s: float
    workers: list[Worker] = field(default_factory=list)
    doomed: bool = False


@dataclass
class Worker:
    """One worker process; `busy` is the spec it is at, since `begun_s`."""

    name: str
    node: Node
    joined_s: float
    busy: str | None = None
    begun_s: float = 0.0
    gone: bool = False  # nothing of it reaches the driver any more
    cut_off: bool = False  # given up by the driver, and still at its last retrain


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
        """Count published retrains; a chunk that is full is closed."""
        self.n += n
        if self.n >= self.chunk:
            encoding_s = self.encoding_s / self.n_encoded if self.n_encoded else np.nan
            self.chunks.append((self.scheduling_s / self.n, encoding_s, self.story_s / self.n))
            self.n = self.n_encoded = 0
            self.scheduling_s = self.encoding_s = self.story_s = 0.0

    def medians(self) -> tuple[float, float, float]:
        """Median over chunks of the seconds per retrain: scheduling, encoding, story."""
        scheduling, encoding, story = np.nanmedian(np.array(self.chunks), axis=0)
        return float(scheduling), float(encoding), float(story)
