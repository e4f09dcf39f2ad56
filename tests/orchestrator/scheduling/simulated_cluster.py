"""A cluster in virtual time with faults drawn from a seed: spot nodes of two device types, drains, losses, stragglers, a price."""

import heapq
import itertools

from orchestrator.records import Outcome
from orchestrator.scheduling.events import (
    Completed,
    Failed,
    Finish,
    GiveBack,
    Publish,
    Published,
    Release,
    Submit,
    Tick,
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from orchestrator.scheduling.scheduler import Scheduler
from tasks.seeds import generator
from tests.orchestrator.scheduling.invariants import check_invariants

WORKERS_PER_NODE, POLL_S, BOOT_S = 4, 5.0, 20.0


class Cluster:
    """Nodes boot while more workers are in demand than exist, and are removed once all their workers are released.

    A node lives about `life_s`; a fraction `slow` of the attempts takes 20 times as long. `large` specs run out of
    memory if their device is shared, `too_large` specs always. `budget_s` is in seconds of node time; every tick gets
    the time that the rest of the budget lasts with the present number of nodes.
    """

    def __init__(
        self, seed, order, *, n_nodes, life_s=120.0, slow=0.0, large=(), too_large=(), budget_s=None, **options
    ):
        self.rng, self.scheduler = generator(seed, "cluster"), Scheduler(order, **options)
        self.life_s, self.slow = life_s, slow
        self.n_nodes, self.large, self.too_large = n_nodes, set(large), set(too_large)
        self.budget_s, self.spent_s = budget_s, 0.0
        self.now_s, self.queue, self.ties = 0.0, [], itertools.count()
        self.nodes, self.node_names = {}, itertools.count()  # node -> its workers
        self.doing = {}  # worker -> (spec, serial of the attempt)
        self.serials, self.submits, self.parts, self.finish = itertools.count(), [], [], None

    # --- the loop of a driver ----------------------------------------------------------------------------------------

    def run(self, until_s=1e6):
        self.tick()
        while self.finish is None:
            assert self.now_s < until_s, "no end"
            if self.queue and self.queue[0][0] <= self.now_s + POLL_S:
                self.pass_to(self.queue[0][0])
                happened = heapq.heappop(self.queue)[2]
                self.tick()
                happened()
                check_invariants(self.scheduler)
            else:
                self.pass_to(self.now_s + POLL_S)
                self.tick()
        return self

    def pass_to(self, time_s):
        time_s = max(time_s, self.now_s)
        self.spent_s += len(self.nodes) * (time_s - self.now_s)
        self.now_s = time_s

    def tick(self):
        left_s = None if self.budget_s is None else (self.budget_s - self.spent_s) / max(len(self.nodes), 1)
        self.send(Tick(self.now_s, left_s))
        while len(self.nodes) < self.n_nodes and WORKERS_PER_NODE * len(self.nodes) < self.scheduler.demand:
            self.boot()

    def send(self, event):
        for instruction in self.scheduler.handle(event):
            self.obey(instruction)

    def obey(self, instruction):
        match instruction:
            case Submit(worker, spec_id, _):
                self.begin(worker, spec_id)
            case GiveBack(worker, spec_id):
                if self.rng.uniform() < 0.5:
                    self.after(1.0, self.ending(worker, Failed(worker, spec_id, "preempted", "given back", 1.0)))
            case Release(worker):
                self.doing.pop(worker, None)
                self.remove(worker)
            case Publish(spec_ids):
                self.parts.append(spec_ids)
                self.after(self.rng.uniform(0.0, 3.0), lambda: self.send(Published(spec_ids)))
            case Finish():
                self.finish = instruction

    def after(self, seconds, happening):
        heapq.heappush(self.queue, (self.now_s + seconds, next(self.ties), happening))

    # --- nodes -------------------------------------------------------------------------------------------------------

    def boot(self):
        node = f"node{next(self.node_names)}"
        self.nodes[node] = set()
        self.after(BOOT_S, lambda: self.join(node))
        life_s = BOOT_S + self.rng.exponential(self.life_s)
        if self.rng.uniform() < 0.5:
            self.after(life_s - min(60.0, life_s - BOOT_S), lambda: self.drain(node))
        self.after(life_s, lambda: self.lose(node))

    def join(self, node):
        for number in range(WORKERS_PER_NODE):
            self.nodes[node].add(f"{node}-{number}")
            self.send(WorkerJoined(f"{node}-{number}", (f"{node}:{number % 2}",)))

    def drain(self, node):
        for worker in sorted(self.nodes.get(node, ())):
            self.send(WorkerDraining(worker, 60.0))

    def lose(self, node):
        for worker in sorted(self.nodes.pop(node, ())):
            self.doing.pop(worker, None)
            self.send(WorkerLost(worker, "node_lost", "the node is gone"))

    def remove(self, worker):
        node = worker.split("-")[0]
        self.nodes[node].remove(worker)
        if not self.nodes[node]:
            del self.nodes[node]

    # --- retrains ----------------------------------------------------------------------------------------------------

    def begin(self, worker, spec_id):
        assert worker not in self.doing
        self.submits.append(spec_id)
        company = [spec for name, (spec, _) in self.doing.items() if self.device(name) == self.device(worker)]
        assert not (set(company) & self.large and spec_id in self.large and self.scheduler.attempts(spec_id) > 1)
        self.doing[worker] = spec_id, next(self.serials)
        seconds = float(self.rng.lognormal(3.0, 0.4)) * (20.0 if self.rng.uniform() < self.slow else 1.0)
        if spec_id in self.too_large or (spec_id in self.large and company):
            self.after(1.0, self.ending(worker, Failed(worker, spec_id, "out_of_memory", "CUDA out of memory", 1.0)))
        elif self.rng.uniform() < 0.03:
            self.after(seconds, self.ending(worker, WorkerLeft(worker)))
        else:
            self.after(seconds, self.ending(worker, Completed(worker, Outcome(spec_id, "ok", seconds=seconds))))

    def device(self, worker):
        node, number = worker.split("-")
        return node, int(number) % 2

    def ending(self, worker, event):
        """Return an action that ends the present attempt with `event`, if it is still running by then."""
        attempt = self.doing.get(worker)

        def happens():
            if attempt is not None and self.doing.get(worker) == attempt:
                del self.doing[worker]
                if isinstance(event, WorkerLeft):
                    self.remove(worker)
                self.send(event)

        return happens
