"""Calls made at a time: in order, with the first error in its turn, and really at the same time where a store asks for it."""

from __future__ import annotations

import time
from threading import Barrier, Lock

import pytest
from stored_rows import make_row

from orchestrator.storage.at_once import each
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.object_blobs import ObjectBlobs


@pytest.mark.parametrize("at_once", [1, 2, 50])
@pytest.mark.parametrize("n_items", [0, 1, 7, 200])
def test_results_are_those_of_a_loop(at_once, n_items):
    assert list(each(str, range(n_items), at_once)) == [str(i) for i in range(n_items)]


@pytest.mark.parametrize("at_once", [1, 4])
def test_an_error_comes_in_its_turn_and_ends_it(at_once):
    seen, lock = [], Lock()

    def visit(i):
        with lock:
            seen.append(i)
        if i == 3:
            raise OSError("the store is away")
        if i > 100:
            time.sleep(0.01)
        return i

    results = each(visit, range(10_000), at_once)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the store is away"):
        next(results)
    assert len(seen) < 10_000


class Meets(LocalBlobs):
    """A store that answers a get only when `at_once` of them wait for it."""

    at_once = 3
    meeting = Barrier(at_once, timeout=60)

    def get(self, key):
        self.meeting.wait()
        return super().get(key)


def test_a_ledger_reads_as_many_parts_at_a_time_as_its_store_asks_for(tmp_path):
    rows = [make_row(i) for i in range(2 * Meets.at_once)]
    writer = Ledger(LocalBlobs(tmp_path), "task")
    for row in rows:
        writer.publish([row])
    ledger = Ledger(Meets(tmp_path), "task")
    assert ledger.index().rows == writer.index().rows
    assert list(ledger.read().rows) == sorted(row.spec_id for row in rows)
    assert ledger.verify() == []


def test_a_bucket_is_asked_many_times_at_once_and_a_disk_is_not():
    assert (LocalBlobs.at_once, ObjectBlobs.at_once > 8) == (1, True)
