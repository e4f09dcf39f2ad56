import threading
import time

import pytest

from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.hold import held
from orchestrator.storage.lease import Lease, LeaseHeld
from tasks.errors import InputError

FAST = 0.02


def lease_on(store):
    return Lease(store, "task")


def test_a_lease_is_given_back_at_the_end_and_after_an_error(blobs):
    with held(lease_on(blobs)) as lease:
        assert lease.holder().driver == lease.driver
    with pytest.raises(ZeroDivisionError), held(lease_on(blobs)):
        raise ZeroDivisionError
    with held(lease_on(blobs)):
        pass


def test_the_second_driver_is_refused_at_once_unless_it_waits(blobs):
    said = []
    with (
        held(lease_on(blobs)),
        pytest.raises(LeaseHeld, match="in use by process"),
        held(lease_on(blobs), say=said.append),
    ):
        pass
    assert said == []


def test_a_lease_is_renewed_while_it_is_held(blobs):
    with held(Lease(blobs, "task", ttl_s=0.3)) as lease:
        first, pause = lease.holder().expires_at, threading.Event()
        for _ in range(2000):
            if lease.holder().expires_at > first:
                break
            pause.wait(0.01)
        assert lease.holder().expires_at > first


def test_a_waiting_driver_says_once_who_holds_it_and_gets_it_when_it_is_free(blobs):
    said, looked, got = [], threading.Semaphore(0), threading.Event()

    class Watched:
        def __getattr__(self, name):
            return getattr(blobs, name)

        def create(self, key, data):
            looked.release()
            return blobs.create(key, data)

    def wait():
        with held(lease_on(Watched()), wait=True, say=said.append, look_every_s=FAST):
            got.set()

    waiter = threading.Thread(target=wait)
    with held(lease_on(blobs)) as lease:
        waiter.start()
        for _ in range(3):
            assert looked.acquire(timeout=60)
        assert not got.is_set()
        assert said == [f"ledger task is in use by {lease.holder()}; waiting until it is released or expires"]
    waiter.join(60)
    assert got.is_set()
    assert len(said) == 1


def test_a_waiting_driver_takes_over_what_expires(blobs):
    Lease(blobs, "task", ttl_s=0.2).acquire(time.time())
    with held(lease_on(blobs), wait=True, look_every_s=FAST) as lease:
        assert lease.holder().driver == lease.driver


def test_a_waiting_driver_stops_when_it_is_told_to(blobs):
    stop, said = threading.Event(), []

    def say(text):
        said.append(text)
        stop.set()

    with held(lease_on(blobs)):
        waiting = held(lease_on(blobs), wait=True, say=say, stop=stop.is_set, look_every_s=600)
        with pytest.raises(LeaseHeld, match="in use by process"):
            waiting.__enter__()
    assert len(said) == 1


def test_a_waiting_driver_bears_with_a_store_that_is_away(blobs):
    class Shaky:
        n_calls = 0

        def __getattr__(self, name):
            return getattr(blobs, name)

        def create(self, key, data):
            Shaky.n_calls += 1
            if Shaky.n_calls in (2, 3):
                raise OSError(5, "away")
            if Shaky.n_calls == 4:
                first.release()
            return blobs.create(key, data)

    first = lease_on(blobs)
    first.acquire(time.time())
    with held(lease_on(Shaky()), wait=True, look_every_s=FAST) as lease:
        assert lease.holder().driver == lease.driver
    assert Shaky.n_calls == 4


def test_whoever_has_the_lease_instead_is_named_once(blobs):
    told, heard = [], threading.Event()

    def lost(reason):
        told.append(reason)
        heard.set()

    other = lease_on(blobs)
    with held(Lease(blobs, "task", ttl_s=0.05), lost=lost) as lease:
        blobs.delete("ledger/task/lease.json")  # as if it had expired and been taken over
        other.acquire(time.time() + 3600)
        assert heard.wait(60)
        assert other.holder().driver == other.driver != lease.driver
    assert told == [f"lease lost: ledger task is in use by {other.holder()}"]
    assert other.holder() is not None, "what is another's is not given back"


@pytest.mark.parametrize("ending", ["vanished", "given back"])
def test_a_lease_that_nobody_has_is_taken_again(blobs, ending):
    told, key = [], "ledger/task/lease.json"
    with held(lease_on(blobs)):
        pass
    given_back = blobs.get(key)
    with held(Lease(blobs, "task", ttl_s=0.05), lost=told.append) as lease:
        if ending == "vanished":
            blobs.delete(key)
        else:
            blobs.put(key, given_back)
        until = time.monotonic() + 60
        while (holder := lease.holder()) is None or holder.driver != lease.driver:
            assert time.monotonic() < until
            time.sleep(FAST)
    assert told == []


def test_a_store_that_is_away_for_longer_than_the_lease_does_not_lose_it(blobs):
    """Nobody could take it meanwhile: it is renewed, expired as it is."""

    class Shaky:
        n_failures = 0

        def __getattr__(self, name):
            return getattr(blobs, name)

        def swap(self, key, data, expected):
            if Shaky.n_failures < 5:
                Shaky.n_failures += 1
                raise OSError(5, "away")
            back.set()
            return blobs.swap(key, data, expected)

    told, back = [], threading.Event()
    with held(Lease(Shaky(), "task", ttl_s=0.05), lost=told.append) as lease:
        assert back.wait(60)
        assert lease.holder().driver == lease.driver
    assert told == []


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    class Denied(LocalBlobs):
        def create(self, key, data):
            raise PermissionError(13, "Permission denied")

    with (
        pytest.raises(InputError, match="cannot be written: Permission denied") as caught,
        held(lease_on(Denied(tmp_path))),
    ):
        pass
    assert caught.value.where.endswith("ledger/task/lease.json")
