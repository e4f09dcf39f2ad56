import io
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_rows import by_spec, keys_of, ledger_at, make_row, part_key, uri_of
from test_blobs import full_disk

from orchestrator.storage.blobs import LocalBlobs, StoreAwayError
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.ledger_parts import part_name
from orchestrator.storage.ledgers import Ledgers

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from orchestrator.storage.open import open_blobs
from stored_rows import ledger_at, make_row
ledger, first = ledger_at(open_blobs(sys.argv[2], "store")), int(sys.argv[3])
for seed in range(first, first + 10_000):
    ledger.publish([make_row(seed)])
    print(seed, flush=True)
    if seed % 4 == 3:
        ledger.compact(min_parts=3, max_rows=50)
"""


class StoppedError(Exception):
    """The process ends here."""


class Around:
    """Another store behind this one, for subclasses that come between."""

    def __init__(self, blobs):
        self.blobs = blobs

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.blobs, name)


class StoppingBlobs(Around):
    """A store whose process ends at its n-th change, before or after it is made."""

    def __init__(self, blobs, change, after):
        super().__init__(blobs)
        self.left, self.after = change, after

    def _change(self, act):
        self.left -= 1
        ends = self.left == 0
        if not ends or self.after:
            act()
        if ends:
            raise StoppedError

    def put(self, key, data):
        self._change(lambda: self.blobs.put(key, data))

    def delete(self, key):
        self._change(lambda: self.blobs.delete(key))


def test_a_flipped_byte_anywhere_is_found_set_aside_and_costs_only_its_part(blobs):
    ledger = ledger_at(blobs)
    name, other = ledger.publish([make_row(i) for i in range(5)]), ledger.publish([make_row(9)])
    good = blobs.get(part_key(name))
    spread = np.linspace(0, len(good) - 1, 15).astype(int)
    for position in {*spread.tolist(), *np.random.default_rng(0).integers(0, len(good), 15).tolist()}:
        damaged = bytearray(good)
        damaged[position] ^= 1 << position % 8
        blobs.put(part_key(name), bytes(damaged))
        fresh = ledger_at(blobs)
        assert [part.name for part in fresh.verify()] == [name], position
        assert [part.name for part in fresh.index().bad_parts] == [name]
        assert set(fresh.read().rows) == {make_row(9).spec_id}
    ledger.set_aside(name)
    assert ledger.parts() == [other]
    assert blobs.get(part_key(f"corrupt/{name}")) == bytes(damaged)
    assert (ledger.index().bad_parts, ledger.verify(), set(ledger.index().rows)) == ((), [], {make_row(9).spec_id})


@pytest.mark.parametrize("kept", [0, 1, 4, 100, -100, -8, -1])
def test_a_truncated_part_is_found(blobs, kept):
    name = ledger_at(blobs).publish([make_row(0)])
    blobs.put(part_key(name), blobs.get(part_key(name))[:kept])
    assert [part.name for part in ledger_at(blobs).verify()] == [name]
    assert ledger_at(blobs).read().rows == {}


def test_publishing_again_mends_a_damaged_part(blobs):
    ledger = ledger_at(blobs)
    name = ledger.publish([make_row(0)])
    blobs.put(part_key(name), b"PAR1")
    assert ledger.publish([make_row(0)]) == name
    assert ledger.verify() == []


def parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def test_a_part_of_another_layout_is_bad_even_under_the_right_name(blobs):
    ledger = ledger_at(blobs)
    good = pq.read_table(io.BytesIO(blobs.get(part_key(ledger.publish([make_row(0)])))))
    other_columns = good.drop_columns(["edit"]), good.append_column("new", good["spec"])
    contents = [b"", b"not parquet", *map(parquet, other_columns)]
    for data in contents:
        blobs.put(part_key(part_name(data)), data)
    blobs.put(part_key("part-1.parquet"), b"")
    expected = sorted([*map(part_name, contents), "part-1.parquet"])
    assert [part.name for part in ledger.index().bad_parts] == expected
    assert [part.name for part in ledger.verify()] == expected
    assert set(ledger.read().rows) == {make_row(0).spec_id}


class Unreadable(Around):
    """A disk with a bad sector, or a file system that does not answer for a while."""

    def get(self, key):
        raise OSError(5, "Input/output error")


def test_a_part_that_cannot_be_read_is_named_and_is_not_damaged(blobs):
    name = ledger_at(blobs).publish([make_row(0)])
    ledger = Ledger(Unreadable(blobs), "task")
    for look in (ledger.read, ledger.index, ledger.compact):
        with pytest.raises(StoreAwayError, match=f"{name}: cannot be read: Input/output error"):
            look()
    (bad,) = ledger.verify()
    assert (bad.name, bad.problem) == (name, "cannot be read: Input/output error")


def test_tidying_moves_no_part_that_could_not_be_read_just_now(blobs):
    name = ledger_at(blobs).publish([make_row(0)])
    with pytest.raises(StoreAwayError):
        Ledgers({"": "task"}, {"task": Ledger(Unreadable(blobs), "task")}).tidy({"task": {}})
    assert ledger_at(blobs).parts() == [name]


def test_parts_that_cannot_be_merged_stay_as_they_are(blobs, caplog):
    writer = ledger_at(blobs)
    names = sorted(writer.publish([make_row(i)]) for i in range(4))

    class Full(Around):
        def put(self, key, data):
            raise OSError(28, "No space left on device")

    ledger = Ledger(Full(blobs), "task")
    assert ledger.compact(min_parts=2) == []
    assert ledger.parts() == names
    assert "4 parts stay as they are (OSError: [Errno 28] No space left on device)" in caplog.text


def test_a_full_disk_fails_the_publish_and_loses_nothing(tmp_path):
    ledger = ledger_at(LocalBlobs(tmp_path))
    ledger.publish([make_row(0)])
    with full_disk(2000), pytest.raises(OSError, match="File too large"):
        ledger.publish([make_row(i) for i in range(1, 30)])
    assert len(list((tmp_path / "ledger/task").iterdir())) == 1
    assert (set(ledger.read().rows), ledger.verify()) == ({make_row(0).spec_id}, [])
    ledger.publish([make_row(i) for i in range(1, 30)])
    assert len(ledger.read().rows) == 30


def test_compaction_keeps_every_row_in_fewer_parts(blobs):
    written = [make_row(i) for i in range(25)]
    ledger = ledger_at(blobs)
    for row in written:
        ledger.publish([row])
    assert ledger.compact(min_parts=26) == []
    merged = ledger.compact(min_parts=2, max_rows=10)
    assert sorted(merged) == ledger.parts()
    assert len(merged) == 3
    for reader in (ledger, ledger_at(blobs)):
        assert keys_of(reader.read().rows) == by_spec(written)
        assert (set(reader.index().rows), reader.verify()) == (set(by_spec(written)), [])


def test_compaction_leaves_large_and_damaged_parts_alone(blobs):
    ledger = ledger_at(blobs)
    large, bad = ledger.publish([make_row(i) for i in range(5)]), ledger.publish([make_row(50)])
    small = [ledger.publish([make_row(i)]) for i in (10, 11)]
    blobs.put(part_key(bad), b"x")
    (merged,) = ledger_at(blobs).compact(min_parts=2, max_rows=5)
    assert ledger.parts() == sorted([large, bad, merged])
    assert not set(small) & set(ledger.parts())
    assert ledger.compact(min_parts=2, max_bytes=1) == []


def test_compaction_keeps_conflicts_and_drops_only_copies(blobs):
    ledger = ledger_at(blobs)
    ledger.publish([make_row(0), make_row(1)])
    ledger.publish([make_row(1), make_row(0, second=1, status="diverged")])
    before = ledger.read()
    (merged,) = ledger.compact(min_parts=2)
    assert pq.read_metadata(io.BytesIO(blobs.get(part_key(merged)))).num_rows == 3
    assert ledger.read().conflicts == before.conflicts == (make_row(0).spec_id,)


def test_a_part_that_holds_all_rows_of_the_others_survives_its_own_compaction(blobs):
    ledger = ledger_at(blobs)
    for i in range(3):
        ledger.publish([make_row(i)])
    [whole] = ledger.compact(min_parts=2)
    ledger.publish([make_row(1)])
    assert ledger.compact(min_parts=2) == [whole]
    assert ledger.parts() == [whole]
    assert len(ledger.read().rows) == 3


@settings(max_examples=12, deadline=None)
@given(parts=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True), min_size=2, max_size=7),
       max_rows=st.integers(2, 9), change=st.integers(1, 12), after=st.booleans())  # fmt: skip
def test_a_compaction_that_stops_anywhere_loses_no_row(new_blobs, parts, max_rows, change, after):
    blobs = new_blobs()
    ledger = ledger_at(blobs)
    for seeds in parts:
        ledger.publish([make_row(seed) for seed in seeds])
    expected = keys_of(ledger.read().rows)
    with suppress(StoppedError):
        Ledger(StoppingBlobs(blobs, change, after), "task").compact(min_parts=2, max_rows=max_rows)
    for reader in (ledger, ledger_at(blobs)):
        assert keys_of(reader.read().rows) == expected
        assert reader.verify() == []
    ledger.compact(min_parts=2, max_rows=max_rows)
    assert keys_of(ledger_at(blobs).read().rows) == expected


def test_a_reader_sees_rows_whose_part_is_merged_away_while_it_reads(blobs):
    written = [make_row(i) for i in range(6)]
    for row in written:
        ledger_at(blobs).publish([row])

    class Overtaken(Around):
        done = False

        def get(self, key):
            if not self.done:
                self.done = True
                ledger_at(blobs).compact(min_parts=2)
            return blobs.get(key)

    for read in ("read", "index"):
        view = getattr(Ledger(Overtaken(blobs), "task"), read)()
        assert set(view.rows) == set(by_spec(written))
        assert view.bad_parts == ()


def test_writers_compactors_and_readers_at_once_lose_nothing(blobs):
    failures, done = [], threading.Event()

    def write(first):
        for seed in range(first, first + 30):
            ledger_at(blobs).publish([make_row(seed)])

    def until_done(act):
        while not done.is_set():
            act(ledger_at(blobs))

    def guarded(act, *args):
        try:
            act(*args)
        except BaseException as error:
            failures.append(error)

    def consistent(ledger):
        known = set(ledger.index().rows)
        view = ledger.read()
        assert (known - set(view.rows), view.bad_parts, view.conflicts) == (set(), (), ())

    writers = [threading.Thread(target=guarded, args=(write, first)) for first in (0, 15, 100)]
    others = [threading.Thread(target=guarded, args=(until_done, act))
              for act in (consistent, *[lambda ledger: ledger.compact(min_parts=3, max_rows=20)] * 2)]  # fmt: skip
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert failures == []
    assert keys_of(ledger_at(blobs).read().rows) == by_spec([make_row(i) for i in (*range(45), *range(100, 130))])


def test_killed_writers_lose_nothing_they_published(blobs):
    store, published = uri_of(blobs), []
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), store]
    kills = np.random.default_rng(1).uniform(0.02, 0.3, 3)
    writers = [subprocess.Popen([*command, str(i * 10_000)], stdout=subprocess.PIPE, text=True) for i in range(3)]
    for writer, seconds in zip(writers, kills, strict=True):
        assert writer.stdout is not None
        published.append(int(writer.stdout.readline()))  # it is at work
        time.sleep(seconds)
        writer.kill()
        published += [int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        writer.wait()
        writer.stdout.close()
    view = ledger_at(blobs).read()
    assert {make_row(seed).spec_id for seed in published} <= set(view.rows)
    assert (view.bad_parts, view.conflicts, ledger_at(blobs).verify()) == ((), (), [])
    expected = by_spec(map(make_row, published))
    assert keys_of(ledger_at(blobs).read(expected).rows) == expected
