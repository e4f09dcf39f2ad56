"""A store that goes away and comes back, in virtual time: what is waited for, for how long, and who pays."""

import errno
import itertools
import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fake_backend import VirtualClock

from orchestrator.records import RetrainSpec, Work
from orchestrator.runtime import worker
from orchestrator.runtime.backend import WorkerContext
from orchestrator.runtime.clock import SystemClock
from orchestrator.runtime.driver import drive
from orchestrator.runtime.local import LocalBackend, time_limit
from orchestrator.runtime.patience import patient
from orchestrator.runtime.stop import StopSignal
from orchestrator.scheduling.policies import Budgets
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.blobs import LocalBlobs, StoreAwayError
from orchestrator.storage.checkpoints import CheckpointStore
from orchestrator.storage.refusals import PERMANENT, StoreRefusesError
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import GivenBack, InputError
from tasks.models.text_cnn import TextCNN
from tasks.recipes.finetune import Finetune
from tests.fakes import token_task

MINUTE = 60.0
FOREVER = float("inf")
LAST = 6
WORK = Work(RetrainSpec("t", "m", "r", {}, 3, {}), Edit.removal([101]), keep_steps=(2, LAST))
CHILD = Work(RetrainSpec("t", "m", "r", {}, 4, {}, {"spec_id": WORK.spec_id, "step": 2}), Edit.removal([101]))


@pytest.fixture
def clock(monkeypatch):
    """Everybody's: waiting takes no time."""
    clock = VirtualClock()
    monkeypatch.setattr(SystemClock, "sleep", lambda self, seconds: clock.sleep(seconds))
    return clock


@dataclass(frozen=True)
class Outage(LocalBlobs):
    """A store that is away until a time of its clock; remembers what it was asked."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    until_s: float = 0.0
    asked: list[str] = field(default_factory=list)

    def get(self, key):
        self._answer(key)
        return super().get(key)

    def put(self, key, data):
        self._answer(key)
        super().put(key, data)

    def _answer(self, key):
        self.asked.append(key)
        if self.clock.now() < self.until_s:
            raise StoreAwayError(errno.EIO, "cannot be reached", f"store/{key}")


def context(blobs, **options):
    task = token_task(TextCNN(embedding_dim=4, filters=2), Finetune(epochs=2, batch_size=8))
    return WorkerContext(task, Numerics(), CheckpointStore(blobs), **{"snapshot_s": 300.0, **options})


def test_a_store_that_comes_back_has_cost_time_only(clock, tmp_path):
    LocalBlobs(tmp_path).put("a", b"1")
    store = Outage(tmp_path, clock, 3 * MINUTE)
    assert patient(store.get, clock=clock)("a") == b"1"
    assert 3 * MINUTE <= clock.now() < 4 * MINUTE
    assert patient(store.put, clock=clock)("a", b"2") is None
    assert len(store.asked) < 30


def test_a_store_that_stays_away_is_given_up_after_about_five_minutes(clock, tmp_path):
    with pytest.raises(StoreAwayError, match="store/a: cannot be reached"):
        patient(Outage(tmp_path, clock, FOREVER).get, clock=clock)("a")
    assert 4 * MINUTE < clock.now() < 6 * MINUTE


@pytest.mark.parametrize("error", [OSError("no number"), StoreAwayError(errno.EACCES, "credentials ran out", "s3://b")])
def test_what_says_nothing_of_a_path_is_an_outage(clock, error):
    def fail():
        raise error

    with pytest.raises(StoreAwayError):
        patient(fail, clock=clock)()
    assert clock.now() > 4 * MINUTE


WRONG_PATHS = ("EACCES", "EPERM", "EROFS", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG", "ELOOP", "EXDEV", "ENOTSUP")
OUTAGES = (
    *("ENOSPC", "EDQUOT", "EIO", "ESTALE", "ETIMEDOUT", "EHOSTDOWN", "ECONNRESET", "ENETUNREACH", "EMFILE", "ENFILE"),
    *("ENOMEM", "EAGAIN", "EBUSY", "EINTR", "ENOLCK", "EREMOTEIO", "EKEYEXPIRED"),
)


def test_the_kinds_of_errors_are_told_apart():
    assert {getattr(errno, name) for name in WRONG_PATHS} <= PERMANENT
    assert PERMANENT.isdisjoint(getattr(errno, name) for name in OUTAGES)


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=lambda number: errno.errorcode[number])
def test_every_error_of_the_system_is_waited_for_or_refused_at_once(clock, number):
    """Over the whole table: a wrong path or a missing right ends at once, and whatever else there is may pass."""
    failures = []

    def fail():
        failures.append(OSError(number, os.strerror(number), "/store/ledger"))
        raise failures[-1]

    with pytest.raises((FileNotFoundError, StoreAwayError, StoreRefusesError)) as caught:
        patient(fail, clock=clock)()
    if number == errno.ENOENT:  # a missing file is an answer
        assert (clock.now(), type(caught.value)) == (0, FileNotFoundError)
    elif number in PERMANENT:
        assert (clock.now(), type(caught.value), len(failures)) == (0, StoreRefusesError, 1)
        assert str(caught.value).startswith("/store/ledger: ")
        assert worker.classify(caught.value) == "store_refused"
    else:
        assert clock.now() > 4 * MINUTE
        assert worker.classify(caught.value) == "storage"


@pytest.mark.parametrize("where", ["checkpoints", "checkpoints/" + WORK.spec_id])
def test_a_store_that_refuses_ends_the_run_at_once_and_quarantines_nothing(clock, tmp_path, where):
    """A file stands where the folder of the weights should be: every retrain would be lost in the same way."""
    place = tmp_path / where
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"")
    rows, scheduler = [], Scheduler([WORK.spec_id], Budgets())
    backend = LocalBackend(context(LocalBlobs(tmp_path), snapshot_s=None))
    with pytest.raises(InputError, match=f"cannot store its retrain: {place}: a file is where a folder is needed"):
        drive(
            scheduler, backend, rows.extend, {WORK.spec_id: WORK}, None, StopSignal(), clock=clock, code_version="test"
        )
    assert (rows, clock.now()) == ([], 0)


def test_who_waits_looks_at_least_once_a_second_whether_to_stop(clock, tmp_path):
    """The longest wait is 15 seconds; a stop signal is heeded within one."""
    asked = []

    def meanwhile():
        asked.append(clock.now())
        if clock.now() > 2 * MINUTE:
            raise GivenBack

    with pytest.raises(GivenBack):
        patient(Outage(tmp_path, clock, FOREVER).get, clock=clock, meanwhile=meanwhile)("a")
    assert max(b - a for a, b in itertools.pairwise(asked)) <= 1.0


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "none"), TimeoutError("still running after 9 s"), KeyboardInterrupt(), ValueError()]
)
def test_what_is_no_outage_passes_through_at_once(clock, error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        patient(fail, clock=clock)()
    assert clock.now() == 0


def test_who_waits_can_be_told_to_stop(clock, tmp_path):
    waits = []

    def meanwhile():
        waits.append(clock.now())
        if len(waits) == 3:
            raise GivenBack

    with pytest.raises(GivenBack):
        patient(Outage(tmp_path, clock, FOREVER).get, clock=clock, meanwhile=meanwhile)("a")
    assert waits == [0, 0.5, 1.5]


def test_the_time_limit_of_a_retrain_ends_a_wait(tmp_path):
    with pytest.raises(TimeoutError, match="still running"), time_limit(0.05):
        patient(Outage(tmp_path, until_s=FOREVER).get)("a")


def test_weights_and_parents_wait_and_the_bytes_are_those_of_a_quiet_run(clock, tmp_path):
    quiet = [worker.retrain(context(LocalBlobs(tmp_path / "quiet")), work, "me") for work in (WORK, CHILD)]
    store = Outage(tmp_path / "away", clock, 2 * MINUTE)
    first = worker.retrain(context(store, snapshot_s=None), WORK, "me")
    assert clock.now() >= 2 * MINUTE
    store = replace(store, until_s=clock.now() + 2 * MINUTE)
    child = worker.retrain(context(store, snapshot_s=None), CHILD, "me")
    assert [o.outputs["test"].tobytes() for o in (first, child)] == [o.outputs["test"].tobytes() for o in quiet]
    assert CheckpointStore(LocalBlobs(tmp_path / "away")).has(WORK.spec_id, WORK.keep_steps)


def test_an_outage_longer_than_a_worker_waits_uses_no_retries(clock, tmp_path):
    store, rows = Outage(tmp_path, clock, 12 * MINUTE), []
    scheduler = Scheduler([WORK.spec_id], Budgets(retries=0, preemptions=5))
    backend = LocalBackend(context(store, snapshot_s=None))
    works = {WORK.spec_id: WORK}
    result = drive(
        scheduler, backend, rows.extend, works, lambda _: None, StopSignal(), clock=clock, code_version="test"
    )
    assert [row.outcome.status for row in rows] == ["ok"]
    assert result.failures == {"storage": 2}
    assert CheckpointStore(LocalBlobs(tmp_path)).has(WORK.spec_id, WORK.keep_steps)


def given_back(blobs, work=WORK):
    """A retrain that was stored after its first update."""
    event = threading.Event()
    event.set()
    with pytest.raises(GivenBack):
        worker.retrain(context(blobs), work, "me", event)


def step_of(folder):
    return CheckpointStore(LocalBlobs(folder)).progress(WORK.spec_id).load().facts["training"]["step"]


def test_a_snapshot_that_cannot_be_read_is_waited_for_and_never_overwritten_by_less(clock, tmp_path):
    given_back(LocalBlobs(tmp_path))
    before = step_of(tmp_path)
    with pytest.raises(StoreAwayError) as caught:
        worker.retrain(context(Outage(tmp_path, clock, FOREVER)), WORK, "me", threading.Event(), 2)
    assert worker.classify(caught.value) == "storage"
    assert step_of(tmp_path) == before == 1
    store = Outage(tmp_path, clock, clock.now() + MINUTE)
    assert worker.retrain(context(store), WORK, "me", threading.Event(), 3).status == "ok"


def reads(folder, in_progress, attempt):
    """The names that one attempt asks for."""
    store = Outage(Path(folder))
    ready = replace(context(store), checkpoints=CheckpointStore(store, in_progress))
    work = replace(WORK, keep_steps=())
    worker.retrain(ready, work, "me", threading.Event(), attempt)
    return [os.path.basename(key) for key in store.asked]


def test_only_a_retrain_that_may_have_a_snapshot_looks_for_one(tmp_path):
    assert reads(tmp_path, frozenset(), 1) == [], "a short retrain pays for no round trip"
    assert reads(tmp_path, frozenset(), 2) == ["resume.safetensors"], "one that was given back or lost in this session"
    assert reads(tmp_path, frozenset([WORK.spec_id]), 1) == ["resume.safetensors"], "of an earlier one"
    assert reads(tmp_path, None, 1) == ["resume.safetensors"], "nobody has looked"


@dataclass(frozen=True)
class AsksBack(LocalBlobs):
    """A store at whose first checkpoint the retrain is asked back."""

    event: threading.Event = field(default_factory=threading.Event)

    def put(self, key, data):
        super().put(key, data)
        self.event.set()


def test_a_redo_for_lost_weights_does_not_go_on_behind_a_step_that_it_is_to_keep(tmp_path):
    """Finished, but the driver died before the snapshot was deleted; then weights of a step before it were lost."""
    asks, store = AsksBack(tmp_path), CheckpointStore(LocalBlobs(tmp_path))
    with pytest.raises(GivenBack, match="after update 2"):
        worker.retrain(context(asks), WORK, "me", asks.event)
    ready = context(store.blobs)
    assert worker.retrain(ready, WORK, "me", threading.Event(), 2).status == "ok"
    store.blobs.delete(f"checkpoints/{WORK.spec_id}/2.safetensors")
    assert step_of(tmp_path) == 2
    swept = store.swept({WORK.spec_id})
    worker.retrain(replace(ready, checkpoints=swept), WORK, "me", threading.Event(), 2)
    assert swept.has(WORK.spec_id, WORK.keep_steps)
