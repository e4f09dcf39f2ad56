import json
import os
import subprocess
import sys
import threading

import pytest

from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.lease import Lease, LeaseHeld
from tasks.errors import RefitError

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.lease import Lease
Lease(LocalBlobs(Path(sys.argv[1])), "task").acquire(1000.0)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def store(tmp_path):
    return LocalBlobs(tmp_path)


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


def test_the_lease_of_a_killed_process_is_taken_over_at_once(store, tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
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


def test_of_many_drivers_at_once_one_gets_it(store):
    won, refused = [], []

    def run(lease):
        try:
            lease.acquire(0)
            won.append(lease)
        except LeaseHeld as error:
            refused.append(error)

    threads = [threading.Thread(target=run, args=(lease_on(store),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)
    assert won[0].renew(1)
