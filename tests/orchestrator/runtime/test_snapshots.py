import errno
import threading
from itertools import pairwise

import pytest
from fake_backend import VirtualClock

from orchestrator.runtime.snapshots import TimedSnapshots
from orchestrator.storage.blobs import StoreAwayError
from tasks.errors import GivenBack
from tasks.recipe import Snapshot


class MemoryStore:
    """Keeps the last snapshot; a save takes `cost_s` of the clock's time; breaks when told to."""

    def __init__(self, clock, cost_s=0.0):
        self.clock, self.cost_s, self.last, self.broken = clock, cost_s, None, False

    def save(self, snapshot):
        self.clock.sleep(self.cost_s)
        if self.broken:
            raise OSError("store away")
        self.last = snapshot

    def load(self):
        if self.broken:
            raise OSError("store away")
        return self.last

    def clear(self):
        self.last = None


@pytest.fixture
def clock():
    return VirtualClock()


def train(snapshots, clock, n_steps, step_s=1.0, first=1):
    """The steps after which a snapshot was taken."""
    taken = []

    def snapshot(step):
        taken.append(step)
        return Snapshot({}, {"step": step})

    for step in range(first, n_steps + 1):
        clock.sleep(step_s)
        snapshots.passed(step, lambda step=step: snapshot(step))
    return taken


def test_a_short_training_is_never_stored(clock):
    assert train(TimedSnapshots(MemoryStore(clock), 300, clock), clock, 299) == []


def test_without_a_time_it_is_only_stored_to_be_given_back(clock):
    store, give_back = MemoryStore(clock), threading.Event()
    snapshots = TimedSnapshots(store, None, clock, give_back)
    assert train(snapshots, clock, 5000) == []
    give_back.set()
    with pytest.raises(GivenBack, match="after update 5001"):
        train(snapshots, clock, 5001, first=5001)
    assert store.last.facts["training"] == {"step": 5001}
    assert store.last.facts["seconds"] == 5001


@pytest.mark.parametrize(
    ("cost_s", "interval_s"), [(0.0, 30), (0.01, 30), (2.0, 120), (50.0, 600)]
)  # sqrt(2 cost 3600), at least 300 / 10
def test_the_first_comes_after_the_time_and_the_others_by_the_cost_of_one(clock, cost_s, interval_s):
    taken, started_s, store = [], clock.now(), MemoryStore(clock, cost_s)
    snapshots = TimedSnapshots(store, 300, clock)
    while len(taken) < 4:
        clock.sleep(1)
        snapshots.passed(1, lambda: taken.append(clock.now() - started_s) or Snapshot({}, {}))
    assert taken[0] == 300
    for earlier, later in pairwise(taken):
        assert later - earlier - cost_s == pytest.approx(interval_s, abs=1)


def test_seconds_of_earlier_attempts_are_counted_on(clock):
    store, give_back = MemoryStore(clock), threading.Event()
    give_back.set()
    for attempt in (1, 2, 3):
        snapshots = TimedSnapshots(store, 300, clock, give_back)
        found = snapshots.resume()
        assert (found is None) == (attempt == 1)
        with pytest.raises(GivenBack):
            train(snapshots, clock, 1, step_s=40)
        assert store.last.facts["seconds"] == 40 * attempt
    assert snapshots.seconds_before == 80


def test_a_resumed_training_is_known_to_be_long(clock):
    store = MemoryStore(clock)
    train(TimedSnapshots(store, 300, clock), clock, 300)
    resumed = TimedSnapshots(store, 300, clock)
    assert resumed.resume().facts == {"step": 300}
    assert train(resumed, clock, 100) == [30, 60, 90]


def test_what_was_made_for_something_else_is_not_used(clock):
    store = MemoryStore(clock)
    train(TimedSnapshots(store, 1, clock, asked={"keep_steps": [2]}), clock, 1)
    assert TimedSnapshots(store, 1, clock, asked={"keep_steps": []}).resume() is None
    assert TimedSnapshots(store, 1, clock, asked={"keep_steps": [2]}).resume() is not None


def test_a_snapshot_that_cannot_be_written_never_fails_the_training(clock, caplog):
    store = MemoryStore(clock)
    store.broken = True
    snapshots = TimedSnapshots(store, 10, clock)
    assert train(snapshots, clock, 12) == [10, 11, 12]
    assert caplog.text.count("could not be written: OSError: store away") == 3
    store.broken = False
    assert train(snapshots, clock, 13, first=13) == [13]
    assert store.last.facts["training"] == {"step": 13}


def test_a_network_disk_that_does_not_answer_is_no_time_limit(clock, caplog):
    class Hangs(MemoryStore):
        def save(self, snapshot):
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    assert train(TimedSnapshots(Hangs(clock), 10, clock), clock, 12) == [10, 11, 12]
    assert "Connection timed out" in caplog.text


def test_a_snapshot_that_cannot_be_read_is_waited_for(clock):
    store = MemoryStore(clock)
    train(TimedSnapshots(store, 1, clock), clock, 1)
    store.broken = True
    with pytest.raises(StoreAwayError, match="store away"):
        TimedSnapshots(store, 1, clock).resume()
    assert clock.now() > 240


def test_where_none_can_exist_none_is_read(clock):
    store = MemoryStore(clock)
    store.broken = True
    assert TimedSnapshots(store, 1, clock, may_exist=False).resume() is None
    assert clock.now() == 0


def test_the_time_limit_of_a_retrain_is_no_failure_of_the_store(clock):
    class Alarm(MemoryStore):
        def save(self, snapshot):
            raise TimeoutError("still running after 9 s")

        def load(self):
            raise TimeoutError("still running after 9 s")

    snapshots = TimedSnapshots(Alarm(clock), 1, clock)
    with pytest.raises(TimeoutError):
        snapshots.resume()
    with pytest.raises(TimeoutError):
        train(snapshots, clock, 2)


def test_given_back_with_the_store_away_the_training_still_stops(clock):
    store, give_back = MemoryStore(clock), threading.Event()
    store.broken = True
    give_back.set()
    with pytest.raises(GivenBack):
        train(TimedSnapshots(store, 10, clock, give_back), clock, 1)
