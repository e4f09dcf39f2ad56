"""Faults, and the books on a campaign that they hit: which retrains are in flight, which are in the ledger."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fault_cluster import LocalCluster
from benchmarks.harness import kill, parts, start, wait_until

DRAIN_S, FULL_S = 10.0, 10.0


@dataclass
class Diary:
    """What the retrains wrote of themselves (benchmarks/fault_recipe.py). `spec_of`: key -> spec id."""

    path: Path
    spec_of: Mapping[str, str]

    def lines(self) -> list[dict]:
        """All lines so far; one that is being written is left out."""
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def starts(self) -> Counter[str]:
        """Attempts by key."""
        return Counter(line["key"] for line in self.lines() if line["event"] == "start")

    def training(self) -> dict[int, str]:
        """Process -> key of what it trains now, as far as the diary tells."""
        now: dict[int, str] = {}
        for line in self.lines():
            if line["event"] == "start":
                now[line["pid"]] = line["key"]
            else:
                now.pop(line["pid"], None)
        return {pid: key for pid, key in now.items() if Path(f"/proc/{pid}").exists()}

    def in_flight(self, output: Path) -> set[str]:
        """Keys that were begun and are not in the ledger: what a driver that dies now has to repeat, at most."""
        finished = finished_now(output)
        return {key for key in self.starts() if self.spec_of.get(key) not in finished}


@dataclass
class Driver:
    """`refit run`, started again whenever it was killed."""

    arguments: tuple[object, ...]
    log: Path
    n_starts: int = 0

    def begin(self) -> None:
        """Start it."""
        self.n_starts += 1
        self.process = start("run", *self.arguments, log=self.log)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9; its actors end with it."""
        kill(self.process.pid)
        self.process.wait()


@dataclass
class Campaign:
    """What faults can reach, and what became of them: `history` has a line a fault, with the retrains it may repeat."""

    cluster: LocalCluster
    driver: Driver
    diary: Diary
    output: Path
    rng: random.Random
    history: list[dict] = field(default_factory=list)
    put_off: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def hit(self, kind: str) -> None:
        """One fault."""
        in_flight = FAULTS[kind](self)
        self.history.append(
            {"fault": kind, "retrains_started": sum(self.diary.starts().values()), "in_flight": in_flight}
        )
        print(self.history[-1], flush=True)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something in a while: by `wait`, since Ray starts nodes in the main thread only."""
        self.put_off.append((time.monotonic() + seconds, action))

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Until `condition` holds or the driver has ended, doing meanwhile what was put off."""
        wait_until(lambda: self._do_what_is_due() or condition() or not self.driver.is_running, timeout_s)

    def settle(self) -> None:
        """Do all that was put off."""
        wait_until(lambda: self._do_what_is_due() or not self.put_off, 60)

    def _do_what_is_due(self) -> bool:
        now = time.monotonic()
        due = [action for at, action in self.put_off if at <= now]
        self.put_off = [(at, action) for at, action in self.put_off if at > now]
        for action in due:
            action()
        return False


def worker_killed(campaign: Campaign) -> int:
    """kill -9 of a process that trains."""
    campaign.wait(lambda: bool(campaign.diary.training()), 120)
    kill(campaign.rng.choice(sorted(campaign.diary.training())))
    return 1


def node_lost(campaign: Campaign) -> int:
    """A node dies; another comes five seconds later."""
    campaign.wait(lambda: bool(campaign.cluster.nodes), 60)
    campaign.cluster.remove(campaign.rng.choice(campaign.cluster.nodes))
    campaign.later(5.0, campaign.cluster.add)
    return 1  # a node has one CPU, so one worker


def node_drained(campaign: Campaign) -> int:
    """A node is announced to go, and goes at its deadline; another comes then."""
    campaign.wait(lambda: bool(campaign.cluster.nodes), 60)
    node = campaign.rng.choice(campaign.cluster.nodes)
    campaign.cluster.drain(node, DRAIN_S)

    def go() -> None:
        if node in campaign.cluster.nodes:  # it may have been lost meanwhile
            campaign.cluster.remove(node)
            campaign.cluster.add()

    campaign.later(DRAIN_S, go)
    return 1


def driver_killed(campaign: Campaign) -> int:
    """kill -9 of the driver, which is started again."""
    in_flight = campaign.diary.in_flight(campaign.output)
    campaign.driver.kill()
    campaign.driver.begin()
    return len(in_flight)


def part_truncated(campaign: Campaign) -> int:
    """While the driver is down, a ledger part loses its second half: its rows have to be done again."""
    in_flight = campaign.diary.in_flight(campaign.output)
    campaign.driver.kill()
    path = campaign.rng.choice(parts(campaign.output))
    n_rows = sum(1 for _ in rows_of(path))
    os.truncate(path, path.stat().st_size // 2)
    campaign.driver.begin()
    campaign.wait(
        lambda: not path.exists(), 300
    )  # the next fault counts the ledger's rows: not before the driver has tidied it
    return len(in_flight) + n_rows


def storage_full(campaign: Campaign) -> int:
    """The file system of the store is full for ten seconds."""
    filler = campaign.output / "filler"
    with open(filler, "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(1 << 16))
        except OSError:
            pass
    until = time.monotonic() + FULL_S
    campaign.wait(lambda: time.monotonic() >= until, 2 * FULL_S)
    filler.unlink()
    return 0


def finished_now(output: Path) -> set[str]:
    """Spec ids in sound parts of the ledger, while a driver may be merging them."""
    import pyarrow as pa

    while True:
        found: set[str] = set()
        try:
            for part in parts(output):
                with suppress(pa.ArrowInvalid):  # cut in half
                    found.update(rows_of(part))
        except FileNotFoundError:  # merged since it was listed
            continue
        return found


def rows_of(part: Path) -> list[str]:
    """Spec ids of a ledger part."""
    import pyarrow.parquet as pq

    return pq.read_table(part, columns=["spec_id"])["spec_id"].to_pylist()


FAULTS: Mapping[str, Callable[[Campaign], int]] = {
    one.__name__: one for one in (worker_killed, node_lost, node_drained, driver_killed, part_truncated, storage_full)
}
