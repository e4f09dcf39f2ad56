"""Progress from the plan and the ledger alone."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from orchestrator import api
from orchestrator.inspection.status import status
from orchestrator.spending.book import SessionSpend, SpendBook
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import run_here, small_config


def test_a_finished_run_is_complete(finished):
    now = status(finished.run_dir)
    assert (now.stage, now.complete, now.run) == ("complete", True, finished.run_dir.name)
    assert now.planned == now.finished == now.ok == finished.result.report.retrained - 1  # all but the scoring model
    assert (now.diverged, now.quarantined, now.failures, now.retries, now.eta_s) == (0, 0, {}, 0, 0.0)
    assert now.seconds_per_retrain is not None
    assert now.seconds_per_retrain > 0
    assert json.loads(json.dumps(now.json()))["planned"] == now.planned
    assert f"{now.planned}/{now.planned} finished" in "\n".join(now.lines())


@pytest.mark.parametrize(("until", "stage"), [("train", "scoring"), ("score", "scoring"), ("plan", "retraining")])
def test_stages_on_the_way(tmp_path, until, stage):
    now = status(run_here(small_config(tmp_path), until=until).run_dir)
    assert (now.stage, now.complete, now.finished) == (stage, False, 0)
    assert (now.planned > 0) == (until == "plan")


def test_all_retrains_but_no_tables_is_not_yet_complete(tmp_path):
    now = status(run_here(small_config(tmp_path, repeats__count=1), until="retrain").run_dir)
    assert now.complete
    assert now.stage != "complete"


def test_a_lost_reference_is_a_retrain_that_is_left(own_copy):
    """No cell names the references, and no cell can be measured without them."""
    pipeline = own_copy.pipeline
    reference = pipeline.planned.works[pipeline.planned.reference[1]].spec_id
    rows = pipeline.ledger_rows(w.spec_id for w in pipeline.planned.works)
    for path in (own_copy.folder / "runs" / "ledger").glob("*/part-*.parquet"):
        path.unlink()
    pipeline.store.ledger(pipeline.experiment.task_id).publish(
        [row for spec_id, row in rows.items() if spec_id != reference]
    )
    now = status(own_copy.run_dir)
    assert now.planned == api.plan(own_copy.config).distinct
    assert (now.planned - now.finished, now.complete) == (1, False)


def test_a_run_that_lost_a_part_says_what_is_left(own_copy):
    pipeline, whole = own_copy.pipeline, status(own_copy.run_dir)
    rows = list(pipeline.ledger_rows(w.spec_id for w in pipeline.planned.works[1:10]).values())
    for path in (own_copy.folder / "runs" / "ledger").glob("*/part-*.parquet"):
        path.unlink()
    pipeline.store.ledger(pipeline.experiment.task_id).publish(rows)
    now = status(own_copy.run_dir)
    assert (now.stage, now.complete, now.finished, now.planned) == ("retraining", False, 9, whole.planned)
    seconds = sorted(datetime.fromisoformat(row.committed_at).timestamp() for row in rows)
    assert now.eta_s == pytest.approx((now.planned - 9) * (seconds[-1] - seconds[0]) / 8, rel=1e-3)
    assert f"{now.finished}/{now.planned}" in "\n".join(now.lines())


def test_other_campaigns_in_the_same_ledger_do_not_count(own_copy):
    before = status(own_copy.run_dir)
    run_here(small_config(own_copy.folder, repeats={"seeds": [1]}, deletion__k=[1]), until="retrain")
    assert status(own_copy.run_dir) == before


def test_what_the_sessions_spent_is_there_while_a_run_goes_on_and_after(own_copy):
    book = SpendBook(own_copy.pipeline.store.blobs, own_copy.run_dir.name)
    for key in book.blobs.list("spend/"):
        book.blobs.delete(key)
    before = status(own_copy.run_dir)
    charge = SessionSpend(
        started="",
        updated="",
        gpu_hours=0.5,
        node_hours={"a/spot": 1.5},
        cost=3.0,
        currency="USD",
        prices_date="2026-11-01",
    )
    for session in ("one", "two"):
        book.write(session, charge)
    now = status(own_copy.run_dir)
    assert before.spent is None
    spent_line = "spent      1.00 GPU-hours, 3.00 node-hours, 6.00 USD (prices of 2026-11-01)"
    assert now.lines() == [*before.lines(), spent_line]
    spent = json.loads(json.dumps(now.json()))["spent"]
    assert (spent["gpu_hours"], spent["cost"], spent["unknown_sessions"]) == (1.0, 6.0, 0)


def test_it_is_the_same_from_any_working_directory(tmp_path, monkeypatch):
    """`output: runs` is relative to where the run was started; the run directory must remember that place."""
    monkeypatch.chdir(tmp_path)
    run_dir = run_here(small_config(tmp_path, output="runs", repeats__count=1), until="retrain").run_dir.resolve()
    here = status(run_dir)
    assert here.complete
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert status(run_dir) == here
    assert len(api.open_run(run_dir).pipeline().ledger.index().rows) == here.finished + 1
    assert not (tmp_path / "elsewhere" / "runs").exists(), "reading made a store"


def test_what_is_no_run_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such run directory"):
        status(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no config\.yaml"):
        status(tmp_path)
