from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from small_cluster import SmallCluster
from tiny_task import tiny_work

from orchestrator.records import Outcome
from orchestrator.runtime.placement import Placement
from orchestrator.runtime.pool import Pool, PoolOptions
from orchestrator.runtime.ray_calls import Ending, Left
from orchestrator.runtime.ray_worker import Attempted, Failure, Lost
from orchestrator.runtime.starts import NoWorkerError
from tasks.errors import RefitError


class Later:
    """The monotonic clock, put forward."""

    def __init__(self, by_s: float):
        self.by_s, self._clock = by_s, time.monotonic

    def __call__(self) -> float:
        return self._clock() + self.by_s


@pytest.fixture
def cluster():
    return SmallCluster(places=2)


@pytest.fixture
def make(cluster):
    def make(**options: Any) -> Pool:
        resources = {"num_cpus": 1.0, "num_gpus": 0.0}
        options = {"workers": 8, "pending_workers": 3, "drain_poll_s": 0.0, **options}
        return Pool(cluster, "shared", PoolOptions(resources=resources, **options), "retrains", count(1))

    return make


def happenings(pool: Pool, n: int) -> list[Any]:
    seen: list[Any] = []
    while len(seen) < n:
        found = pool.poll(0.0)
        seen += found
        assert found or pool.poll(0.0), seen
    return seen


def joined(pool: Pool, n: int) -> list[str]:
    for _ in range(20):
        pool.poll(0.0)
    return [slot.name for slot in pool.slots.values() if slot.has_joined][:n]


def test_no_more_actors_wait_for_a_place_than_allowed_however_many_are_wanted(cluster, make):
    pool = make()
    pool.want(100)
    assert len(cluster.actors) == 3
    assert len(joined(pool, 9)) == 2
    assert len(cluster.actors) == 2 + 3
    cluster.free += [f"late-{i}" for i in range(20)]
    assert len(joined(pool, 9)) == 8
    assert len(cluster.actors) == 8


def test_actors_without_a_place_are_taken_back_when_demand_falls_and_workers_stay(cluster, make):
    pool = make()
    pool.want(8)
    workers = joined(pool, 2)
    pool.want(1)
    assert list(cluster.actors) == workers
    pool.want(0)
    assert list(cluster.actors) == workers


def test_a_worker_let_go_frees_its_place_without_an_event(cluster, make):
    pool = make()
    pool.want(2)
    first, second = joined(pool, 2)
    pool.want(1)
    pool.release(first)
    assert list(cluster.actors) == [second]
    assert pool.poll(0.0) == []
    with pytest.raises(ValueError, match="not a worker of"):
        pool.release(first)


def test_a_worker_to_be_replaced_is_reported_as_ending_before_its_result(cluster, make):
    pool, work = make(), tiny_work()
    pool.want(1)
    [worker] = joined(pool, 1)
    pool.submit(worker, work, 1)
    outcome = Outcome(work.spec_id, "ok")
    cluster.reply(worker, Attempted(outcome, must_be_replaced=True))
    assert [h.what for h in pool.poll(0.0)] == [Ending(math.inf), outcome]
    assert [h.what for h in pool.poll(0.0)] == [Left()]
    [other] = joined(pool, 1)
    assert other != worker


def test_a_draining_node_is_told_of_once_per_worker_and_a_death_there_is_a_preemption(cluster, make):
    pool, work = make(), tiny_work()
    pool.want(2)
    worker, _ = joined(pool, 2)
    pool.submit(worker, work, 1)
    cluster.drains[cluster.places[worker]] = time.time() + 1000
    [first] = pool.poll(0.0)
    assert (first.worker, first.task) == (worker, work.spec_id)
    assert 900 < first.what.seconds_left <= 1000
    assert pool.poll(0.0) == []
    cluster.drains.clear()
    cluster.reply(worker, Lost("error", "died"))
    assert [(h.worker, h.what) for h in pool.poll(0.0)] == [(worker, Lost("preempted", "died"))]


def test_a_death_on_a_node_that_is_gone_is_the_nodes_and_elsewhere_the_workers(cluster, make):
    pool = make(workers=2)
    pool.want(2)
    for kind, is_dead in (("error", False), ("node_lost", True)):
        worker = joined(pool, 1)[0]
        pool.submit(worker, tiny_work(), 1)
        cluster.dead = {cluster.places[worker]} if is_dead else set()
        cluster.reply(worker, Lost("error", "died"))
        assert [h.what for h in pool.poll(0.0)] == [Lost(kind, "died")]


def test_a_worker_that_retrains_is_asked_by_the_number_of_its_attempt_and_an_idle_one_is_not(cluster, make):
    pool, work = make(), tiny_work()
    pool.want(1)
    [worker] = joined(pool, 1)
    pool.give_back(worker)
    assert [method for method, _ in cluster.actors[worker].calls] == ["arrive", "join"]
    pool.submit(worker, work, 1)
    pool.give_back(worker)
    assert cluster.actors[worker].calls[-2:] == [("retrain", (1, work, 1)), ("give_back", (1,))]


@pytest.mark.parametrize(("kind", "ends"), [("error", True), ("preempted", False), ("node_lost", False)])
def test_only_starts_that_fail_by_themselves_use_up_the_attempts(cluster, make, kind, ends):
    pool = make(pending_workers=1)
    cluster.refuses = Failure(kind, "no space left")
    pool.want(1)
    if ends:
        with pytest.raises(RefitError, match="no worker can be started: no space left"):
            joined(pool, 1)
    else:
        assert joined(pool, 1) == []
        cluster.refuses = None
        assert len(joined(pool, 1)) == 1


def test_a_pool_that_nobody_wants_anything_of_may_be_empty_for_ever(make):
    pool = make(start_timeout_s=0.0)
    assert pool.poll(0.0) == []
    pool.want(1)
    with pytest.raises(NoWorkerError, match="within 0 s: each needs 1 CPU, the cluster has 4 CPU and 4 GPU"):
        pool.poll(0.0)


def test_with_workers_at_work_failed_starts_are_logged_and_tried_again_one_by_one_after_a_pause(
    cluster, make, caplog, monkeypatch
):
    pool = make()
    pool.want(1)
    [worker] = joined(pool, 1)
    cluster.refuses = Failure("error", "no space left")
    cluster.free += ["node-2", "node-3"]
    with caplog.at_level(logging.WARNING):
        pool.want(2)
        joined(pool, 1)
    assert [record.getMessage() for record in caplog.records] == [
        f"worker ray-{n} could not be started (error): no space left" for n in (2, 3, 4)
    ]
    pool.want(4)
    assert list(cluster.actors) == [worker]
    monkeypatch.setattr(time, "monotonic", later := Later(29.0))
    pool.poll(0.0)
    assert list(cluster.actors) == [worker]
    later.by_s = 31.0
    pool.poll(0.0)
    assert list(cluster.actors) == [worker, "ray-5"], "one is tried before there are more"
    pool.poll(0.0)
    later.by_s, cluster.refuses = 80.0, None
    pool.poll(0.0)
    assert list(cluster.actors) == [worker], "the second pause is a minute"
    later.by_s = 95.0
    assert len(joined(pool, 9)) == 4


def test_once_its_last_worker_has_gone_a_pool_tries_anew(cluster, make):
    pool = make()
    pool.want(1)
    [worker] = joined(pool, 1)
    cluster.refuses = Failure("error", "no space left")
    cluster.free += ["node-2", "node-3"]
    pool.want(4)
    assert joined(pool, 9) == [worker]
    cluster.refuses = None
    assert joined(pool, 9) == [worker], "in a pause"
    pool.release(worker)
    assert len(joined(pool, 9)) == 4


def test_a_placed_actor_that_never_gets_ready_is_given_up(cluster, make):
    pool = make(join_timeout_s=0.0, pending_workers=1)
    cluster.hangs = {"join"}
    pool.want(1)
    with pytest.raises(
        RefitError, match="no worker can be started: not ready for work 0 s after it was placed on a node"
    ):
        joined(pool, 1)
    assert len(cluster.free) == 2, "its place is free"


def test_an_actor_that_prepares_without_a_limit_is_waited_for_and_one_without_a_place_is_not(cluster, make):
    pool = make(join_timeout_s=None, start_timeout_s=0.0)
    cluster.hangs = {"join"}
    pool.want(1)
    with pytest.raises(NoWorkerError, match="within 0 s"):
        pool.poll(0.0)
    pool = make(join_timeout_s=None, start_timeout_s=0.01)
    pool.want(1)
    pool.poll(0.0)
    time.sleep(0.02)
    assert [pool.poll(0.0) for _ in range(3)] == [[]] * 3
    [slot] = pool.slots.values()
    assert slot.place is not None
    assert not slot.has_joined


def test_the_nodes_are_asked_for_once_however_many_workers_are_lost_with_them(cluster, make):
    pool = make(workers=2)
    pool.want(2)
    workers = joined(pool, 2)
    cluster.dead = set(cluster.places.values())
    for worker in workers:
        pool.submit(worker, tiny_work(), 1)
        cluster.reply(worker, Lost("error", "died"))
    n_before = cluster.n_listed
    assert [h.what for h in pool.poll(0.0)] == [Lost("node_lost", "died")] * 2
    assert cluster.n_listed == n_before + 1


def test_a_cluster_that_does_not_grow_is_warned_of_once(cluster, make, caplog):
    pool = make(stuck_after_s=0.0, placement=Placement("A10G", {"retrains": "spot"}))
    cluster.free.clear()
    pool.want(2)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            pool.poll(0.0)
    labels = "ray.io/accelerator-type=A10G, ray.io/market-type=spot"
    assert [record.getMessage() for record in caplog.records] == [
        f"2 workers have waited 0 min to be placed on a node; each needs 1 CPU on nodes labelled {labels}, the cluster has 4 CPU and 4 GPU"
    ]


def test_when_the_tail_begins_workers_stay_and_requests_move_to_its_market(cluster, make):
    market = {"retrains": "spot", "tail": "on-demand"}
    pool = make(placement=Placement(None, market))
    pool.want(4)
    joined(pool, 2)
    assert [a.labels["ray.io/market-type"] for a in cluster.actors.values()] == ["spot"] * 4
    pool.want(4, "tail")
    assert [a.labels["ray.io/market-type"] for a in cluster.actors.values()] == [
        "spot",
        "spot",
        "on-demand",
        "on-demand",
    ]
    names = list(cluster.actors)
    pool.want(4, "tail")
    assert list(cluster.actors) == names, "asked for once"


def test_workers_at_hand_join_again_with_what_is_wrong_with_them(cluster, make):
    pool = make()
    pool.want(1)
    [worker] = joined(pool, 1)
    cluster.drains[cluster.places[worker]] = time.time() + 1000
    [first] = pool.poll(0.0)
    assert [h.worker for h in pool.announce_workers()] == [worker]
    [second] = pool.poll(0.0)
    assert replace(second, what=first.what) == first


def test_a_node_that_drains_until_nobody_knows_when_has_half_a_minute(cluster, make):
    pool = make()
    pool.want(1)
    [worker] = joined(pool, 1)
    cluster.drains[cluster.places[worker]] = 0.0
    [first] = pool.poll(0.0)
    assert 20 < first.what.seconds_left <= 30
    pool.announce_workers()
    [second] = pool.poll(0.0)
    assert second.what.seconds_left < first.what.seconds_left, "counted from when it was seen first"
