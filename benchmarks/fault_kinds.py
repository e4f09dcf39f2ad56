"""The kinds of faults, and the state of the campaign that they hit: which retrains are in flight, which are in the ledger."""

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
    """The log that the retrains write (benchmarks/fault_recipe.py). `spec_of`: key -> spec id."""

    path: Path
    spec_of: Mapping[str, str]

    def lines(self) -> list[dict]:
        """Return all complete lines so far."""
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def starts(self) -> Counter[str]:
        """Return the number of attempts by key."""
        return Counter(line["key"] for line in self.lines() if line["event"] == "start")

    def training(self) -> dict[int, str]:
        """Return process -> key of what it trains now, according to the diary."""
        now: dict[int, str] = {}
        for line in self.lines():
            if line["event"] == "start":
                now[line["pid"]] = line["key"]
            else:
                now.pop(line["pid"], None)
        return {pid: key for pid, key in now.items() if Path(f"/proc/{pid}").exists()}

    def in_flight(self, output: Path) -> set[str]:
        """Return the keys that were started and are not in the ledger, which a driver that dies now repeats at most."""
        finished = finished_now(output)
        return {key for key in self.starts() if self.spec_of.get(key) not in finished}


@dataclass
class Driver:
    """`refit run`, which is restarted after every kill."""

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
        """Send kill -9; its actors end with it."""
        kill(self.process.pid)
        self.process.wait()


@dataclass
class Campaign:
    """What faults can hit, and their outcome: `history` has one line per fault, with the number of retrains it may repeat."""

    cluster: LocalCluster
    driver: Driver
    diary: Diary
    output: Path
    rng: random.Random
    history: list[dict] = field(default_factory=list)
    put_off: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def hit(self, kind: str) -> None:
        """Cause one fault."""
        in_flight = FAULTS[kind](self)
        self.history.append(
            {"fault": kind, "retrains_started": sum(self.diary.starts().values()), "in_flight": in_flight}
        )
        print(self.history[-1], flush=True)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Schedule an action, which `wait` runs, because Ray starts nodes in the main thread only."""
        self.put_off.append((time.monotonic() + seconds, action))

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `condition` holds or the driver has ended, and run due actions meanwhile."""
        wait_until(lambda: self._do_what_is_due() or condition() or not self.driver.is_running, timeout_s)

    def settle(self) -> None:
        """Run all scheduled actions."""
        wait_until(lambda: self._do_what_is_due() or not self.put_off, 60)

    def _do_what_is_due(self) -> bool:
        now = time.monotonic()
        due = [action for at, action in self.put_off if at <= now]
        self.put_off = [(at, action) for at, action in self.put_off if at > now]
        for action in due:
            action()
        return False


def worker_killed(campaign: Campaign) -> int:
    """Send kill -9 to a process that trains."""
    campaign.wait(lambda: bool(campaign.diary.training()), 120)
    kill(campaign.rng.choice(sorted(campaign.diary.training())))
    return 1


def node_lost(campaign: Campaign) -> int:
    """Kill a node; another joins five seconds later."""
    campaign.wait(lambda: bool(campaign.cluster.nodes), 60)
    campaign.cluster.remove(campaign.rng.choice(campaign.cluster.nodes))
    campaign.later(5.0, campaign.cluster.add)
    return 1  # a node has one CPU, so it has one worker


def node_drained(campaign: Campaign) -> int:
    """Announce the end of a node; it is removed at its deadline, and another joins."""
    campaign.wait(lambda: bool(campaign.cluster.nodes), 60)
    node = campaign.rng.choice(campaign.cluster.nodes)
    campaign.cluster.drain(node, DRAIN_S)

    def go() -> None:
        if node in campaign.cluster.nodes:  # the node may have been lost meanwhile
            campaign.cluster.remove(node)
            campaign.cluster.add()

    campaign.later(DRAIN_S, go)
    return 1


def driver_killed(campaign: Campaign) -> int:
    """Send kill -9 to the driver and start it again."""
    in_flight = campaign.diary.in_flight(campaign.output)
    campaign.driver.kill()
    campaign.driver.begin()
    return len(in_flight)


def part_truncated(campaign: Campaign) -> int:
    """Cut the second half of a ledger part while the driver is down, so that its rows have to be repeated."""
    in_flight = campaign.diary.in_flight(campaign.output)
    campaign.driver.kill()
    path = campaign.rng.choice(parts(campaign.output))
    n_rows = sum(1 for _ in rows_of(path))
    os.truncate(path, path.stat().st_size // 2)
    campaign.driver.begin()
    # the next fault counts the ledger's rows, so it must wait until the driver has removed the damaged part
    campaign.wait(lambda: not path.exists(), 300)
    return len(in_flight) + n_rows


def storage_full(campaign: Campaign) -> int:
    """Fill the file system of the store for ten seconds."""
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
    """Return the spec ids in intact parts of the ledger, while a driver may be merging parts."""
    import pyarrow as pa

    while True:
        found: set[str] = set()
        try:
            for part in parts(output):
                with suppress(pa.ArrowInvalid):  # cut in half by `part_truncated`
                    found.update(rows_of(part))
        except FileNotFoundError:  # merged since the parts were listed
            continue
        return found


def rows_of(part: Path) -> list[str]:
    """Return the spec ids of a ledger part."""
    import pyarrow.parquet as pq

    return pq.read_table(part, columns=["spec_id"])["spec_id"].to_pylist()


FAULTS: Mapping[str, Callable[[Campaign], int]] = {
    one.__name__: one for one in (worker_killed, node_lost, node_drained, driver_killed, part_truncated, storage_full)
}
