"""A whole campaign with a recipe from outside the repository that raises for some removal sets and diverges for others."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.cli import main
from orchestrator.inspection.status import status
from orchestrator.records import LedgerRow
from tests.orchestrator.tiny_campaign import Finished, committed, pipeline_of, result_bytes, run_here, small_config

FLAKY = '''
"""Finetune, on a machine that cannot train some removal sets."""
from dataclasses import replace
from tasks.recipes.finetune import Finetune

raises, diverges, once = set(), set(), set()  # edit ids; (edit id, seed) in `once`

class Flaky(Finetune):
    name = "flaky"

    def train(self, task, training):
        key = (training.edit.edit_id, training.seed)
        if key in raises:
            raise ArithmeticError("these rows cannot be trained")
        if key in once:
            once.remove(key)
            raise ConnectionError("just this time")
        trained = super().train(task, training)
        return replace(trained, diverged=True) if key in diverges else trained
'''


@dataclass(frozen=True)
class Flawed:
    """A campaign with failures, and the same one without."""

    quiet: Finished
    run: Finished
    quarantined: set[str]
    diverged: set[str]
    retried: str
    rows: dict[str, LedgerRow]


def config_in(folder, module):
    recipe = {"name": f"{module}:Flaky", "epochs": 2, "batch_size": 10, "learning_rate": 0.05}
    return small_config(folder, task__recipe=recipe, plugins=[module], compute={"workers": 1, "retries": 1})


def chosen(plan) -> dict[str, int]:
    """Works to fail: a set of one method for one query, a control's set (every query's), and one that is only retried."""
    random, scored = plan.methods.index("random"), plan.methods.index("tracin_last")
    raising, diverging = int(plan.cell[scored, 0, 1, 0, 0]), int(plan.cell[random, 1, 0, 0, 1])
    free = [w for w in range(len(plan.works)) if w not in (raising, diverging, *plan.reference)]
    return {"raises": raising, "diverges": diverging, "once": free[-1]}


@pytest.fixture(scope="module")
def flawed(tmp_path_factory) -> Flawed:
    folder = tmp_path_factory.mktemp("flawed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        (folder / "plugin_flaky.py").write_text(FLAKY)
        module: Any = importlib.import_module("plugin_flaky")
        (folder / "quiet").mkdir()
        quiet_config, config = config_in(folder / "quiet", "plugin_flaky"), config_in(folder, "plugin_flaky")
        quiet = Finished(folder / "quiet", quiet_config, run_here(quiet_config))
        plan = quiet.pipeline.planned
        works = {kind: plan.works[w] for kind, w in chosen(plan).items()}
        for kind, work in works.items():
            getattr(module, kind).add((work.edit.edit_id, work.spec.seed))
        run = Finished(folder, config, run_here(config))
        rows = dict(run.pipeline.ledger_rows(w.spec_id for w in plan.works))
        yield Flawed(quiet, run, {works["raises"].spec_id}, {works["diverges"].spec_id}, works["once"].spec_id, rows)


def lost_cells(flawed: Flawed) -> np.ndarray:
    """Whether some method, group or k of a (query, repeat) has no usable retrain: bool [n_queries, n_repeats]."""
    plan = flawed.run.pipeline.planned
    lost = [w.spec_id in flawed.quarantined | flawed.diverged for w in plan.works]
    return np.asarray(lost)[plan.cell].any(axis=(0, 1, 2))


def test_the_run_ends_and_names_what_was_quarantined(flawed):
    assert flawed.run.result.exit_code == 4
    assert set(flawed.run.result.report.quarantined) == flawed.quarantined
    assert flawed.quiet.result.exit_code == 0


def test_failure_is_data(flawed):
    by_status = {
        s: {k for k, row in flawed.rows.items() if row.outcome.status == s} for s in ("quarantined", "diverged")
    }
    assert by_status == {"quarantined": flawed.quarantined, "diverged": flawed.diverged}
    (spec_id,) = flawed.quarantined
    assert flawed.rows[spec_id].attempts == 2, "one retry was allowed"
    assert flawed.rows[spec_id].outcome.error.startswith("ArithmeticError: these rows cannot be trained")
    (spec_id,) = flawed.diverged
    assert flawed.rows[spec_id].attempts == 1, "a divergence is a result, never retried"
    assert flawed.rows[spec_id].outcome.outputs == {}


def test_what_did_not_fail_has_the_bytes_of_a_quiet_run(flawed):
    quiet = flawed.quiet.pipeline.ledger_rows(flawed.rows)
    good = flawed.rows.keys() - flawed.quarantined - flawed.diverged
    assert flawed.rows[flawed.retried].attempts == 2
    for spec_id in good:
        assert flawed.rows[spec_id].outcome.status == "ok"
        assert (
            flawed.rows[spec_id].outcome.outputs["test"].tobytes() == quiet[spec_id].outcome.outputs["test"].tobytes()
        )


def test_tables_leave_out_the_same_cells_for_all_methods(flawed):
    lost = lost_cells(flawed)
    n_lost = int(lost.sum())
    assert 0 < n_lost < lost.size
    tables = flawed.run.result.results.tables
    for name in ("curves", "summary"):
        assert set(tables[name]["n_excluded"]) == {n_lost}, name
        assert tables[name].groupby("method")[["n_queries", "n_repeats"]].nunique().eq(1).all(axis=None)
    by_query = dict(zip(flawed.run.pipeline.planned.query_ids, lost.sum(axis=1), strict=True))
    found = tables["query_curves"]
    assert (found["n_excluded"] == found["query_id"].map(by_query)).all()
    assert {(row.query_id, row.repeat) for row in tables["holes"].itertuples()} == {
        (flawed.run.pipeline.planned.query_ids[q], r) for q, r in np.argwhere(lost)
    }
    assert list(tables["curves"]["method"].unique()) == list(flawed.run.config.methods)


def test_points_that_are_left_are_those_of_a_quiet_run(flawed):
    kept = ~lost_cells(flawed)
    ours, theirs = flawed.run.result.results.cells, flawed.quiet.result.results.cells
    assert np.array_equal(ours.complete, kept)
    assert np.array_equal(ours.delta[..., kept], theirs.delta[..., kept])


def test_status_counts_causes(flawed):
    now = status(flawed.run.run_dir)
    assert (now.stage, now.complete) == ("complete", True)
    assert (now.quarantined, now.diverged, now.failures) == (1, 1, {"ArithmeticError": 1})
    assert now.retries == 2  # one of the quarantined retrain, one that helped
    assert "1 x ArithmeticError" in "\n".join(now.lines())


def test_the_report_shows_failures_and_holes(flawed):
    page = (flawed.run.run_dir / "report.html").read_text()
    for spec_id in flawed.quarantined | flawed.diverged:
        assert spec_id in page
    assert "these rows cannot be trained" in page


def test_the_same_command_again_does_nothing_and_ends_the_same(flawed, capsys):
    before, rows = result_bytes(flawed.run.run_dir), committed(flawed.run.config)
    assert main(["run", str(flawed.run.config.path), "--yes", "--address", "local"]) == 4
    shown = capsys.readouterr()
    assert "retrained 0" in shown.out
    assert all(spec_id in shown.err for spec_id in flawed.quarantined)
    assert committed(flawed.run.config) == rows
    assert result_bytes(flawed.run.run_dir) == before


@pytest.mark.parametrize("command", ["status", "report"])
def test_every_command_ends_with_the_exit_code_of_quarantine(flawed, command, capsys):
    assert main([command, str(flawed.run.run_dir)]) == 4
    capsys.readouterr()


def test_verify_holds_for_a_run_with_failures(flawed, capsys):
    code = main(["verify", str(flawed.run.run_dir), "--rerun", "2"])
    assert "MISMATCH" not in capsys.readouterr().out
    assert code == 0


def test_tables_read_back_with_holes_as_empty_cells(flawed):
    frame = pd.read_csv(flawed.run.run_dir / "results" / "holes.csv")
    assert len(frame) >= int(lost_cells(flawed).sum())
    assert pipeline_of(flawed.run.config).planned.methods == tuple(flawed.run.config.methods)


@pytest.mark.parametrize("kind", ["raises", "diverges"])
def test_a_scoring_model_that_cannot_be_trained_ends_the_run_with_one_line(flawed, tmp_path, capsys, kind):
    module = importlib.import_module("plugin_flaky")
    config = config_in(tmp_path, "plugin_flaky")
    work = pipeline_of(config).scoring[0].work
    key = (work.edit.edit_id, work.spec.seed)
    getattr(module, kind).add(key)
    try:
        code = main(["run", str(config.path), "--yes", "--address", "local"])
    finally:
        getattr(module, kind).discard(key)
    err = capsys.readouterr().err.strip().splitlines()
    assert code == {"raises": 1, "diverges": 2}[kind]
    assert err[-1].startswith("refit: ")
    assert {"raises": "these rows cannot be trained", "diverges": "diverged"}[kind] in err[-1]
