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
    assert set(queue.alone) <= queue.needs_device, "waits to be alone without need"
    assert not queue.needs_device & set(queue.shared), "does not wait to be alone"
    assert queue.count(lambda kind: True) == len(queued), "the queue counts wrongly"
    assert not any(specs.state[s] in ("waiting", "running") for s in specs.quarantined), "quarantined, and to run"


def _check_attempts(scheduler: Scheduler) -> None:
    workers, runners = scheduler._workers, scheduler._runners
    for spec_id, names in runners.items():
        assert 1 <= len(set(names)) == len(names) <= 2, "more than a second attempt"
        for worker in names:
            assert workers.busy[worker].spec_id == spec_id, "a running spec has no worker of its own"
    n_counting = sum(map(len, runners.values()))
    assert scheduler._stopping or n_counting == len(workers.busy), "a worker does what nobody waits for"
    tail = list(scheduler._tail)
    assert len(set(tail)) == len(tail)
    assert all(len(runners[spec_id]) == 1 for spec_id in tail), "may get a second attempt beside a second attempt"
    assert not any(workers.busy[name].alone for names in runners.values() if len(names) > 1 for name in names)


def _check_workers(scheduler: Scheduler) -> None:
    workers = scheduler._workers
    piles = [workers.idle, workers.busy, workers.held, workers.keepers]
    everybody = [worker for pile in piles for worker in pile]
    assert len(everybody) == len(set(everybody)), "a worker is two things at once"
    assert set(everybody) == set(workers._devices), "a worker is nothing, or forgotten and something"
    assert list(workers.idle.values()) == sorted(workers.idle.values()), "the longest idle is not first"
    assert set(workers.draining) <= set(workers.busy), "a worker without work waits for its node to go"
    assert scheduler._stopping or not workers._released, "a worker was forgotten but not released"


def _check_devices(scheduler: Scheduler) -> None:
    workers = scheduler._workers
    alone = {worker for worker, attempt in workers.busy.items() if attempt.alone}
    for worker in alone:
        assert not set(workers.neighbours(worker)) & set(workers.busy), "alone, and a neighbour is at work"
    keeping = {device: worker for worker in [*alone, *workers.keepers] for device in workers._devices[worker]}
    assert keeping == workers._kept, "devices are kept for nobody"
    assert not any(map(workers.is_blocked, [*workers.idle, *workers.keepers, *alone])), "on a device of somebody else"
    assert all(map(workers.is_blocked, workers.held)), "held for nobody"


def _check_budgets(scheduler: Scheduler) -> None:
    specs, budgets = scheduler._specs, scheduler.budgets
    for spec_id, spent in specs.spent.items():
        assert not (specs.state[spec_id] in ("waiting", "running") and is_exhausted(spent, budgets))
        assert spent.retries <= budgets.retries + 1
        assert spent.preemptions <= budgets.preemptions + 1


def _check_nothing_is_left_lying(scheduler: Scheduler) -> None:
    specs, workers, fits = scheduler._specs, scheduler._workers, scheduler._time.fits
    assert specs.publishing or not specs.unpublished, "something is done and no write is in progress"
    if not scheduler._over and not scheduler._stopping:
        n_alone, idle = scheduler._queue.alone.count(fits), workers.idle
        assert not (idle and scheduler._queue.shared.count(fits)), "a worker is idle while specs wait"
        assert not idle or len(workers.keepers) == n_alone, "a worker is idle while specs wait to be alone"
        assert not (idle and scheduler._tail.n_overdue(fits)), "a worker is idle beside a straggler"
        assert len(workers.keepers) <= n_alone, "a device is kept for nothing"
        assert all(map(workers.is_disturbed, workers.keepers)), "a device is free, and what should have it waits"
        assert not workers.keepers or all(map(workers.is_disturbed, idle)), "it waits for a device, and one is free"
    ended = scheduler.complete or scheduler._stopping or not scheduler.count("running")
    assert not scheduler._over or (ended and not specs.publishing), "over with work left"
