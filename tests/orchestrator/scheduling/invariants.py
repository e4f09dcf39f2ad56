"""The invariants of a scheduler between any two events; checking is O(n) in the number of specs."""

from __future__ import annotations

from collections import Counter

from orchestrator.scheduling.policies import is_exhausted
from orchestrator.scheduling.scheduler import Scheduler


def check_invariants(scheduler: Scheduler) -> None:
    """Raise AssertionError naming an invariant that does not hold."""
    _check_states(scheduler)
    _check_attempts(scheduler)
    _check_workers(scheduler)
    _check_devices(scheduler)
    _check_budgets(scheduler)
    _check_nothing_is_left_lying(scheduler)


def _check_states(scheduler: Scheduler) -> None:
    specs, queue = scheduler._specs, scheduler._queue
    assert +specs.count == Counter(specs.state.values()), "counts and states differ"
    in_state = {state: {s for s, at in specs.state.items() if at == state} for state in specs.state.values()}
    assert set(scheduler._runners) == in_state.get("running", set()), "running specs and their workers differ"
    assert set(specs.unpublished) == in_state.get("done_unpublished", set())
    assert sorted(specs.publishing) == sorted(in_state.get("publishing", set()))
    queued = [*queue.shared, *queue.alone]
    assert sorted(queued) == sorted(in_state.get("waiting", set())), "a waiting spec is queued once"
    assert set(queue.alone) <= queue.needs_device, "a spec waits to run alone, but need not"
    assert not queue.needs_device & set(queue.shared), "a spec that must run alone waits in the shared queue"
    assert queue.count(lambda kind: True) == len(queued), "the queue counts wrongly"
    assert not any(specs.state[s] in ("waiting", "running") for s in specs.quarantined), (
        "a quarantined spec waits or runs"
    )


def _check_attempts(scheduler: Scheduler) -> None:
    workers, runners = scheduler._workers, scheduler._runners
    for spec_id, names in runners.items():
        assert 1 <= len(set(names)) == len(names) <= 2, "a running spec must have one or two different workers"
        for worker in names:
            assert workers.busy[worker].spec_id == spec_id, "the worker of a running spec is busy with another spec"
    n_counting = sum(map(len, runners.values()))
    assert scheduler._stopping or n_counting == len(workers.busy), "a worker is busy, but its result is not awaited"
    tail = list(scheduler._tail)
    assert len(set(tail)) == len(tail)
    assert all(len(runners[spec_id]) == 1 for spec_id in tail), "a spec with two attempts could get a third"
    assert not any(workers.busy[name].alone for names in runners.values() if len(names) > 1 for name in names)


def _check_workers(scheduler: Scheduler) -> None:
    workers = scheduler._workers
    piles = [workers.idle, workers.busy, workers.held, workers.keepers]
    everybody = [worker for pile in piles for worker in pile]
    assert len(everybody) == len(set(everybody)), "a worker is in two of idle, busy, held, keepers"
    assert set(everybody) == set(workers._devices), "idle, busy, held, keepers and the known workers differ"
    assert list(workers.idle.values()) == sorted(workers.idle.values()), "the longest idle is not first"
    assert set(workers.draining) <= set(workers.busy), "a draining worker has no work, but was not released"
    assert scheduler._stopping or not workers._released, "a worker was forgotten but not released"


def _check_devices(scheduler: Scheduler) -> None:
    workers = scheduler._workers
    alone = {worker for worker, attempt in workers.busy.items() if attempt.alone}
    for worker in alone:
        assert not set(workers.neighbours(worker)) & set(workers.busy), "a worker runs alone, but a neighbour is busy"
    keeping = {device: worker for worker in [*alone, *workers.keepers] for device in workers._devices[worker]}
    assert keeping == workers._kept, "reserved devices are not those of keepers and of workers that run alone"
    assert not any(map(workers.is_blocked, [*workers.idle, *workers.keepers, *alone])), (
        "a worker that is not held has a device that is reserved for another worker"
    )
    assert all(map(workers.is_blocked, workers.held)), "a held worker has no device that is reserved for another worker"


def _check_budgets(scheduler: Scheduler) -> None:
    specs, budgets = scheduler._specs, scheduler.budgets
    for spec_id, spent in specs.spent.items():
        assert not (specs.state[spec_id] in ("waiting", "running") and is_exhausted(spent, budgets))
        assert spent.retries <= budgets.retries + 1
        assert spent.preemptions <= budgets.preemptions + 1


def _check_nothing_is_left_lying(scheduler: Scheduler) -> None:
    specs, workers, fits = scheduler._specs, scheduler._workers, scheduler._time.fits
    assert specs.publishing or not specs.unpublished, "results wait to be written, but no write is in progress"
    if not scheduler._over and not scheduler._stopping:
        n_alone, idle = scheduler._queue.alone.count(fits), workers.idle
        assert not (idle and scheduler._queue.shared.count(fits)), "a worker is idle while specs wait"
        assert not idle or len(workers.keepers) == n_alone, (
            "a worker is idle, but a spec that must run alone has no keeper"
        )
        assert not (idle and scheduler._tail.n_overdue(fits)), "a worker is idle, but a straggler has no second attempt"
        assert len(workers.keepers) <= n_alone, "there are more keepers than specs that wait to run alone"
        assert all(map(workers.is_disturbed, workers.keepers)), (
            "a keeper has no busy neighbour, but its spec has not started"
        )
        assert not workers.keepers or all(map(workers.is_disturbed, idle)), (
            "a keeper waits for a busy neighbour, but an idle worker has no busy neighbour"
        )
    ended = scheduler.complete or scheduler._stopping or not scheduler.count("running")
    assert not scheduler._over or (ended and not specs.publishing), (
        "the session is over, but a retrain or a write is in progress"
    )
