import errno
import os
import signal
import threading
import weakref
from concurrent.futures import Future
from datetime import datetime

import pytest
from fake_backend import Chaos, FakeBackend, VirtualClock, numbers_of
from tiny_task import tiny_works

from orchestrator.runtime import publisher
from orchestrator.runtime.driver import DriveOptions, LedgerUnwritableError, StopSignal, drive
from orchestrator.scheduling.policies import Backoff, Budgets
from orchestrator.scheduling.scheduler import Scheduler
from tasks.seeds import generator

GENEROUS = Budgets(retries=50, preemptions=50)
PATIENCE_S = 60.0


class MemoryLedger:
    """Rows by key, first commit wins; `before_write` may wait or raise, as disks do."""

    def __init__(self, before_write=lambda: None):
        self.rows, self.parts, self.before_write = {}, [], before_write
        self.tries = 0

    def publish(self, rows):
        self.tries += 1
        self.before_write()
        self.parts.append([row.spec_id for row in rows])
        for row in rows:
            self.rows.setdefault(row.spec_id, row)

    def bytes(self):
        """What must not depend on luck."""
        rows = {spec_id: row.outcome for spec_id, row in self.rows.items()}
        return {s: (o.status, o.outputs["test"].tobytes(), o.metrics) for s, o in sorted(rows.items())}


class Campaign:
    """One plan and one ledger; `run` is one session of the driver."""

    def __init__(self, n_specs=20, ledger=None, budgets=GENEROUS):
        self.works, self.ledger, self.budgets = tiny_works(n_specs), ledger or MemoryLedger(), budgets
        self.clock, self.stop, self.progress = VirtualClock(), StopSignal(), []

    def backend(self, **options):
        return FakeBackend(self.clock, **options)

    def run(self, backend, listener=None, **options):
        self.scheduler = Scheduler(list(self.works), self.budgets, set(self.ledger.rows))
        return drive(
            self.scheduler, backend, self.ledger.publish, self.works, listener or self.progress.append, self.stop,
            self.clock, code_version="v1", options=DriveOptions(**options),
        )  # fmt: skip


class InstantPool:
    """An executor without a thread: a write takes no time, so that virtual time alone decides what happens when."""

    def __init__(self, *arguments, **options):
        pass

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, **options):
        pass


@pytest.fixture
def instant_writes(monkeypatch):
    monkeypatch.setattr(publisher, "ThreadPoolExecutor", InstantPool)


def quiet_bytes(n_specs=20):
    campaign = Campaign(n_specs)
    campaign.run(campaign.backend())
    return campaign.ledger.bytes()


def test_a_quiet_campaign_runs_every_spec_once():
    campaign = Campaign()
    result = campaign.run(campaign.backend())
    assert (result.complete, result.stopped) == (True, None)
    assert (result.n_total, result.n_finished, result.n_ok, result.n_attempts) == (20, 20, 20, 20)
    assert (result.n_diverged, result.n_quarantined, result.failures) == (0, 0, {})
    assert set(campaign.ledger.rows) == set(campaign.works)


def test_a_ledger_row_says_what_was_trained_and_when_it_was_written():
    campaign = Campaign(3)
    campaign.run(campaign.backend())
    for spec_id, row in campaign.ledger.rows.items():
        work = campaign.works[spec_id]
        assert (row.spec, row.edit, row.attempts, row.code_version) == (work.spec.json, work.edit, 1, "v1")
        assert len(row.committed_at) == len("2024-01-01T00:00:00.000000+00:00")
        assert datetime.fromisoformat(row.committed_at).utcoffset().total_seconds() == 0
        assert (row.outcome.status, row.outcome.error) == ("ok", None)


@pytest.mark.parametrize("seed", range(4))
def test_outcomes_are_the_same_bytes_whatever_fails_meanwhile(seed):
    chaos = Chaos(seed, fail=0.2, lose=0.3, late=0.5)
    luck = generator(seed, "disk")

    def sometimes_full():
        if luck.uniform() < 0.3:
            raise OSError(28, "No space left on device")

    campaign = Campaign(ledger=MemoryLedger(sometimes_full))
    result = campaign.run(campaign.backend(chaos=chaos, n_workers=1 + seed))
    assert result.complete
    assert sum(result.failures.values()) > 0
    assert campaign.ledger.bytes() == quiet_bytes()


class KilledError(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("seed", range(4))
def test_killed_and_restarted_the_ledger_ends_like_a_quiet_one(seed, instant_writes):
    campaign, luck = Campaign(), generator(seed, "kills")
    n_kills = attempts = 0
    for _ in range(1000):
        waits_left = int(luck.integers(3, 30))

        def die_after_a_while():
            nonlocal waits_left
            waits_left -= 1
            if waits_left == 0:
                raise KilledError

        backend = campaign.backend(n_workers=2, on_wait=die_after_a_while)
        try:
            done = campaign.run(backend, poll_s=0.5).complete
        except KilledError:
            done, n_kills = False, n_kills + 1
        attempts += len(backend.submitted)
        campaign.clock = VirtualClock()
        if done:
            break
    assert done
    assert campaign.ledger.bytes() == quiet_bytes()
    written = [spec_id for part in campaign.ledger.parts for spec_id in part]
    assert len(written) == len(set(written))
    assert n_kills > 0
    assert attempts <= len(campaign.works) + 2 * n_kills  # two workers: at most what was in flight is repeated


def test_only_what_was_not_published_is_repeated_after_a_kill(instant_writes):
    campaign = Campaign()

    def die_when_half_is_done():
        if campaign.scheduler.count("finished") >= 10:
            raise KilledError

    first = campaign.backend(on_wait=die_when_half_is_done)
    with pytest.raises(KilledError):
        campaign.run(first)
    in_ledger = set(campaign.ledger.rows)
    second = campaign.backend()
    campaign.run(second)
    ran = {spec_id for _, spec_id, _ in second.submitted}
    assert len(in_ledger) >= 10
    assert ran == set(campaign.works) - in_ledger


def test_a_disk_that_is_full_for_ten_seconds_loses_nothing_and_repeats_nothing(instant_writes):
    campaign = Campaign()

    def full_at_first():
        if campaign.clock.now() < 10:
            raise OSError(28, "No space left on device")

    campaign.ledger.before_write = full_at_first
    result = campaign.run(campaign.backend())
    assert (result.complete, result.n_attempts, result.failures) == (True, 20, {})
    assert 2 < campaign.ledger.tries <= 20 + 10
    assert campaign.ledger.bytes() == quiet_bytes()


def test_a_ledger_that_stays_unwritable_ends_the_session_with_an_error_for_people():
    def full():
        raise OSError(28, "No space left on device")

    campaign = Campaign(2, ledger=MemoryLedger(full))
    with pytest.raises(LedgerUnwritableError, match=r"4 writes in a row failed.*No space left.*will be repeated"):
        campaign.run(campaign.backend(), backoff=Backoff(first_s=1.0, longest_s=4.0, limit=3))
    assert campaign.clock.now() >= 1 + 2 + 4


def test_only_failures_in_a_row_count(instant_writes):
    campaign = Campaign()

    def every_fourth_succeeds():
        if campaign.ledger.tries % 4:
            raise OSError(5, "Input/output error")

    campaign.ledger.before_write = every_fourth_succeeds
    assert campaign.run(campaign.backend(n_workers=1), backoff=Backoff(first_s=0.1, limit=3)).complete
    assert len(campaign.ledger.parts) >= 3


def test_a_bug_in_the_ledger_is_not_retried():
    def bug():
        raise TypeError("not a disk's fault")

    campaign = Campaign(2, ledger=MemoryLedger(bug))
    with pytest.raises(TypeError):
        campaign.run(campaign.backend())
    assert campaign.ledger.tries == 1


def test_training_goes_on_while_a_part_is_written_and_the_next_part_holds_all_that_finished_meanwhile():
    campaign = Campaign(12)
    trained_on = threading.Event()

    def slow_at_first():
        if campaign.ledger.tries == 1:
            assert trained_on.wait(PATIENCE_S), "nothing was trained while the first part was written"

    campaign.ledger.before_write = slow_at_first
    backend = campaign.backend(n_workers=1)
    backend.on_wait = lambda: trained_on.set() if len(backend.submitted) == 12 else None
    campaign.run(backend)
    assert len(campaign.ledger.parts[0]) == 1
    assert len(campaign.ledger.parts[1]) >= 10


class Token:
    """Stands for the memory of an outcome: arrays cannot be counted, objects can."""


@pytest.mark.parametrize("chaos", [Chaos(), Chaos(lose=0.5, late=1.0)])
def test_outcomes_are_let_go_once_they_are_published_even_those_that_come_twice(chaos, instant_writes):
    campaign = Campaign(60)
    alive, most = weakref.WeakSet(), 0

    def tracked(work):
        outcome = numbers_of(work)
        token = Token()
        alive.add(token)
        outcome.outputs["token"] = token
        return outcome

    def count():
        nonlocal most
        most = max(most, len(alive))

    class Forgetful(MemoryLedger):
        def publish(self, rows):
            self.rows.update({row.spec_id: None for row in rows})

    campaign.ledger = Forgetful()
    campaign.run(campaign.backend(n_workers=2, chaos=chaos, result_of=tracked, on_wait=count))
    assert len(campaign.ledger.rows) == 60
    assert 2 <= most <= 10


def test_a_quarantined_spec_is_published_with_its_last_error_and_the_rest_is_done():
    campaign = Campaign(10, budgets=Budgets(retries=1, preemptions=0))
    result = campaign.run(campaign.backend(chaos=Chaos(seed=3, fail=0.6)))
    bad = {s: row for s, row in campaign.ledger.rows.items() if row.outcome.status == "quarantined"}
    assert 0 < len(bad) < 10
    assert (result.complete, result.n_quarantined, result.n_ok) == (True, len(bad), 10 - len(bad))
    for row in bad.values():
        assert (row.attempts, row.outcome.error, row.outcome.outputs) == (2, "attempt 2", {})
        assert row.outcome.seconds > 0.9  # both attempts


def test_a_stop_publishes_what_is_finished_closes_the_backend_and_can_be_resumed(instant_writes):
    campaign = Campaign()

    def stop_at_five(progress):
        if progress.done >= 5:
            campaign.stop.request("budget")

    backend = campaign.backend()
    result = campaign.run(backend, listener=stop_at_five, progress_s=0.0)
    assert (result.complete, result.stopped, backend.closed) == (False, "budget", True)
    assert result.n_finished == len(campaign.ledger.rows) == result.n_ok < 20
    assert result.n_finished >= 5
    campaign.stop = StopSignal()
    result = campaign.run(campaign.backend())
    assert (result.complete, result.n_finished) == (True, 20)
    assert campaign.ledger.bytes() == quiet_bytes()


def test_a_stop_while_the_disk_is_full_still_publishes_what_is_finished(instant_writes):
    campaign = Campaign()

    def full_for_a_while():
        if campaign.clock.now() < 30:
            raise OSError(28, "No space left on device")

    def stop_soon():
        if campaign.clock.now() > 3:
            campaign.stop.request("deadline")

    campaign.ledger.before_write = full_for_a_while
    result = campaign.run(campaign.backend(on_wait=stop_soon))
    assert result.stopped == "deadline"
    assert 3 <= result.n_finished == len(campaign.ledger.rows) < 20


def test_a_stop_signal_while_the_disk_is_full_ends_within_seconds_and_keeps_what_is_durable(instant_writes):
    """A person who pressed Ctrl-C is not kept waiting for five minutes, however long the wait before the next try is."""
    campaign = Campaign()

    def full_later():
        if campaign.clock.now() > 3:
            raise OSError(28, "No space left on device")

    def interrupt_in_the_longest_wait(progress):
        if campaign.clock.now() > 90 and not campaign.stop.reason:
            signalled_at.append(campaign.clock.now())
            campaign.stop.on_signal(signal.SIGTERM, None)

    signalled_at = []
    campaign.ledger.before_write = full_later
    with pytest.raises(LedgerUnwritableError, match=r"stopped while .*No space left.*will be repeated") as caught:
        campaign.run(campaign.backend(), interrupt_in_the_longest_wait)
    assert caught.value.is_resumable
    assert campaign.clock.now() - signalled_at[0] < 6
    assert 0 < len(campaign.ledger.rows) < 20


def test_a_disk_that_is_free_again_when_a_stop_is_signalled_keeps_what_is_finished(instant_writes):
    campaign = Campaign()

    def full_for_a_while():
        if 3 < campaign.clock.now() < 93:
            raise OSError(28, "No space left on device")

    def interrupt(progress):
        if campaign.clock.now() > 90 and not campaign.stop.reason:
            campaign.stop.on_signal(signal.SIGINT, None)

    campaign.ledger.before_write = full_for_a_while
    result = campaign.run(campaign.backend(), interrupt)
    assert (result.complete, result.n_attempts) == (True, 20)
    assert campaign.ledger.bytes() == quiet_bytes()
    assert campaign.clock.now() < 96


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EEXIST, errno.ELOOP])
def test_a_ledger_that_refuses_to_be_written_is_not_waited_for(number, instant_writes):
    def refuses():
        raise OSError(number, os.strerror(number), "/store/ledger")

    campaign = Campaign(2, ledger=MemoryLedger(refuses))
    with pytest.raises(LedgerUnwritableError, match=r"cannot be written: /store/ledger: .*will be repeated") as caught:
        campaign.run(campaign.backend())
    assert caught.value.is_resumable
    assert campaign.ledger.tries == 1
    assert campaign.clock.now() < 10


def test_an_interrupt_while_waiting_is_a_stop(instant_writes):
    campaign = Campaign()

    def interrupted():
        if len(campaign.ledger.rows) >= 5:
            raise KeyboardInterrupt

    result = campaign.run(campaign.backend(on_wait=interrupted))
    assert (result.complete, result.stopped) == (False, "interrupted")
    assert result.n_finished == len(campaign.ledger.rows)


def test_a_second_ctrl_c_ends_the_driver_at_once():
    campaign = Campaign()

    def impatient():
        campaign.stop.on_signal(signal.SIGINT, None)
        campaign.stop.on_signal(signal.SIGINT, None)

    with pytest.raises(KeyboardInterrupt):
        campaign.run(campaign.backend(on_wait=impatient))


@pytest.mark.parametrize("where", ["wait", "submit", "close"])
def test_when_the_backend_breaks_what_is_finished_is_published_before_the_error_is_raised(where, instant_writes):
    campaign = Campaign()
    backend = campaign.backend()
    original = getattr(backend, where)

    def broken(*arguments):
        if campaign.scheduler.count("finished") >= 5:
            raise RuntimeError("the cluster is gone")
        return original(*arguments)

    setattr(backend, where, broken)
    if where == "close":
        backend.on_wait = lambda: campaign.stop.request("enough") if len(campaign.ledger.rows) >= 8 else None
    with pytest.raises(RuntimeError, match="the cluster is gone"):
        campaign.run(backend)
    scheduler = campaign.scheduler
    assert scheduler.count("finished") == len(campaign.ledger.rows) >= 5
    assert scheduler.count("done_unpublished") == scheduler.count("publishing") == 0


def test_a_finished_campaign_does_not_start_the_backend():
    campaign = Campaign(4)
    campaign.run(campaign.backend())
    backend = campaign.backend()
    backend.start = lambda: pytest.fail("started")
    result = campaign.run(backend)
    assert (result.complete, result.n_finished, result.n_ok, result.n_attempts) == (True, 4, 0, 0)


def test_progress_is_told_at_most_every_interval_and_at_the_end(instant_writes):
    campaign = Campaign(30)
    result = campaign.run(campaign.backend(), progress_s=2.0)
    told = campaign.progress
    assert 3 <= len(told) <= result.seconds / 2.0 + 2
    assert [p.done for p in told] == sorted(p.done for p in told)
    last = told[-1]
    assert (last.done, last.total, last.running, last.failed, last.quarantined) == (30, 30, 0, 0, 0)
    assert (last.seconds_per_retrain, last.eta_s) == (1.0, 0.0)
    assert told[0].eta_s is None


def test_a_listener_that_cannot_write_does_not_fail_the_campaign():
    def full(progress):
        raise OSError(28, "No space left on device")

    campaign = Campaign(4)
    assert campaign.run(campaign.backend(), listener=full).complete
