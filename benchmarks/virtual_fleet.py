"""A fleet of workers in virtual time, under the real scheduler: nodes join and leave, attempts crash, straggle and arrive late.

The clock is a number; nothing sleeps. Real are all calls of `Scheduler.handle`, and the rows of a ledger part and their
encoding.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import count

import numpy as np

from benchmarks.virtual_parts import Conditions, CpuMeter, Node, Worker
from orchestrator.records import LedgerRow, Outcome, Work
from orchestrator.runtime.story import StoryWriter, WriteStories
from orchestrator.scheduling.events import (
    Completed,
    Event,
    Failed,
    Finish,
    GiveBack,
    Instruction,
    Publish,
    Published,
    Release,
    Submit,
    Tick,
    WorkerDraining,
    WorkerJoined,
    WorkerLost,
)
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.ledger_parts import encode_rows, index_of

COMMITTED_AT = "2025-01-01T00:00:00.000000+00:00"
SAMPLED_ROWS = 10_000  # encoding is timed on about this number of rows, spread over the whole campaign


class VirtualClock:
    """The time of a fleet as its driver would see it."""

    def __init__(self, fleet: Fleet):
        self._fleet = fleet

    def now(self) -> float:
        return self._fleet.now_s

    def utc(self) -> datetime:
        return datetime.fromisoformat(COMMITTED_AT) + timedelta(seconds=self._fleet.now_s)

    def sleep(self, seconds: float) -> None:
        raise NotImplementedError("nothing sleeps in virtual time")


class Fleet:
    """Runs `works` to the end of the campaign; afterwards `seconds` and `counts` hold the use of the time."""

    def __init__(
        self, conditions: Conditions, works: Mapping[str, Work], scheduler: Scheduler, write: WriteStories | None = None
    ):
        self.conditions, self.faults, self.works, self.scheduler = conditions, conditions.faults, works, scheduler
        self.random = random.Random(conditions.seed)
        generator = np.random.default_rng(conditions.seed)
        lengths = generator.lognormal(np.log(conditions.median_s), conditions.sigma, len(works))
        self.length_s = dict(zip(works, lengths.tolist(), strict=True))
        shapes = generator.normal(size=(64, *conditions.outputs))
        self.outputs = [{"test": array} for array in shapes.astype(np.float32)]
        self.now_s = self.driver_free_s = 0.0
        self.demand = 0
        self.seconds: Counter[str] = Counter()  # worker time by its use
        self.counts: Counter[str] = Counter()
        self.story = StoryWriter(scheduler, works, write, VirtualClock(self))
        self.cpu = CpuMeter(max(1, len(works) // 50))
        self.at_tail: dict[str, float] = {}  # state when the last waiting spec was submitted
        self.nodes: list[Node] = []
        self._heap: list[tuple[float, int, Callable, tuple]] = []
        self._serial, self._name = count(), count(1)
        self._workers: dict[str, Worker] = {}
        self._booting = 0
        self._outcomes: dict[str, Outcome] = {}
        self._finish: Finish | None = None

    def run(self) -> None:
        """Run from an empty fleet to Finish.

        Raises RuntimeError if no event is left before Finish, or if the campaign is not complete.
        """
        self._tick()
        if self.faults:
            self._later(self.random.expovariate(1 / self.faults.between_preemptions_s), self._preempt)
        while self._finish is None:
            if not self._heap:
                raise RuntimeError("no event is left, and the campaign has not finished")
            self.now_s, _, happen, arguments = heapq.heappop(self._heap)
            happen(*arguments)
        for worker in list(self._workers.values()):
            self._leave(worker)
        if not self._finish.complete:
            raise RuntimeError("the campaign ended incomplete")

    def _later(self, delay_s: float, happen: Callable, *arguments: object) -> None:
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._serial), happen, arguments))

    # --- the driver's loop -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._handle(())
        self._grow()
        self._later(self.conditions.tick_s, self._tick)

    def _handle(self, events: Iterable[Event]) -> None:
        """Run one round of the driver: a tick, the events, and the instructions of the scheduler."""
        for event in (Tick(self.now_s), *events):
            begun = time.process_time()
            instructions = self.scheduler.handle(event)
            self.demand = self.scheduler.demand
            self.cpu.scheduling_s += time.process_time() - begun
            for instruction in instructions:
                self._execute(instruction)
        if not self.at_tail and not self.scheduler.count("waiting"):
            self._note_tail()

    def _execute(self, instruction: Instruction) -> None:
        match instruction:
            case Submit(name, spec_id):
                self._begin(self._workers.get(name), spec_id)
            case Publish(spec_ids):
                self._publish(spec_ids)
            case Release(name):
                if name in self._workers:  # otherwise the event of its loss follows
                    self.counts["released"] += 1
                    self._leave(self._workers[name])
            case GiveBack():
                self.counts["asked back"] += 1  # these recipes cannot store their progress, so nothing happens
            case Finish():
                self._finish = instruction

    def _publish(self, spec_ids: tuple[str, ...]) -> None:
        conditions, n = self.conditions, len(spec_ids)
        self.counts["parts"] += 1
        if self.random.random() < SAMPLED_ROWS / len(self.works):
            begun = time.process_time()
            rows = [self._row(spec_id) for spec_id in spec_ids]
            self.counts["encoded bytes"] += len(encode_rows(rows, quick=True))
            index_of(rows)  # as Ledger.publish does
            self.cpu.encoding_s += time.process_time() - begun
            self.cpu.n_encoded += n
            self.counts["encoded rows"] += n
        self._later(conditions.write_s + n * conditions.write_row_s, self._published, spec_ids)

    def _row(self, spec_id: str) -> LedgerRow:
        work, outcome = self.works[spec_id], self._outcomes.get(spec_id)
        outcome = outcome or Outcome(spec_id, "quarantined", error=self.scheduler.quarantined[spec_id])
        return LedgerRow(
            outcome, work.spec.json, work.edit, self.scheduler.attempts(spec_id), COMMITTED_AT, "0123456789abcdef"
        )

    def _published(self, spec_ids: tuple[str, ...]) -> None:
        for spec_id in spec_ids:
            self._outcomes.pop(spec_id, None)
        self._handle([Published(spec_ids)])
        begun = time.process_time()
        self.story.write()
        self.cpu.story_s += time.process_time() - begun
        self.cpu.published(len(spec_ids))

    def _note_tail(self) -> None:
        busy = sum(self.now_s - w.begun_s for w in self._workers.values() if w.busy)
        joined = sum(self.now_s - w.joined_s for w in self._workers.values())
        self.at_tail = {
            "at_s": self.now_s,
            "useful_s": self.seconds["useful"] + max(0.0, busy),
            "provisioned_s": self.seconds["provisioned"] + joined,
        }

    # --- attempts ----------------------------------------------------------------------------------------------------

    def _begin(self, worker: Worker | None, spec_id: str) -> None:
        self.driver_free_s = max(self.driver_free_s, self.now_s) + self.conditions.driver_s
        self.counts["attempts"] += 1
        if worker is None:
            return  # the event of its loss follows and ends this attempt
        worker.busy, worker.begun_s = spec_id, self.driver_free_s
        if worker.gone:
            return
        length_s, end = self.length_s[spec_id], self._complete
        if self.faults and self.random.random() < self.faults.crashed_frac:
            length_s, end = length_s * self.random.random(), self.random.choice((self._raise, self._crash))
        elif self.faults and self.random.random() < self.faults.straggling_frac:
            length_s *= self.faults.straggling_factor
            self.counts["stragglers"] += 1
        self._later(self.driver_free_s - self.now_s + length_s, end, worker, spec_id)

    def _complete(self, worker: Worker, spec_id: str) -> None:
        if worker.gone or worker.busy != spec_id:
            return
        counts = self.scheduler.accepts(spec_id)
        self._end(worker, "useful" if counts else "duplicate", self.length_s[spec_id])
        outputs = self.outputs[int(spec_id[:4], 16) % len(self.outputs)]
        seconds = self.length_s[spec_id]
        outcome = Outcome(spec_id, "ok", outputs, {"loss": 0.5}, None, seconds, worker.name, "NVIDIA A10G")
        if counts:
            self._outcomes[spec_id] = outcome
        if worker.cut_off:
            self._leave(worker)
        self._handle([Completed(worker.name, outcome)])

    def _raise(self, worker: Worker, spec_id: str) -> None:
        if not worker.gone and worker.busy == spec_id:
            self._end(worker, "crashed")
            if worker.cut_off:
                self._leave(worker)
            self._handle([Failed(worker.name, spec_id, "error", "RuntimeError: simulated")])

    def _crash(self, worker: Worker, spec_id: str) -> None:
        if not worker.gone and worker.busy == spec_id:
            self._end(worker, "crashed")
            self._leave(worker)
            if not worker.node.doomed:  # the process is restarted on the same node
                self._later(10.0, self._join, worker.node)
            self._handle([WorkerLost(worker.name, "error", "exit code 1")])

    def _end(self, worker: Worker, kind: str, useful_s: float = 0.0) -> None:
        """End an attempt; the time beyond `useful_s` (a straggler's delay) is counted separately."""
        taken_s = max(0.0, self.now_s - worker.begun_s)
        if kind == "useful":
            self.seconds["useful"] += useful_s
            self.seconds["straggling"] += taken_s - useful_s
        else:
            self.seconds[kind] += taken_s
        worker.busy = None

    # --- machines ----------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Request machines until the fleet, including machines that boot, is as large as there is work for."""
        missing = min(self.demand, self.conditions.workers) - len(self._workers) - self._booting
        missing = min(missing, self.conditions.pending_workers - self._booting)
        while missing > 0:
            size = min(missing, self.random.randint(*self.conditions.node_workers))
            node = Node(len(self.nodes), size, self.now_s)
            self.nodes.append(node)
            self._later(self.conditions.boot_s, self._boot, node)
            self._booting += size
            missing -= size

    def _boot(self, node: Node) -> None:
        self._booting -= node.size
        for _ in range(node.size):
            self._join(node)

    def _join(self, node: Node) -> None:
        if node.doomed:
            return
        worker = Worker(f"w{next(self._name)}", node, self.now_s)
        self._workers[worker.name] = worker
        node.workers.append(worker)
        self._handle([WorkerJoined(worker.name, (f"{node.number}:{worker.name}",))])

    def _leave(self, worker: Worker) -> None:
        if self._workers.pop(worker.name, None) is None:
            return
        if worker.busy:
            self._end(worker, "lost")
        self.seconds["provisioned"] += self.now_s - worker.joined_s
        worker.gone = True
        worker.node.workers.remove(worker)
        if not worker.node.workers:
            self.seconds["billed"] += worker.node.size * (self.now_s - worker.node.billed_from_s)
            worker.node.billed_from_s = self.now_s

    def _preempt(self) -> None:
        faults = self.faults
        assert faults is not None
        self._later(self.random.expovariate(1 / faults.between_preemptions_s), self._preempt)
        alive = [node for node in self.nodes if node.workers and not node.doomed]
        if not alive:
            return
        node = self.random.choice(alive)
        node.doomed = True
        self.counts["preemptions"] += 1
        if self.random.random() < faults.noticed_frac:
            self._handle([WorkerDraining(worker.name, faults.notice_s) for worker in list(node.workers)])
            self._later(faults.notice_s, self._take, node)
        elif self.random.random() < faults.late_frac:
            self._later(faults.detection_s, self._cut_off, node)
        else:
            lost = list(node.workers)
            for worker in lost:
                worker.gone = True
            self._later(faults.detection_s, self._miss, lost)

    def _take(self, node: Node) -> None:
        self._lose(list(node.workers), "preempted")

    def _miss(self, lost: list[Worker]) -> None:
        self._lose(lost, "node_lost")

    def _lose(self, lost: list[Worker], kind: str) -> None:
        for worker in lost:
            self._leave(worker)
        self._handle([WorkerLost(worker.name, kind, "the node is gone") for worker in lost])  # type: ignore[arg-type]

    def _cut_off(self, node: Node) -> None:
        """Report the node as lost although it lives, so that the results of its current retrains still arrive."""
        cut_off = list(node.workers)
        self.counts["late results"] += sum(w.busy is not None for w in cut_off)
        self._handle([WorkerLost(worker.name, "node_lost", "unreachable") for worker in cut_off])
        for worker in cut_off:
            worker.cut_off = True
            if worker.busy is None:
                self._leave(worker)
