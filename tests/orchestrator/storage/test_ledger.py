import hashlib
import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stored_rows import by_spec, keys_of, ledger_at, make_row, part_key

from orchestrator.storage.ledger import BadPart
from orchestrator.storage.ledger_parts import SCHEMA, decode_index, decode_rows, encode_rows, index_of, row_key
from tasks.data.edits import Edit
from tests.edits import reweighting

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=FLOATS)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
WEIGHTS = st.dictionaries(st.integers(0, 9999), st.sampled_from([0.0, 0.5, 2.0, 1e-300]), max_size=4)


@st.composite
def rows(draw):
    row = make_row(
        draw(st.integers(0, 5)),
        second=draw(st.integers(0, 3)),
        status=draw(st.sampled_from(["ok", "diverged", "quarantined"])),
        outputs=draw(st.dictionaries(NAMES, ARRAYS, max_size=3)),
        metrics=draw(st.dictionaries(NAMES, st.floats(), max_size=3)),
        error=draw(st.none() | NAMES | st.sampled_from(["", "naïve – 漢字 \U0001f642\x00\n"])),
        seconds=draw(st.floats(0, 1e9)),
    )
    return replace(row, attempts=draw(st.integers(1, 2**31 - 1)), edit=reweighting(draw(WEIGHTS)))


@settings(max_examples=40, deadline=None)
@given(st.lists(rows(), min_size=1, max_size=6))
def test_rows_come_back_bit_by_bit(written):
    written = [replace(r, outcome=replace(r.outcome, metrics=dict(sorted(r.outcome.metrics.items())))) for r in written]
    read = decode_rows(encode_rows(written))
    assert sorted(map(row_key, read)) == sorted(map(row_key, written))
    assert {v.dtype for row in read for v in row.outcome.outputs.values()} <= {np.dtype(np.float32)}


@settings(max_examples=20, deadline=None)
@given(st.lists(rows(), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_same_rows_give_the_same_bytes_in_any_order(written, random):
    shuffled = list(written)
    random.shuffle(shuffled)
    assert encode_rows(shuffled) == encode_rows(written)


def test_outputs_keep_their_shapes():
    shapes = {"none": (), "empty": (0,), "rows": (0, 3), "matrix": (2, 3), "cube": (1, 2, 3)}
    outputs = {name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for name, shape in shapes.items()}
    outputs["transposed"] = np.arange(6, dtype=np.float32).reshape(2, 3).T
    (row,) = decode_rows(encode_rows([make_row(0, outputs=outputs)]))
    for name, value in outputs.items():
        np.testing.assert_array_equal(row.outcome.outputs[name], value, strict=True)


def test_rows_without_outputs_beside_rows_with():
    written = [make_row(0, outputs={}, metrics={}), make_row(1), make_row(2, outputs={"a": np.ones(3, np.float32)})]
    assert sorted(map(row_key, decode_rows(encode_rows(written)))) == sorted(map(row_key, written))


def test_text_that_has_no_utf8_is_kept_readable():
    (row,) = decode_rows(encode_rows([make_row(0, error="bad file \udcff")]))
    assert row.outcome.error == r"bad file \udcff"


def test_wider_floats_are_recorded_as_float32():
    (row,) = decode_rows(encode_rows([make_row(0, outputs={"x": np.array([0.1, 1e300])})]))
    np.testing.assert_array_equal(row.outcome.outputs["x"], np.array([0.1, np.inf], np.float32), strict=True)


def test_times_are_kept_in_utc():
    (row,) = decode_rows(encode_rows([replace(make_row(0), committed_at="2024-05-06T09:00:00+02:00")]))
    assert row.committed_at == "2024-05-06T07:00:00.000000+00:00"
    with pytest.raises(ValueError, match="no time zone"):
        encode_rows([replace(make_row(0), committed_at="2024-05-06T09:00:00")])


def test_a_part_is_named_by_its_bytes_and_others_can_read_it(blobs):
    ledger = ledger_at(blobs)
    name = ledger.publish([make_row(1), make_row(0)])
    data = blobs.get(part_key(name))
    assert name == f"part-{hashlib.sha256(data).hexdigest()}.parquet"
    frame = pq.read_table(io.BytesIO(data)).to_pandas()
    assert list(frame.columns) == SCHEMA.names
    row = next(r for r in (make_row(0), make_row(1)) if r.spec_id == frame.spec_id[0])
    name, values = frame.outputs[0][0]
    assert name == "test"
    assert np.array_equal(values, row.outcome.outputs["test"].reshape(-1))


def test_publishing_the_same_rows_again_changes_nothing(blobs):
    ledger = ledger_at(blobs)
    assert ledger.publish([make_row(0), make_row(1)]) == ledger.publish([make_row(1), make_row(0)])
    assert len(ledger.parts()) == 1
    with pytest.raises(ValueError, match="at least one row"):
        ledger.publish([])


def test_read_gives_every_published_row(blobs):
    written = [make_row(i) for i in range(9)]
    for row in written:
        ledger_at(blobs).publish([row])
    view = ledger_at(blobs).read()
    assert keys_of(view.rows) == by_spec(written)
    assert list(view.rows) == sorted(view.rows)
    assert (view.conflicts, view.bad_parts) == ((), ())


def test_read_can_be_limited_to_some_specs(blobs):
    written = [make_row(i) for i in range(6)]
    ledger = ledger_at(blobs)
    ledger.publish(written[:4])
    ledger.publish(written[4:])
    wanted = {written[1].spec_id, written[5].spec_id, "f" * 32}
    assert keys_of(ledger.read(wanted).rows) == by_spec([written[1], written[5]])
    assert ledger.read(set()).rows == {}


def test_an_empty_ledger_reads_as_empty(blobs):
    ledger = ledger_at(blobs)
    assert (ledger.read().rows, ledger.index().rows, ledger.verify(), ledger.compact()) == ({}, {}, [], [])


def test_index_is_the_rows_without_outputs(blobs):
    ledger = ledger_at(blobs)
    ledger.publish([make_row(0, error="ouch", status="quarantined"), make_row(1)])
    entry = ledger.index().rows[make_row(0).spec_id]
    assert entry._asdict() == {
        "spec_id": make_row(0).spec_id, "status": "quarantined", "attempts": 1, "seconds": 0.5, "error": "ouch",
        "committed_at": "2024-05-06T07:00:00.000000+00:00",
    }  # fmt: skip
    ledger.publish([make_row(2)])
    assert set(ledger.index().rows) == {make_row(i).spec_id for i in range(3)}


@given(st.lists(rows(), max_size=6))
def test_what_a_part_holds_is_known_without_reading_it(written):
    assert Counter(index_of(written)) == Counter(decode_index(encode_rows(written)))


@pytest.mark.parametrize("is_writer", [True, False])
def test_index_does_not_read_a_part_again_that_it_wrote_or_verified(blobs, is_writer):
    writer = ledger_at(blobs)
    name = writer.publish([make_row(0)])
    ledger = writer if is_writer else ledger_at(blobs)
    before = ledger_at(blobs).index()
    assert is_writer or ledger.index() == before
    blobs.put(part_key(name), b"")
    assert ledger.index() == before
    assert [part.name for part in ledger_at(blobs).index().bad_parts] == [name]


def test_the_first_commit_of_a_spec_stands(blobs):
    early, late = make_row(0, second=1, worker="early"), make_row(0, second=2, worker="late")
    ledger = ledger_at(blobs)
    ledger.publish([late])
    ledger.publish([early, late])
    assert ledger.read().rows[early.spec_id].outcome.worker == "early"
    assert ledger.read().conflicts == ()


@pytest.mark.parametrize("finished", ["ok", "diverged"])
def test_a_finished_row_comes_before_an_earlier_quarantined_one(blobs, finished):
    quarantined = make_row(0, second=1, status="quarantined", outputs={}, error="out of memory")
    ledger = ledger_at(blobs)
    ledger.publish([quarantined])
    assert ledger.index().rows[quarantined.spec_id].status == "quarantined"
    ledger.publish([make_row(0, second=9, status=finished)])
    view = ledger.read()
    assert view.rows[quarantined.spec_id].outcome.status == finished
    assert ledger.index().rows[quarantined.spec_id].status == finished
    assert view.conflicts == ()


@pytest.mark.parametrize(
    "change",
    [
        {"status": "diverged"},
        {"outputs": {}},
        {"outputs": {"test": np.nextafter(make_row(0).outcome.outputs["test"], np.float32(9))}},
        {"outputs": {"test": make_row(0).outcome.outputs["test"].reshape(2, 5)}},
        {"outputs": {"test2": make_row(0).outcome.outputs["test"]}},
    ],
)
def test_rows_of_one_spec_that_differ_in_a_bit_are_reported(blobs, change):
    ledger = ledger_at(blobs)
    ledger.publish([make_row(0), make_row(1)])
    ledger.publish([make_row(0, second=1, **change)])
    view = ledger.read()
    assert view.conflicts == (make_row(0).spec_id,)
    assert row_key(view.rows[view.conflicts[0]]) == row_key(make_row(0))


def test_equal_bits_are_no_conflict_even_if_they_are_nan(blobs):
    same = {"x": np.array([np.nan, -0.0], np.float32)}
    ledger = ledger_at(blobs)
    ledger.publish([make_row(0, outputs=same)])
    ledger.publish([make_row(0, outputs=same, second=1, seconds=3.0, worker="other")])
    assert ledger.read().conflicts == ()


def test_a_row_under_anothers_name_or_edit_does_not_verify(blobs):
    ledger = ledger_at(blobs)
    assert ledger.verify() == []
    forged = [replace(make_row(0), spec=make_row(1).spec), replace(make_row(2), edit=Edit.removal([7]))]
    names = [ledger.publish([row]) for row in forged]
    ledger.publish([make_row(3)])
    assert sorted(ledger.verify(), key=lambda part: names.index(part.name)) == [
        BadPart(names[0], f"row {make_row(0).spec_id}: the id is not the digest of its spec"),
        BadPart(names[1], f"row {make_row(2).spec_id}: the edit is not the one that its spec names"),
    ]


def test_the_record_is_written_once_and_mended_when_damaged(blobs):
    ledger = ledger_at(blobs)
    assert ledger.description() is None
    ledger.describe({"splits": ["test"], "n": 3})
    ledger.describe({"splits": ["other"]})
    assert ledger_at(blobs).description() == {"splits": ["test"], "n": 3}
    blobs.put("ledger/task/task.json", b"{")
    ledger.describe({"n": 4})
    assert ledger.description() == {"n": 4}


def test_index_of_a_part_matches_its_rows():
    written = [make_row(i, second=i, status="diverged") for i in range(4)]
    index = {entry.spec_id: entry for entry in decode_index(encode_rows(written))}
    assert all(index[row.spec_id].committed_at == row.committed_at for row in written)
