from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from joined import device_ids
from ray_tiny_task import tiny_context, tiny_job
from small_cluster import SmallCluster
from tiny_task import tiny_work

from orchestrator.runtime import elastic
from orchestrator.runtime.elastic import ElasticBackend
from orchestrator.runtime.placement import MARKET, Placement
from orchestrator.runtime.pool import PoolOptions
from orchestrator.runtime.ray_worker import Failure, Lost
from orchestrator.scheduling.events import WorkerJoined, WorkerLeft, WorkerLost
from tasks.base import Numerics
from tasks.errors import RefitError

RANGES = [(0, 2), (2, 4), (4, 6), (6, 8)]
MARKETS = {"gradients": "on-demand", "retrains": "spot", "tail": "on-demand"}


class Enough(Exception):  # noqa: N818
    """Raised by who waits."""


class Patience:
    """Calls until it is over."""

    def __init__(self, n_calls: int):
        self.left = n_calls

    def __call__(self) -> None:
        self.left -= 1
        if not self.left:
            raise Enough


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(elastic, "LONGEST_WAIT_S", 0.0)


@pytest.fixture
def cluster():
    return SmallCluster(places=2)


@pytest.fixture
def make(cluster):
    def make(**options: Any) -> ElasticBackend:
        resources = {"num_cpus": 1.0, "num_gpus": 0.0}
        return ElasticBackend(tiny_context(), cluster, PoolOptions(2, resources, **options))

    return make


def markets(cluster) -> list[str | None]:
    return [actor.labels.get(MARKET) for actor in cluster.actors.values()]


# --- the probe -------------------------------------------------------------------------------------------------------


def test_who_waits_for_the_first_worker_is_asked_and_may_have_enough(cluster, make):
    backend = make()
    cluster.free.clear()
    backend.start()
    with pytest.raises(Enough):
        backend.probe(Numerics(), Patience(3))
    backend.close()
    assert not cluster.actors


@pytest.mark.parametrize("n_calls", [1, 3])
def test_who_has_enough_of_a_probe_that_hangs_leaves_a_pool_that_works(cluster, make, n_calls):
    backend = make()
    cluster.hangs = {"probe"}
    backend.start()
    while not device_ids(backend):
        events = backend.wait(0.0)
    with pytest.raises(Enough):
        backend.probe(Numerics(), Patience(n_calls))
    assert events == [WorkerJoined("ray-1")]
    assert backend.wait(0.0) == [WorkerLost("ray-1", "error", "the probe was abandoned")]
    cluster.hangs.clear()
    assert backend.probe(Numerics()).device_model == "a GPU"
    assert backend.wait(0.0) == [WorkerJoined("ray-2")]


def test_a_worker_lost_in_the_probe_is_replaced_and_the_next_one_asked(cluster, make):
    """However often: machines that are taken away are nobody's fault."""
    backend = make()
    cluster.hangs = {"probe"}
    backend.start()

    def lose() -> None:
        [(name, actor)] = cluster.actors.items()
        if name == "ray-5":
            cluster.hangs.clear()
        elif actor.calls[-1][0] == "probe":
            cluster.reply(name, Lost("preempted", "spot"))

    assert backend.probe(Numerics(), lose).device_model == "a GPU"
    told = [e for n in range(1, 5) for e in (WorkerJoined(f"ray-{n}"), WorkerLost(f"ray-{n}", "preempted", "spot"))]
    assert backend.wait(0.0) == [*told, WorkerJoined("ray-5")]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Failure("error", "no driver"), "could not determine its device: no driver"),
        (Lost("error", "died"), "lost .*: died"),
    ],
)
def test_a_probe_that_fails_says_why(cluster, make, answer, problem):
    backend = make()
    cluster.hangs = {"probe"}
    backend.start()

    def reply() -> None:
        for name, actor in cluster.actors.items():
            if actor.calls[-1][0] == "probe":
                cluster.reply(name, answer)

    with pytest.raises(RefitError, match=problem):
        backend.probe(Numerics(), reply)


@pytest.mark.parametrize(
    ("market", "asked"),
    [(MARKETS, None), ({"retrains": "spot"}, None), (dict.fromkeys(MARKETS, "spot"), "spot"), ({}, None)],
)
def test_before_it_is_known_what_comes_first_any_market_will_do_that_some_role_allows(cluster, make, market, asked):
    backend = make(placement=Placement(None, market))
    backend.start()
    backend.probe(Numerics())
    assert markets(cluster) == [asked]
    backend.want(2)
    assert markets(cluster) == [asked, Placement(None, market).labels("tail").get(MARKET)]


def test_what_a_budget_bears_bounds_the_pool_and_does_not_make_a_tail_of_the_rest(cluster, make):
    backend = make(placement=Placement(None, MARKETS))
    backend.start()
    backend.probe(Numerics())
    backend.want(9, 1)
    assert markets(cluster) == [None], "the one that was asked what it runs on"
    backend.want(9, 2.0)
    assert markets(cluster) == [None, "spot"]
    backend.want(2)
    backend.release(next(iter(cluster.actors)))
    backend.want(2)
    assert markets(cluster) == ["on-demand", "on-demand"], "two are left for two workers"


# --- scores ----------------------------------------------------------------------------------------------------------


def test_who_waits_for_a_score_is_asked_and_may_have_enough(cluster, make):
    backend = make()
    backend.start()
    cluster.hangs = {"score"}
    with pytest.raises(Enough):
        list(backend.score(tiny_job(RANGES), Patience(5)))
    assert not cluster.actors, "a range in flight cannot be called back, and nobody is to replace who did it"
    backend.want(1)
    assert isinstance(backend.wait(1.0)[-1], WorkerLost)
    assert backend.wait(1.0) == [WorkerJoined("ray-3")]


def test_a_range_that_takes_too_long_is_lost_with_its_worker_and_after_three_the_stage_says_so(cluster, make):
    backend = make(timeout_s=0.0)
    backend.start()
    cluster.hangs = {"score"}
    with pytest.raises(RefitError, match="scoring train rows 0 to 1 failed 3 times: still running after 0 s"):
        list(backend.score(tiny_job(RANGES)))


def test_gradient_workers_of_another_market_stay_for_the_next_group_and_go_before_the_retrains(cluster, make):
    backend = make(placement=Placement(None, MARKETS))
    backend.want(9)
    backend.start()
    backend.probe(Numerics())
    assert markets(cluster) == ["spot", "spot"]
    assert len(list(backend.score(tiny_job(RANGES)))) == 4
    workers = list(cluster.actors)
    assert markets(cluster) == ["on-demand", "on-demand"]
    assert len(list(backend.score(tiny_job(RANGES)))) == 4
    assert list(cluster.actors) == workers
    backend.start()
    assert not cluster.actors
    backend.want(9)
    assert markets(cluster) == ["spot", "spot"]


def test_no_worker_of_the_retrains_is_kept_while_others_score_whether_it_has_joined_or_not(cluster, make):
    backend = make(placement=Placement(None, MARKETS))
    backend.want(9)
    backend.start()
    backend.wait(0.0)
    cluster.hangs = {"join"}
    assert isinstance(backend.wait(0.0), list)
    scoring = backend.score(tiny_job(RANGES), Patience(3))
    with pytest.raises(Enough):
        next(scoring)
    assert "spot" not in markets(cluster)


def test_the_driver_is_told_of_workers_that_made_room_for_others(cluster, make):
    backend = make(placement=Placement(None, MARKETS))
    backend.want(1)
    backend.start()
    backend.probe(Numerics())
    list(backend.score(tiny_job(RANGES)))
    assert backend.wait(0.0) == [WorkerJoined("ray-1"), WorkerLeft("ray-1")]
    backend.submit("ray-1", tiny_work(), 1)  # on its way when the worker went: no error


@pytest.mark.parametrize(("frozen_trunk", "limit_s"), [("computed", 600.0), ("cached", None), ("cached_half", None)])
def test_workers_that_compute_frozen_layers_may_take_any_time_to_get_ready(cluster, monkeypatch, frozen_trunk, limit_s):
    made: list[PoolOptions] = []
    pool = elastic.Pool
    monkeypatch.setattr(elastic, "Pool", lambda *arguments: (made.append(arguments[2]), pool(*arguments))[1])
    context = replace(tiny_context(), numerics=Numerics(frozen_trunk=frozen_trunk))
    ElasticBackend(context, cluster, PoolOptions(2, {"num_cpus": 1.0, "num_gpus": 0.0})).start()
    assert [options.join_timeout_s for options in made] == [limit_s]
