"""The ledgers of a campaign as one: every row in the ledger of its arm, all rows together when they are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.records import LedgerRow, Outcome, RetrainSpec, Work
from orchestrator.storage.ledgers import Ledgers
from orchestrator.storage.store import Store
from tasks.data.edits import Edit

HOMES = {"a": "1" * 32, "twin": "1" * 32, "b": "2" * 32}  # arm -> task id: a and its twin record the same


def work_of(arm: str, seed: int) -> Work:
    spec = RetrainSpec("t" * 32, {"name": "dec"}, {"name": arm}, Edit().identity(), seed, {"device": "cpu"})
    return Work(spec, Edit(), (), arm)


def row_of(work: Work, value: float = 0.5) -> LedgerRow:
    outcome = Outcome(work.spec_id, "ok", {"train": np.full((2, 3), value, np.float32)}, {}, None, 0.1, "w", "cpu")
    return LedgerRow(outcome, work.spec.json, work.edit, 1, "2024-05-06T07:00:00.000000+00:00", "abc")


WORKS = [work_of(arm, seed) for arm in HOMES for seed in (1, 2)]


@pytest.fixture
def ledgers(tmp_path) -> Ledgers:
    """Every work of WORKS published in one go."""
    made = fresh(tmp_path)
    made.publisher(WORKS)([row_of(work) for work in WORKS])
    return made


def fresh(folder: Path) -> Ledgers:
    return Ledgers.of(Store(str(folder / "runs"), "test"), HOMES)


def parts(folder: Path) -> dict[str, list[Path]]:
    return {home: sorted((folder / "runs" / "ledger" / home).glob("part-*")) for home in set(HOMES.values())}


def test_arms_that_record_the_same_share_a_ledger(tmp_path):
    assert sorted(fresh(tmp_path).parts) == sorted(set(HOMES.values()))


def test_rows_go_to_the_ledger_of_their_arm(ledgers, tmp_path):
    for home in set(HOMES.values()):
        own = Store(str(tmp_path / "runs"), "test").ledger(home).read().rows
        assert own.keys() == {work.spec_id for work in WORKS if HOMES[work.arm] == home}
    assert all(len(found) == 1 for found in parts(tmp_path).values()), "one part a ledger and publication"


def test_publishing_names_every_part_it_wrote(tmp_path):
    said = fresh(tmp_path).publisher(WORKS)([row_of(work) for work in WORKS])
    assert sorted(said.split()) == sorted(part.name for found in parts(tmp_path).values() for part in found)


def test_a_row_of_no_known_work_is_not_published(tmp_path):
    with pytest.raises(KeyError):
        fresh(tmp_path).publisher(WORKS[:1])([row_of(WORKS[1])])


def test_reading_sees_all_ledgers(ledgers, tmp_path):
    everything = {work.spec_id for work in WORKS}
    again = fresh(tmp_path)
    assert again.read().rows.keys() == again.index().rows.keys() == everything
    wanted = {WORKS[0].spec_id, WORKS[-1].spec_id, "f" * 32}
    assert again.read(wanted).rows.keys() == wanted - {"f" * 32}
    assert again.verify() == []


def test_two_results_of_one_retrain_that_differ_are_told_whichever_ledger_holds_them(ledgers, tmp_path):
    for work in (WORKS[0], WORKS[-1]):
        ledgers.publisher([work])([row_of(work, 0.25)])
    assert sorted(fresh(tmp_path).read().conflicts) == sorted([WORKS[0].spec_id, WORKS[-1].spec_id])


def test_the_same_result_twice_is_no_conflict(ledgers, tmp_path):
    later = replace(row_of(WORKS[0]), committed_at="2024-05-06T08:00:00.000000+00:00")
    ledgers.publisher(WORKS)([later])
    assert fresh(tmp_path).read().conflicts == ()


def test_a_damaged_part_of_any_ledger_is_named_and_set_aside(ledgers, tmp_path):
    [part] = parts(tmp_path)[HOMES["b"]]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    again = fresh(tmp_path)
    for found in (again.verify(), again.index().bad_parts, again.read().bad_parts):
        assert [bad.name for bad in found] == [part.name]
    records = {home: {"version": number} for number, home in enumerate(sorted(set(HOMES.values())))}
    assert [bad.name for bad in again.tidy(records)] == [part.name]
    assert again.read().rows.keys() == {work.spec_id for work in WORKS if work.arm != "b"}
    assert again.verify() == []
    assert {home: ledger.description() for home, ledger in again.parts.items()} == records


def test_a_row_that_another_campaign_recorded_in_another_arms_ledger_does_not_count(tmp_path):
    """A spec says what is trained: the same training may stand, with other measured splits, in what is here another arm's ledger."""
    store = Store(str(tmp_path), "test")
    work = Work(RetrainSpec("t", "m", "r", Edit().identity(), 1, {}), Edit(), (), "b")
    row = LedgerRow(Outcome(work.spec_id, "ok"), work.spec.json, work.edit, 1, "2026-01-01T00:00:00+00:00", "v")
    store.ledger("of-a").publish([row])
    ledgers = Ledgers.of(store, {"a": "of-a", "b": "of-b"})
    assert work.spec_id in ledgers.index().rows, "nothing is known of the spec yet"
    ledgers.expect([work])
    assert not ledgers.index().rows
    assert not ledgers.read().rows
    ledgers.publisher([work])([row])
    assert list(ledgers.index().rows) == [work.spec_id] == list(ledgers.read([work.spec_id]).rows)
