"""What a ledger reads, and what it need not read again."""

from __future__ import annotations

from stored_rows import ledger_at, make_row, part_key


def test_rows_asked_for_are_not_looked_for_in_parts_known_to_hold_others(blobs):
    ledger = ledger_at(blobs)
    (first, other) = (ledger.publish([make_row(i)]) for i in range(2))
    ledger.index()
    blobs.put(part_key(other), b"")
    wanted = make_row(0).spec_id
    assert set(ledger.read([wanted]).rows) == {wanted}
    assert ledger.read([wanted]).bad_parts == ()
    assert [part.name for part in ledger.read().bad_parts] == [other]
    assert first != other


def test_a_part_that_goes_bad_after_it_was_written_is_not_known_any_more(blobs):
    ledger = ledger_at(blobs)
    name = ledger.publish([make_row(0)])
    blobs.put(part_key(name), b"")
    assert [part.name for part in ledger.read().bad_parts] == [name]
    assert [part.name for part in ledger.index().bad_parts] == [name], "else nobody would retrain what it held"
    assert ledger.index().rows == {}


def test_what_was_read_need_not_be_read_again_to_know_what_it_holds(blobs):
    ledger_at(blobs).publish([make_row(0)])
    name = ledger_at(blobs).publish([make_row(1)])
    ledger = ledger_at(blobs)
    assert set(ledger.read([make_row(0).spec_id]).rows) == {make_row(0).spec_id}
    blobs.put(part_key(name), b"")
    assert set(ledger.read([make_row(0).spec_id]).rows) == {make_row(0).spec_id}
    assert ledger.index().bad_parts == ()


def test_damage_to_a_part_that_holds_what_is_asked_for_is_seen(blobs):
    ledger = ledger_at(blobs)
    name = ledger.publish([make_row(0)])
    ledger.index()
    blobs.put(part_key(name), b"")
    view = ledger.read([make_row(0).spec_id])
    assert view.rows == {}
    assert [part.name for part in view.bad_parts] == [name]


def test_the_index_follows_parts_that_come_and_go(blobs):
    ledger, writer = ledger_at(blobs), ledger_at(blobs)
    assert ledger.index().rows == {}
    name = writer.publish([make_row(0)])
    writer.publish([make_row(1)])
    assert set(ledger.index().rows) == {make_row(0).spec_id, make_row(1).spec_id}
    writer.set_aside(name)
    assert set(ledger.index().rows) == {make_row(1).spec_id}
