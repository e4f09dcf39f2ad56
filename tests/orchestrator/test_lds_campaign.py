"""The LDS campaign from config to tables: what is planned, what is refused, what a ledger row becomes, and resuming."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from benchmarks.harness import kill, ledger_rows, parts, refit, start, wait_until
from orchestrator import api
from orchestrator.campaigns.outcomes import measured_values
from orchestrator.cli import main
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import (
    Finished,
    committed,
    pipeline_of,
    result_bytes,
    run_here,
    small_config,
    small_lds,
)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Finished:
    """An LDS campaign with 6 subsets under 2 seeds, run to the end, and not to be changed."""
    folder = tmp_path_factory.mktemp("lds")
    config = small_lds(folder)
    return Finished(folder, config, run_here(config))


def test_every_subset_is_trained_in_every_repeat_beside_one_reference(done):
    table = pq.read_table(done.run_dir / "plan.parquet").to_pandas()
    assert table[["repeat", "subset"]].to_numpy().tolist() == [[r, s] for r in range(2) for s in range(6)]
    assert table["spec_id"].nunique() == 12
    assert len(committed(done.config)) == 12 + 2 + 1  # two references, and the scoring model
    removed = [tuple(work.edit.ids) for work in done.pipeline.planned.works]
    assert len(set(removed)) == 7  # both repeats train the same six subsets, and everything
    assert {len(ids) for ids in removed} == {0, 20}


def test_the_plan_needs_no_scores_and_does_not_depend_on_methods(done, tmp_path):
    before = pipeline_of(small_lds(tmp_path, methods=[{"name": "tfidf"}]))
    assert before.planned.columns()["subset"] == done.pipeline.planned.columns()["subset"]
    ids = [[tuple(work.edit.ids) for work in plan.works] for plan in (before.planned, done.pipeline.planned)]
    assert ids[0] == ids[1]


def test_the_table_is_spearmans_correlation_of_what_the_ledger_has(done):
    pipeline = done.pipeline
    experiment, queries, plan = pipeline.experiment, pipeline.queries, pipeline.planned
    works = [plan.works[i] for i in plan.work]
    values = measured_values(experiment, works, queries, pipeline.rows).reshape(2, 6, -1).mean(axis=0)
    kept = [~np.isin(experiment.train.ids, work.edit.ids) for work in works[:6]]
    table = pd.read_csv(done.run_dir / "results" / "query_lds.csv").set_index(["method", "query_id"])["lds"]
    for label in experiment.scored:
        scores = api.open_run(done.run_dir).scores(label).loc[queries.ids, experiment.train.ids].to_numpy(np.float64)
        for q, query_id in enumerate(queries.ids.tolist()):
            sums = [scores[q, of_subset].sum() for of_subset in kept]
            expected = spearmanr(sums, values[:, q]).statistic
            assert table[label, query_id] == pytest.approx(expected, abs=1e-12)
    summary = api.open_run(done.run_dir).lds().set_index("method")
    for label, of_method in table.groupby(level="method"):
        assert summary.loc[label, "lds"] == pytest.approx(of_method.mean(), abs=1e-12)


def test_the_table_has_a_row_for_the_control_intervals_ceiling_checks_and_verdicts(done):
    results = done.result.results
    summary = results.tables["lds"]
    assert summary["method"].tolist() == ["tracin_last", "with_bias", "random"]
    assert (summary["ci_low"] <= summary["lds"]).all()
    assert (summary["lds"] <= summary["ci_high"]).all()
    assert summary["ceiling"].nunique() == 1
    assert {"noise_ceiling", "subsets", "subset_accuracy", "controls", "repeats"} <= {c.name for c in results.checks}
    assert len(results.verdicts) == 3
    page = (done.run_dir / "report.html").read_text()
    assert "the noise ceiling" in page
    assert (done.run_dir / "figures" / "lds.svg").is_file()
    assert (done.run_dir / "figures" / "by-query.svg").is_file()


def test_more_subsets_train_only_the_new_ones(tmp_path):
    config = small_lds(tmp_path)
    run_here(config)
    before = committed(config)
    more = small_lds(tmp_path, lds__subsets=8)
    result = run_here(more)
    assert result.report.retrained == 2 * 2
    after = committed(more)
    assert {spec_id: after[spec_id] for spec_id in before} == before


REFUSED = {
    "one repeat": ({"repeats": {"count": 1}}, "repeats: 1 repeat; lds needs at least 2"),
    "one seed": ({"repeats": {"seeds": [5]}}, "repeats: 1 repeat; lds needs at least 2"),
    "adaptive repeats": ({"repeats": {"min": 3, "max": 5, "target_se": 0.1}}, "repeats"),
    "nothing to judge": ({"methods": [{"name": "random"}]}, "methods: no method has scores"),
    "nothing kept": ({"lds__fraction": 0.001}, "lds.fraction: 0.001 of 40 training examples is 0"),
    "all kept": ({"lds__fraction": 1.0}, "lds.fraction: 1.0"),
    "few subsets": ({"lds__subsets": 3}, "lds.subsets: 3"),
    "an unknown key": ({"lds__subset": 3}, "lds.subset"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_before_anything_is_trained(case, tmp_path):
    changes, named = REFUSED[case]
    with pytest.raises(InputError) as caught:
        run_here(small_lds(tmp_path, **changes))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("runs/ledger/*/part-*"))


N_KILLED = 2 * (20 + 1) + 1  # subsets and a reference under two seeds, and the scoring model


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_campaign_resumes_to_the_same_bytes_and_trains_nothing_again(tmp_path):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    for folder in (quiet, killed):
        folder.mkdir()
        small_lds(folder, lds__subsets=20)
    command = ("--yes", "--address", "local")
    refit("run", quiet / "config.yaml", *command)
    process = start("run", killed / "config.yaml", *command, log=tmp_path / "log")
    assert wait_until(lambda: len(parts(killed / "runs")) >= 2, 120, process), (tmp_path / "log").read_text()
    kill(process.pid)
    assert process.wait() == -signal.SIGKILL
    finished = {row["spec_id"]: row for row in ledger_rows(killed / "runs")}
    assert 2 <= len(finished) < N_KILLED, "killed in the middle"
    refit("run", killed / "config.yaml", *command)
    after = ledger_rows(killed / "runs")
    assert len({row["spec_id"] for row in after}) == len(after) == N_KILLED
    (one,), (other,) = (folder.glob("runs/small-lds-*") for folder in (quiet, killed))
    assert result_bytes(one) == result_bytes(other)
    assert {"lds.csv", "query_lds.csv", "contrasts.csv"} <= set(result_bytes(one))


# --- beside AUC-DEL --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path]:
    """The run directories of a deletion and an LDS campaign with the same methods, over one store."""
    folder = tmp_path_factory.mktemp("both")
    groups = ["proponents", "opponents", "least"]
    return run_here(small_config(folder, deletion__groups=groups)).run_dir, run_here(small_lds(folder)).run_dir


def test_compare_shows_both_figures_of_every_method_and_their_rank_agreement(both, capsys):
    assert main(["compare", *map(str, both)]) == 0
    shown = capsys.readouterr().out
    assert "LDS and AUC-DEL of proponents order 2 methods with Kendall's tau" in shown
    assert "With 2 methods p is at least 1, so this cannot be told from chance." in " ".join(shown.split())
    for label in ("tracin_last", "with_bias", "random"):
        assert label in shown


def test_compare_gives_the_figures_of_the_tables_as_json_in_any_order(both, capsys):
    found = []
    for order in (both, both[::-1]):
        assert main(["compare", *map(str, order), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    summary, lds = pd.read_csv(both[0] / "results/summary.csv"), pd.read_csv(both[1] / "results/lds.csv")
    rows = {row["method"]: row for row in found[0]["methods"]}
    assert {label: row["lds"] for label, row in rows.items()} == lds.set_index("method")["lds"].to_dict()
    better = {"proponents": lambda auc: -auc, "opponents": lambda auc: auc, "least": lambda auc: -abs(auc)}
    for group, goodness in better.items():
        auc = summary.loc[summary["group"] == group].set_index("method")["auc_del"].to_dict()
        assert {label: row[group] for label, row in rows.items()} == auc
        gain = goodness(auc["tracin_last"]) - goodness(auc["with_bias"])
        assert found[0]["agreement"][group]["tau"] == np.sign((lds["lds"][0] - lds["lds"][1]) * gain)
        assert found[0]["agreement"][group]["n_methods"] == 2


def refused(capsys, *runs: Path) -> str:
    assert main(["compare", *map(str, runs)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_compare_refuses_runs_that_do_not_judge_the_same(both, tmp_path, capsys):
    deletion, lds = both
    assert "got runs of deletion, deletion; allowed: one run of deletion and one of lds" in refused(
        capsys, deletion, deletion
    )
    assert "got runs of lds" in refused(capsys, lds)
    other = {
        "their queries differ: 3 and 4 queries": {"queries": {"split": "test", "count": 4}},
        "their measurement differs": {"measurement": "loss"},
        "their block `scores` differs": {"scores": {"models": 2}},
        "the method tracin_last has other options": {"methods": [{"name": "tracin_last", "checkpoints": "last"}]},
        "their recipe differs": {"task__recipe__epochs": 3},
        "their train set differs": {"task__n_train": 60},
    }
    for number, (expected, changes) in enumerate(other.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        run = run_here(small_lds(folder, lds__subsets=4, **changes), until="plan").run_dir
        assert expected in refused(capsys, deletion, run)


def test_compare_refuses_a_run_of_controls_alone(both, tmp_path, capsys):
    controls = run_here(small_config(tmp_path, methods=[{"name": "random"}])).run_dir
    assert "every method of this run is a control" in refused(capsys, controls, both[1])


def test_compare_asks_for_finished_runs(both, tmp_path, capsys):
    unfinished = run_here(small_lds(tmp_path), until="retrain").run_dir
    assert "no results yet" in refused(capsys, both[0], unfinished)
