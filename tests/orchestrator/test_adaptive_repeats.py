"""Adaptive repeats of a whole campaign: decided by finished repeats alone, at barriers, each curve for itself."""

from __future__ import annotations

import dataclasses
import errno
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from orchestrator import api
from orchestrator.campaigns.deletion.campaign import Deletion
from orchestrator.campaigns.deletion.results import deletion_results
from orchestrator.campaigns.plan import NOT_ASKED
from orchestrator.config.schema import LoadedConfig
from orchestrator.inspection.verify import verify
from orchestrator.storage.blobs import LocalBlobs, StoreAwayError
from orchestrator.storage.ledger import Ledger
from orchestrator.terminal.progress import Progress
from tests.orchestrator.tiny_campaign import Finished, pipeline_of, result_bytes, run_here, small_config

LEAST, MOST = 3, 8
ADAPTIVE = {"min": LEAST, "max": MOST, "target_se": 0.05, "base_seed": 2021}
FIXED = {"count": MOST, "base_seed": 2021}


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("adaptive")
    config = small_config(folder, repeats=ADAPTIVE)
    return Finished(folder, config, run_here(config))


@pytest.fixture(scope="module")
def fixed(adaptive) -> Finished:
    """All repeats of every curve, over the same store."""
    config = small_config(adaptive.folder, repeats=FIXED)
    return Finished(adaptive.folder, config, run_here(config))


def planned_with(finished: Finished, rows):
    """The plan while only `rows` are finished."""
    there = lambda wanted: {spec_id: rows[spec_id] for spec_id in wanted if spec_id in rows}  # noqa: E731
    scored = dataclasses.replace(finished.pipeline.scored, rows=there, seen={})
    return finished.pipeline.experiment.campaign.planned(scored)


def all_rows(fixed: Finished):
    pipeline = fixed.pipeline
    return dict(pipeline.ledger_rows([w.spec_id for w in pipeline.planned.works]))


def with_status(row, status):
    return dataclasses.replace(row, outcome=dataclasses.replace(row.outcome, status=status, outputs={}))


def test_curves_end_at_different_repeats_and_what_they_did_not_need_is_not_trained(adaptive):
    plan, done = adaptive.pipeline.planned, adaptive.pipeline.ledger.index().rows
    assert plan.is_final
    assert plan.n_asked.min() < plan.n_asked.max() <= MOST
    assert (plan.cell == NOT_ASKED).any()
    wanted = {w.spec_id for w in plan.works} | {s.work.spec_id for s in adaptive.pipeline.scoring}
    assert done.keys() >= wanted
    assert adaptive.result.report.retrained == len(wanted)
    assert len(plan.columns()["spec_id"]) == plan.n_requested == (plan.cell != NOT_ASKED).sum()


def test_what_is_asked_is_a_part_of_the_fixed_design(adaptive, fixed):
    ours, theirs = adaptive.pipeline.planned, fixed.pipeline.planned
    asked = np.argwhere(ours.cell != NOT_ASKED)
    for index in map(tuple, asked):
        assert ours.works[ours.cell[index]].spec_id == theirs.works[theirs.cell[index]].spec_id
    assert ours.seeds == theirs.seeds[: len(ours.seeds)]
    assert len(ours.works) < len(theirs.works)


def test_nothing_is_decided_before_a_repeat_is_whole(adaptive, fixed):
    rows, plan = all_rows(fixed), planned_with(adaptive, {})
    assert (plan.n_asked == LEAST).all()
    assert not plan.is_final
    first = [w.spec_id for w in plan.works]
    lacking_one = planned_with(adaptive, {s: rows[s] for s in first[:-1]})
    assert [w.spec_id for w in lacking_one.works] == first
    decided = planned_with(adaptive, {s: rows[s] for s in first})
    assert len(decided.seeds) == LEAST + 1


def test_decisions_depend_neither_on_the_order_of_rows_nor_on_attempts_nor_on_rows_beyond(adaptive, fixed):
    rows = all_rows(fixed)
    expected = adaptive.pipeline.planned
    turned = {s: dataclasses.replace(row, attempts=7, committed_at="2000-01-01") for s, row in reversed(rows.items())}
    for given in (rows, turned):
        plan = planned_with(adaptive, given)
        assert [w.spec_id for w in plan.works] == [w.spec_id for w in expected.works]
        assert np.array_equal(plan.cell, expected.cell)


def test_asked_again_and_again_it_takes_the_same_way(adaptive, fixed):
    rows, finished, barriers = all_rows(fixed), {}, []
    while not (plan := planned_with(adaptive, finished)).is_final:
        barriers.append(len(plan.seeds))
        finished |= {w.spec_id: rows[w.spec_id] for w in plan.works}
    assert barriers == list(range(LEAST, len(plan.seeds) + 1))
    assert np.array_equal(plan.cell, adaptive.pipeline.planned.cell)


def test_lost_retrains_are_holes_and_the_run_goes_on_to_its_end(adaptive, fixed):
    rows = all_rows(fixed)
    reference = fixed.pipeline.planned.references()[1]
    lost = rows | {reference: with_status(rows[reference], "quarantined")}
    plan = planned_with(adaptive, lost)
    assert plan.is_final
    assert (plan.n_asked > LEAST).all()  # min counts complete repeats
    again = planned_with(adaptive, lost | {reference: with_status(rows[reference], "diverged")})
    assert np.array_equal(plan.cell, again.cell)


def test_tables_count_every_curve_s_own_repeats(adaptive):
    found = adaptive.pipeline.results
    n_asked = adaptive.pipeline.planned.n_asked
    assert found.tables["summary"].n_repeats.tolist() == n_asked.ravel().tolist()
    assert found.tables["repeats"].n_repeats.tolist() == n_asked.ravel().tolist()
    assert set(found.tables["summary"].n_excluded) == {0}
    assert found.tables["holes"].empty
    summary, target = found.tables["summary"], 1.959963984540054 * ADAPTIVE["target_se"]
    half = (summary.ci_fixed_high - summary.ci_fixed_low) / 2
    assert (half[summary.n_repeats < MOST] <= target).all()
    designs = found.tables["designs"]
    assert designs.n_retrains[0] == len(adaptive.pipeline.planned.works) < designs.n_retrains[1]
    assert found.notes[0].startswith("Adaptive repeats: ")


def stored_anew(finished: Finished, folder: Path, rows) -> LoadedConfig:
    """The same campaign over a store of its own: scores and weights are there, and these rows."""
    config = small_config(folder, repeats=ADAPTIVE)
    for kind in ("scores", "checkpoints"):
        shutil.copytree(finished.folder / "runs" / kind, folder / "runs" / kind)
    [ledger] = pipeline_of(config).ledger.parts.values()
    ledger.publish(list(rows.values()))
    return config


def test_retrying_what_was_given_up_ends_where_a_quiet_run_does(adaptive, fixed, tmp_path):
    """Nothing is decided by the hole that is about to be filled."""
    plan = adaptive.pipeline.planned
    rows = adaptive.pipeline.ledger_rows(adaptive.pipeline.ledger.index().rows.keys() - _beyond(adaptive, fixed))
    reference = plan.references()[1]
    config = stored_anew(adaptive, tmp_path, rows | {reference: with_status(rows[reference], "quarantined")})
    holed = run_here(config)
    assert holed.exit_code == 4
    assert not np.array_equal(pipeline_of(config).planned.n_asked, plan.n_asked), "the hole has changed the design"
    mended = api.run(config, address="local", retry_quarantined=True)
    assert (mended.exit_code, mended.report.retrained) == (0, 1)
    assert result_bytes(mended.run_dir) == result_bytes(adaptive.run_dir)
    assert verify(api.open_run(mended.run_dir).pipeline(), 0).problems == []


def _beyond(adaptive: Finished, fixed: Finished) -> set[str]:
    """Retrains that only the fixed design asked for."""
    return {w.spec_id for w in fixed.pipeline.planned.works} - {w.spec_id for w in adaptive.pipeline.planned.works}


def test_a_barrier_reads_what_came_since_the_last_one_and_outlasts_an_outage(tmp_path, monkeypatch):
    gets, plannings, is_away = [], [], False
    get, listing, planned = LocalBlobs.get, LocalBlobs.list, Deletion.planned

    def counted(self, key):
        gets.append(key)
        return get(self, key)

    def flaky(self, prefix):
        nonlocal is_away
        if is_away and prefix.startswith("ledger/"):
            is_away = False
            raise StoreAwayError(errno.EIO, "did not answer in time", prefix)
        return listing(self, prefix)

    def watched(self, scored):
        nonlocal is_away
        gets.clear()
        plan = planned(self, scored)
        plannings.append(sum("/part-" in key for key in gets))
        is_away = len(plannings) == 2
        return plan

    monkeypatch.setattr(LocalBlobs, "get", counted)
    monkeypatch.setattr(LocalBlobs, "list", flaky)
    monkeypatch.setattr(Deletion, "planned", watched)
    result = run_here(small_config(tmp_path, repeats=ADAPTIVE))
    assert result.exit_code == 0
    assert len(plannings) > 3
    assert sum(plannings) <= result.report.retrained, "every part is read once"
    assert plannings[-1] < plannings[1], "the last barrier reads one repeat, not all of them"


def test_a_part_that_goes_bad_between_two_barriers_is_told_of_and_trained_again(adaptive, tmp_path, monkeypatch):
    publish, said, n_parts = Ledger.publish, io.StringIO(), 0

    def spoilt(self, rows):
        nonlocal n_parts
        name, n_parts = publish(self, rows), n_parts + 1
        if n_parts == 4:
            next(tmp_path.rglob(name)).write_bytes(b"")
        return name

    monkeypatch.setattr(Ledger, "publish", spoilt)
    result = api.run(small_config(tmp_path, repeats=ADAPTIVE), address="local", progress=Progress(said))
    assert result.exit_code == 0
    assert said.getvalue().count("is damaged") == 1
    assert result.report.retrained > len(adaptive.pipeline.planned.works) + len(adaptive.pipeline.scoring)
    assert result_bytes(result.run_dir) == result_bytes(adaptive.run_dir)


def test_fixed_cost_is_that_of_the_fixed_design(adaptive, fixed):
    assert adaptive.pipeline.results.tables["designs"].n_retrains[2] == len(fixed.pipeline.planned.works)


def test_a_second_run_trains_nothing_and_writes_the_same_bytes(adaptive):
    before = result_bytes(adaptive.run_dir)
    assert run_here(adaptive.config).report.retrained == 0
    assert result_bytes(adaptive.run_dir) == before


def test_advice_is_read_from_a_half_finished_campaign(adaptive):
    pipeline = pipeline_of(adaptive.config)
    plan, campaign = pipeline.planned, pipeline.experiment.campaign
    half = {s: row for s, row in pipeline.rows.items() if s in {w.spec_id for w in plan.works[: len(plan.works) // 2]}}
    for rows in (pipeline.rows, half, {}):
        assert isinstance(campaign.advice(pipeline.scored, plan, rows), str)
    assert campaign.advice(pipeline.scored, plan, {}) == ""


def test_a_fixed_design_has_no_further_tables(fixed):
    pipeline = fixed.pipeline
    found = deletion_results(pipeline.experiment, pipeline.planned, pipeline.queries, pipeline.rows)
    assert "repeats" not in found.tables
    assert found.notes == ()
