from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray_tiny_task
from joined import device_ids
from ray_fixtures import events_until, join, ray_of_our_own, results, run_all, wait_until
from ray_tiny_task import HANGS, WatchedRecipe, WatchedTask, tiny_context, tiny_job
from tiny_task import make_context, tiny_work, tiny_works

from orchestrator.runtime.local import LocalBackend
from orchestrator.runtime.ray_backend import RayBackend
from orchestrator.scheduling.events import WorkerJoined, WorkerLost
from tasks.errors import RefitError
from tests.contracts.backend_contract import BackendContract

pytestmark = pytest.mark.slow

RANGES = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12)]


@pytest.fixture(scope="module", autouse=True)
def our_ray():
    with ray_of_our_own(num_cpus=4, num_gpus=2):
        yield


@pytest.fixture(scope="module")
def hang_in(tmp_path_factory):
    return tmp_path_factory.mktemp("hang")


@pytest.fixture(scope="module")
def context(hang_in):
    return tiny_context(WatchedTask(recipe=WatchedRecipe(hang_in=str(hang_in))), threads=2)


@pytest.fixture(scope="module")
def shared(context):
    pool = RayBackend(context, workers=2)
    join(pool, 2)
    yield pool
    pool.close()


@pytest.fixture
def pool(shared):
    """Two workers at hand; what happened to them in other tests is over."""
    shared.want(2)
    wait_until(lambda: shared.wait(0.1) == [] and len(device_ids(shared)) == 2)
    shared.start()
    assert [type(event) for event in shared.wait(1.0)] == [WorkerJoined, WorkerJoined]
    return shared


@pytest.fixture
def backend(context):
    """Makes backends, and closes them."""
    made = []

    def make(of=None, **options):
        made.append(RayBackend(of or replace(context, task=replace(context.task)), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


class TestRayBackend(BackendContract):
    context = staticmethod(make_context)
    works = staticmethod(tiny_works)
    survives_crash = True

    @pytest.fixture
    def make_backend(self, backend):
        return backend


def kill_the_one_that_hangs(at: Path) -> int:
    wait_until(at.exists)
    pid = int(at.read_text())
    os.kill(pid, signal.SIGKILL)
    return pid


def test_one_worker_two_workers_and_in_process_give_the_same_bytes(pool, backend, context):
    works = tiny_works(6)
    in_process, _ = run_all(LocalBackend(context), works)
    one, _ = run_all(backend(workers=1), works)
    two, _ = run_all(pool, works)
    assert results(in_process) == results(one) == results(two)
    assert all(outcome.status == "ok" and outcome.outputs["test"].shape == (5, 2) for outcome in two.values())


def test_two_processes_do_twenty_retrains_and_get_the_task_once(pool, context):
    outcomes, _ = run_all(pool, tiny_works(20))
    assert len({outcome.metrics["pid"] for outcome in outcomes.values()}) == 2
    assert ray_tiny_task.pickled.count(id(context.task)) == 1


def test_workers_have_the_threads_of_the_numerics(pool):
    outcomes, _ = run_all(pool, tiny_works(2))
    assert {outcome.metrics["threads"] for outcome in outcomes.values()} == {2}


def test_a_killed_worker_is_lost_and_replaced_and_the_rest_goes_on(pool, hang_in, context):
    workers, hanging = list(device_ids(pool)), tiny_work(HANGS)
    pool.submit(workers[0], hanging, 1)
    pool.submit(workers[1], tiny_work(1), 1)
    killed = kill_the_one_that_hangs(hang_in / str(HANGS))
    events = events_until(pool, lambda seen: len(seen) >= 3)
    [lost] = [event for event in events if isinstance(event, WorkerLost)]
    [joined] = [event for event in events if isinstance(event, WorkerJoined)]
    assert (lost.worker, lost.kind) == (workers[0], "error")
    assert joined.worker not in workers
    works = {hanging.spec_id: hanging, **tiny_works(3)}
    outcomes, _ = run_all(pool, works)
    assert killed not in {outcome.metrics["pid"] for outcome in outcomes.values()}
    assert results(outcomes) == results(run_all(LocalBackend(context), works)[0])


def test_a_retrain_past_its_time_is_ended_with_its_worker(backend, hang_in):
    pool, work = backend(timeout_s=0.5), tiny_work(HANGS + 1)
    [worker] = join(pool, 1)
    pool.submit(worker, work, 1)
    [lost] = events_until(pool, len)
    assert lost == WorkerLost(worker, "timeout", f"{work.spec_id} was still running after 0.5 s")
    wait_until((hang_in / f"{HANGS + 1}").exists)
    wait_until(lambda: not Path(f"/proc/{(hang_in / f'{HANGS + 1}').read_text()}").exists())


def test_processes_are_replaced_after_their_share_of_retrains_and_the_bytes_are_the_same(backend, context):
    works = tiny_works(5)
    outcomes, events = run_all(backend(recycle_after=2), works)
    assert len({outcome.metrics["pid"] for outcome in outcomes.values()}) == 3
    assert not any(isinstance(event, WorkerLost) for event in events)
    assert results(outcomes) == results(run_all(LocalBackend(context), works)[0])


def test_what_does_not_fit_yet_does_not_hold_up_what_does(backend):
    outcomes, events = run_all(backend(workers=2, cpus_per_worker=1.5), tiny_works(5))
    assert len(outcomes) == 5
    assert [type(event) for event in events].count(WorkerJoined) == 1


def test_workers_that_cannot_start_end_in_one_error_that_says_why(backend):
    pool = backend(tiny_context(WatchedTask(problem="no space left")))
    pool.start()
    with pytest.raises(RefitError, match="no worker can be started: OSError: no space left"):
        events_until(pool, lambda seen: False)


def test_workers_that_fit_nowhere_end_in_one_error_that_says_what_is_missing(backend):
    pool = backend(cpus_per_worker=50, start_timeout_s=0.5)
    pool.start()
    with pytest.raises(RefitError, match=r"within 0.5 s: each needs 50 CPU, the cluster has 4 CPU and 2 GPU"):
        events_until(pool, lambda seen: False)


def test_scoring_waits_for_no_retrain_it_is_refused(pool):
    pool.submit(next(iter(device_ids(pool))), tiny_work(), 1)
    with pytest.raises(ValueError, match="retrains are running"):
        next(pool.score(tiny_job(RANGES)))


def test_scores_are_those_of_the_in_process_twin_each_range_once(pool, context):
    job = tiny_job(RANGES)
    expected = {(b.start, b.stop): b.scores["products"] for b in LocalBackend(context).score(job)}
    blocks = list(pool.score(job))
    assert sorted((b.start, b.stop) for b in blocks) == RANGES
    for block in blocks:
        np.testing.assert_array_equal(block.scores["products"], expected[block.start, block.stop])


def test_each_gradient_worker_holds_a_gpu_of_its_own(backend):
    pool = backend(workers=2, gpus_per_worker=1)
    join(pool, 2)
    assert len(list(pool.score(tiny_job(RANGES)))) == len(RANGES)
    held = device_ids(pool)
    assert [len(gpus) for gpus in held.values()] == [1, 1]
    assert len({gpu for gpus in held.values() for gpu in gpus}) == 2


def test_the_range_of_a_killed_gradient_worker_is_computed_elsewhere(pool, tmp_path):
    workers = list(device_ids(pool))
    scoring = pool.score(tiny_job(RANGES, hang_in=str(tmp_path)))
    blocks = [next(scoring)]
    kill_the_one_that_hangs(tmp_path / "scorer")
    blocks += scoring
    assert sorted((b.start, b.stop) for b in blocks) == RANGES
    lost = events_until(pool, len)[0]
    assert isinstance(lost, WorkerLost)
    assert lost.worker in workers


def test_a_range_that_always_fails_ends_the_score_stage_with_its_reason(pool):
    with pytest.raises(RefitError, match="scoring train rows 4 to 5 failed 3 times: ValueError: cannot score this row"):
        list(pool.score(tiny_job(RANGES, bad_row=5)))
    assert len(run_all(pool, tiny_works(1))[0]) == 1


def test_giving_up_scoring_half_way_leaves_a_pool_that_works(pool, tmp_path):
    scoring = pool.score(tiny_job(RANGES, hang_in=str(tmp_path)))
    next(scoring)
    wait_until((tmp_path / "scorer").exists)
    scoring.close()
    assert len(run_all(pool, tiny_works(2))[0]) == 2


def test_close_ends_our_actors_and_leaves_a_ray_that_was_there(backend):
    import ray

    pool = backend()
    outcomes, _ = run_all(pool, tiny_works(1))
    pool.close()
    pool.close()
    assert ray.is_initialized()
    wait_until(lambda: not any(Path(f"/proc/{int(o.metrics['pid'])}").exists() for o in outcomes.values()))
