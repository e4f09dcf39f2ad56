import signal
import threading
import time
from dataclasses import replace

import pytest
from ray_tiny_task import tiny_job
from tiny_task import make_context, tiny_work, tiny_works

from orchestrator.runtime import worker
from orchestrator.runtime.local import LocalBackend, time_limit
from orchestrator.scheduling.events import Completed, WorkerJoined
from tasks.base import Numerics
from tasks.errors import RefitError
from tests.contracts.backend_contract import BackendContract


class TestLocalBackend(BackendContract):
    context = staticmethod(make_context)
    works = staticmethod(tiny_works)
    survives_crash = False

    @pytest.fixture
    def make_backend(self):
        return LocalBackend


def test_ctrl_c_in_a_retrain_is_not_a_failure_of_it():
    backend = LocalBackend(make_context(faults={"*": "hang"}))
    backend.start()
    backend.wait(0)
    backend.submit("local", tiny_work(), 1)
    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        backend.wait(0)
    timer.join()


def test_a_time_limit_ends_its_body_only():
    with pytest.raises(TimeoutError, match=r"still running after 0\.05 s"), time_limit(0.05):
        time.sleep(30)
    with time_limit(0.02):
        pass
    time.sleep(0.05)


def test_an_outer_timer_goes_on_after_a_time_limit():
    fired = []
    before = signal.signal(signal.SIGALRM, lambda *_: fired.append("outer"))
    left_s, interval_s = signal.setitimer(signal.ITIMER_REAL, 100.0, 7.0)
    try:
        with pytest.raises(TimeoutError), time_limit(0.02):
            time.sleep(30)
        outer_s, outer_interval_s = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < outer_s < 100.0
        assert outer_interval_s == 7.0
        assert not fired
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left_s, interval_s)


def test_outside_the_main_thread_there_is_no_time_limit():
    events = []

    def run():
        backend = LocalBackend(make_context(), timeout_s=1e-9)
        backend.start()
        backend.wait(0)
        backend.submit("local", tiny_work(), 1)
        events.extend(backend.wait(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert isinstance(events[0], Completed)


def test_a_score_range_has_the_time_of_a_retrain(monkeypatch):
    backend = LocalBackend(make_context(), timeout_s=0.05)
    monkeypatch.setattr(worker, "score_block", lambda *_: time.sleep(30))
    with pytest.raises(RefitError, match=r"scoring train rows 2 to 5: still running after 0\.05 s"):
        next(backend.score(tiny_job([(2, 6)])))


def test_between_two_score_ranges_one_may_have_enough():
    class Enough(Exception):  # noqa: N818
        pass

    def alive():
        if blocks:
            raise Enough

    blocks = []
    scoring = LocalBackend(make_context()).score(tiny_job([(0, 2), (2, 4)]), alive)
    blocks.append(next(scoring))
    with pytest.raises(Enough):
        next(scoring)


@pytest.mark.parametrize(("device", "n_gpus"), [("cpu", 0.0), ("cuda", 1.0), ("cuda:1", 1.0)])
def test_a_gpu_of_this_machine_is_charged_when_it_is_used(device, n_gpus):
    [node] = LocalBackend(replace(make_context(), numerics=Numerics(device=device))).nodes()
    assert (node.kind, node.n_gpus) == ("local", n_gpus)


def test_what_was_queued_is_forgotten_on_close():
    backend = LocalBackend(make_context())
    backend.start()
    assert backend.wait(0) == [WorkerJoined("local")]
    backend.submit("local", tiny_work(), 1)
    backend.close()
    assert backend.wait(0) == []
