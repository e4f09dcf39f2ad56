import json
import os
import subprocess
import sys
from functools import partial

import pytest
from stored_rows import uri_of
from test_blob_contract import at_once

from orchestrator.storage.lease import Lease, LeaseHeld
from tasks.errors import RefitError

STORES = ("local", "s3", "gs")
HOLD = """
import sys, time
from orchestrator.storage.open import open_blobs
from orchestrator.storage.lease import Lease
Lease(open_blobs(sys.argv[1], "store"), "task").acquire(1000.0)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def store(blobs):
    return blobs


def lease_on(store, **options):
    return Lease(store, "task", **options)


def edit(store, **fields):
    stored = json.loads(store.get("ledger/task/lease.json"))
    store.put("ledger/task/lease.json", json.dumps({**stored, **fields}).encode())


def test_the_second_driver_is_told_who_holds_it(store):
    lease_on(store, ttl_s=60).acquire(1_700_000_000)
    with pytest.raises(LeaseHeld) as caught:
        lease_on(store).acquire(1_700_000_059)
    assert isinstance(caught.value, RefitError)
    for part in (f"process {os.getpid()}", os.uname().nodename, "2023-11-14T22:14:20+00:00"):
        assert part in str(caught.value)


def test_leases_of_other_ledgers_do_not_meet(store):
    lease_on(store).acquire(0)
    Lease(store, "other").acquire(0)
    assert store.list("ledger/") == ["ledger/other/lease.json", "ledger/task/lease.json"]


def test_release_frees_it(store):
    first, second = lease_on(store), lease_on(store)
    first.acquire(0)
    second.release()
    assert first.renew(1)
    first.release()
    first.release()
    second.acquire(2)
    assert second.renew(3)


def test_renewal_extends_it(store):
    first, second = lease_on(store, ttl_s=60), lease_on(store)
    first.acquire(0)
    assert first.renew(50)
    with pytest.raises(LeaseHeld):
        second.acquire(100)
    first.acquire(105)
    with pytest.raises(LeaseHeld):
        second.acquire(160)


def test_an_expired_lease_is_taken_over_and_its_driver_notices(store):
    first, second = lease_on(store, ttl_s=60), lease_on(store, ttl_s=60)
    first.acquire(0)
    second.acquire(60)
    assert not first.renew(61)
    assert second.renew(62)
    first.release()
    assert second.renew(63)
    with pytest.raises(LeaseHeld):
        first.acquire(64)


def test_an_expired_lease_nobody_took_can_be_renewed(store):
    first = lease_on(store, ttl_s=60)
    first.acquire(0)
    assert first.renew(1000)


def test_a_lease_somebody_removed_is_lost(store):
    first = lease_on(store)
    first.acquire(0)
    store.delete("ledger/task/lease.json")
    assert not first.renew(1)
    assert not store.exists("ledger/task/lease.json")


def test_the_lease_of_a_killed_process_is_taken_over_at_once(store):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, uri_of(store)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LeaseHeld, match=f"process {holder.pid}"):
            lease_on(store).acquire(1001)
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # ended, and still a zombie
        lease_on(store).acquire(1001)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_process_that_got_the_number_of_a_dead_one_does_not_hold_its_lease(store):
    lease_on(store).acquire(0)
    edit(store, started="1")
    second = lease_on(store)
    second.acquire(1)
    assert second.renew(2)


def test_the_process_of_another_machine_is_believed_until_expiry(store):
    lease_on(store, ttl_s=60).acquire(0)
    edit(store, machine="elsewhere", started="1", pid=999999999, host="node7")
    with pytest.raises(LeaseHeld, match="host node7"):
        lease_on(store).acquire(59)
    lease_on(store).acquire(60)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"null", b"\xff", b'{"driver": 1}', b'{"driver": "x", "expires_at": 1e99}']
)
def test_a_damaged_lease_is_replaced(store, damage):
    lease, other = lease_on(store), lease_on(store)
    lease.acquire(0)
    store.put("ledger/task/lease.json", damage)
    assert lease.holder() is None
    assert lease.renew(1)
    store.put("ledger/task/lease.json", damage)
    other.acquire(2)
    assert not lease.renew(3)


@pytest.mark.parametrize("expires_at", [1e99, float("nan"), "soon", None])
def test_an_expiry_that_is_no_time_is_damage(store, expires_at):
    lease_on(store).acquire(0)
    edit(store, expires_at=expires_at)
    second = lease_on(store)
    assert second.holder() is None
    second.acquire(1)
    assert second.renew(2)


def outcomes(leases, now):
    """What became of these drivers' acquiring the lease at once."""
    results = at_once(len(leases), lambda i: leases[i].acquire(now))
    refused = [error for error in results if isinstance(error, LeaseHeld)]
    assert all(error is None or isinstance(error, LeaseHeld) for error in results), results
    return [lease for lease, error in zip(leases, results, strict=True) if error is None], refused


def test_of_many_drivers_at_once_one_gets_it(store):
    won, refused = outcomes([lease_on(store) for _ in range(8)], 0)
    assert (len(won), len(refused)) == (1, 7)
    assert won[0].renew(1)
    assert won[0].holder().driver == won[0].driver


def test_of_two_that_take_over_at_once_one_gets_it_every_time(store):
    now = 0.0
    lease_on(store, ttl_s=60).acquire(now)
    for _ in range(40):
        now += 60
        won, refused = outcomes([lease_on(store, ttl_s=60) for _ in range(2)], now)
        assert (len(won), len(refused)) == (1, 1)
        assert won[0].holder().driver == won[0].driver
        assert f"process {os.getpid()}" in str(refused[0])


def test_an_expired_driver_that_renews_while_another_takes_over_knows_who_has_it(store):
    now, first = 0.0, lease_on(store, ttl_s=60)
    first.acquire(now)
    for _ in range(25):
        now += 60
        second = lease_on(store, ttl_s=60)
        acts = partial(first.renew, now), partial(second.acquire, now)
        renewed, taken = at_once(2, lambda i, acts=acts: acts[i]())
        assert isinstance(taken, LeaseHeld) == renewed
        first = first if renewed else second
        assert first.holder().driver == first.driver


def test_a_driver_that_gives_back_late_leaves_its_successor_the_lease(store):
    first = lease_on(store, ttl_s=60)
    first.acquire(0)

    class Overtaken:
        """The successor takes over between the look and the release."""

        def __getattr__(self, name):
            return getattr(store, name)

        def get(self, key):
            found = store.get(key)
            second.acquire(61)
            return found

    second, first.blobs = lease_on(store, ttl_s=60), Overtaken()
    first.release()
    assert second.renew(62)
    assert second.holder().driver == second.driver


def test_a_lease_given_back_has_no_holder(store):
    first = lease_on(store)
    first.acquire(0)
    first.release()
    assert first.holder() is None
    assert not first.renew(1)
    won, refused = outcomes([lease_on(store) for _ in range(2)], 2)
    assert (len(won), len(refused)) == (1, 1)


class LostAnswers:
    """A store whose conditional writes are made, and reported as lost to another: what a retried request looks like."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def create(self, key, data):
        self._store.create(key, data)
        return False

    def swap(self, key, data, expected):
        self._store.swap(key, data, expected)
        return False


def test_a_lost_answer_is_not_taken_for_a_lost_lease(store):
    lease = lease_on(LostAnswers(store), ttl_s=60)
    lease.acquire(0)
    assert lease.renew(1)
    lease.acquire(2)
    with pytest.raises(LeaseHeld):
        lease_on(LostAnswers(store)).acquire(3)
    other = lease_on(LostAnswers(store))
    other.acquire(63)
    assert not lease.renew(64)
    assert other.holder().driver == other.driver
