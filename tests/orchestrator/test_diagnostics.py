"""`diagnose:`: tables about the scoring models, from stored weights, without a retrain; kept, checked and shown."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from orchestrator import api
from orchestrator.cli import main
from orchestrator.config.load import dump_config, parse_config
from orchestrator.inspection.track_record import track_record
from orchestrator.inspection.verify import verify
from orchestrator.stages.diagnoses import by_file_name
from tasks.errors import InputError
from tests.orchestrator.small_grid import small_grid
from tests.orchestrator.tiny_campaign import CONFIG, committed, pipeline_of, result_bytes, run_here, small_config

CANCELLATION = [{"name": "cancellation"}]
FILES = ("diagnose_cancellation.csv", "diagnose_cancellation_checkpoints.csv")


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory):
    """A finished campaign with a diagnostic: (config, result)."""
    config = small_config(tmp_path_factory.mktemp("diagnosed"), diagnose=CANCELLATION)
    return config, run_here(config)


def stored(config):
    """Path -> bytes of the tables of diagnostics in the store."""
    pipeline = pipeline_of(config)
    return {path: path.read_bytes() for path in (pipeline.store.root / "diagnoses").glob("*/tables-*.json")}


def test_the_tables_are_in_results_and_equal_what_the_weights_give(diagnosed):
    config, result = diagnosed
    whole, each = (pd.read_csv(result.run_dir / "results" / name) for name in FILES)
    assert list(whole.columns[:4]) == ["model", "layer", "part", "n_parameters"]
    assert {"embedding", "all", "all_but_embedding"} <= set(whole["layer"])
    assert np.isfinite(whole["cancellation"]).all()
    assert set(each["step"]) == {4, 8}
    first, last = pipeline_of(config).scores.checkpoints()
    moved = np.linalg.norm(last.state["embedding.weight"].astype(float) - first.state["embedding.weight"])
    row = whole.loc[(whole["layer"] == "embedding") & (whole["part"] == "weight")].iloc[0]
    assert row["delta"] == pytest.approx(moved)
    assert row["cancellation"] == pytest.approx(row["g"] / moved)


def test_adding_a_diagnostic_trains_and_scores_nothing(own_copy):
    before = committed(own_copy.config)
    shards = set((own_copy.folder / "runs" / "scores").rglob("*.parquet"))
    more = small_config(own_copy.folder, diagnose=CANCELLATION)
    planned = api.plan(more)
    assert (planned.missing_diagnostics, planned.to_do, planned.is_nothing) == (("cancellation",), 0, False)
    assert "diagnostics    missing: cancellation" in planned.lines()
    result = run_here(more)
    assert (api.plan(more).missing_diagnostics, api.plan(more).is_nothing) == ((), True)
    assert (result.report.retrained, result.report.score_seconds) == (0, 0.0)
    assert committed(more) == before
    assert set((own_copy.folder / "runs" / "scores").rglob("*.parquet")) == shards
    assert result.run_dir != own_copy.result.run_dir, "what is asked names the run directory"
    ours, theirs = result_bytes(result.run_dir), result_bytes(own_copy.result.run_dir)
    assert set(ours) - set(theirs) == set(FILES)


def test_a_config_without_the_block_keeps_its_run_directory(tmp_path, finished):
    names = [pipeline_of(small_config(tmp_path, **change)).experiment.run_name for change in ({}, {"diagnose": []})]
    assert set(names) == {finished.result.run_dir.name}
    others = [CANCELLATION, [{"name": "cancellation", "rows": 7}], [{"name": "cancellation", "as": "c"}]]
    different = {pipeline_of(small_config(tmp_path, diagnose=d)).experiment.run_name for d in others}
    assert len({*different, *names}) == 4


def test_what_is_there_is_not_computed_again_and_what_is_damaged_is(diagnosed, tmp_path, monkeypatch):
    config = small_config(tmp_path, diagnose=CANCELLATION)
    run_here(config)
    [(path, data)] = stored(config).items()
    time = path.stat().st_mtime_ns
    run_here(config)
    assert path.stat().st_mtime_ns == time
    path.write_bytes(data.replace(b"all_but", b"all_put", 1))
    assert run_here(config).report.retrained == 0
    assert stored(config) == {path: data}, "the same weights give the same bytes"
    assert (path.parent / "corrupt" / path.name).is_file()


def test_tables_of_another_diagnosis_are_not_taken_for_these(tmp_path):
    configs = [small_config(tmp_path, diagnose=[{"name": "cancellation", "rows": n}]) for n in (5, 6)]
    for config in configs:
        run_here(config, until="diagnose")
    one, other = (pipeline_of(config).diagnoses.groups[""] for config in configs)
    ids = [group.diagnosis_id("cancellation") for group in (one, other)]
    folder = one.scores.store.root / "diagnoses"
    [ours], [theirs] = (list((folder / i).glob("*.json")) for i in ids)
    expected = one.tables("cancellation")
    assert expected != other.tables("cancellation")
    ours.unlink()
    (folder / ids[0] / theirs.name).write_bytes(theirs.read_bytes())
    assert one.tables("cancellation") is None
    run_here(configs[0], until="diagnose")
    assert one.tables("cancellation") == expected


def test_lost_weights_are_trained_again_only_while_a_diagnosis_is_missing(tmp_path):
    config = small_config(tmp_path, diagnose=CANCELLATION)
    result = run_here(config)
    before = result_bytes(result.run_dir)
    for path in (tmp_path / "runs" / "checkpoints").rglob("*.safetensors"):
        path.unlink()
    assert run_here(config).report.retrained == 0
    assert api.plan(config).is_nothing
    next(iter(stored(config))).unlink()
    assert (api.plan(config).scoring_models_to_do, api.plan(config).to_do) == (1, 0)
    assert run_here(config).report.retrained == 1
    assert result_bytes(result.run_dir) == before


def test_report_mlflow_and_verify_show_them(diagnosed):
    _, result = diagnosed
    page = (result.run_dir / "report.html").read_text()
    assert "Diagnostic: cancellation" in page
    assert (result.run_dir / "figures" / "diagnose-cancellation.svg").is_file()
    pipeline = api.open_run(result.run_dir).pipeline()
    children = [child for child in track_record(pipeline).children if child.labels.get("diagnostic") == "cancellation"]
    assert {child.labels["layer"] for child in children} >= {"embedding", "all"}
    assert {"cancellation", "delta", "cosine"} <= {metric for metric, _, _ in children[0].points}
    assert not verify(pipeline).problems
    path = result.run_dir / "results" / FILES[0]
    before = path.read_text()
    path.write_text(before.replace("all,", "al,", 1))
    assert any(FILES[0] in problem for problem in verify(pipeline).problems)
    path.write_text(before)


def test_the_resolved_config_asks_the_same(diagnosed):
    config, _ = diagnosed
    text = yaml.safe_load(dump_config(config, pipeline_of(config).experiment.task))
    again = parse_config(text, config.path)
    assert again.diagnostics == config.diagnostics
    assert text["diagnose"] == [
        {
            "name": "cancellation",
            "rows": 1000,
            "cosine_split": "train",
            "batch_size": 64,
            "seed": 0,
            "as": "cancellation",
        }
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"diagnose": [{"name": "cancelation"}]},
            "diagnose.0.name: unknown diagnostic 'cancelation'.*did you mean 'cancellation'",
        ),
        ({"diagnose": [{"name": "cancellation", "rows": 1}]}, "diagnose.0.rows: 1"),
        ({"diagnose": [*CANCELLATION, *CANCELLATION]}, "diagnose.1: duplicate label 'cancellation'"),
        ({"diagnose": [{"name": "cancellation", "as": "a/b"}]}, "diagnose.0.as: 'a/b'"),
        ({"diagnose": CANCELLATION, "scores": {"checkpoints": [2]}}, "diagnose.0: .*at least two epochs"),
        ({"diagnose": [{"name": "cancellation", "cosine_split": "dev"}]}, "diagnose.0.cosine_split: 'dev' is neither"),
        ({"diagnose": {"name": "cancellation"}}, "diagnose"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_diagnosed_is_refused_before_anything_starts(tmp_path, changes, problem):
    with pytest.raises(InputError, match=problem):
        pipeline_of(small_config(tmp_path, **changes))


def test_a_campaign_without_queries_takes_none(tmp_path):
    with pytest.raises(InputError, match="diagnose: recipe_grid takes no diagnose"):
        small_grid(tmp_path, diagnose=CANCELLATION)


def test_two_tables_of_one_name_are_refused():
    one, two, three = (pd.DataFrame({"x": [n]}) for n in range(3))
    tables = {"a": {"": one, "b_c": two}, "a_b": {"": three}}
    found = by_file_name(tables)
    assert list(found) == ["diagnose_a", "diagnose_a_b_c", "diagnose_a_b"]
    assert found["diagnose_a_b_c"] is two
    with pytest.raises(InputError, match=r"results/diagnose_a_b_c\.csv; give 'a_b' another"):
        by_file_name({**tables, "a_b": {"c": three}})


OWN = '''
from influence.diagnostic import Diagnostic


class Steps(Diagnostic):
    """Lists the steps of the checkpoints, and how many queries a method was asked."""

    name = "steps"
    uses_queries = True
    labels = ("model",)

    def reads_scores_of(self, methods):
        return list(methods)[:1]

    def compute(self, models):
        steps = [[one.step for one in points] for points in models.models]
        sizes = [matrix.scores.shape[0] for matrix in models.scores.values()]
        return {"": {"model": list(range(len(steps))), "last": [s[-1] for s in steps], "n_queries": sizes * len(steps)}}
'''


def test_a_diagnostic_of_ones_own_by_plugins(tmp_path, plugin, capsys):
    module = plugin("my_diagnostics", OWN)
    config = small_config(
        tmp_path, diagnose=[{"name": f"{module}:Steps", "as": "mine"}], plugins=[module], scores__models=2
    )
    result = run_here(config)
    table = pd.read_csv(result.run_dir / "results" / "diagnose_mine.csv")
    assert table.to_dict("list") == {"model": [0, 1], "last": [8, 8], "n_queries": [3, 3]}
    group = pipeline_of(config).diagnoses.groups[""]
    fewer = small_config(
        tmp_path,
        diagnose=[{"name": f"{module}:Steps", "as": "mine"}],
        plugins=[module],
        scores__models=2,
        queries={"split": "test", "count": 2},
    )
    assert pipeline_of(fewer).diagnoses.groups[""].diagnosis_id("mine") != group.diagnosis_id("mine")
    assert json.loads(next(iter(stored(config).values())))["diagnosis_id"] == group.diagnosis_id("mine")


def test_last_layer_terms_read_the_scores_in_the_store(tmp_path):
    terms = [{"name": "last_layer_terms", "k": 8, "top": 4, "methods": ["tracin_last"]}]
    config = small_config(tmp_path, diagnose=terms)
    result = run_here(config)
    whole, each = (
        pd.read_csv(result.run_dir / "results" / f"diagnose_last_layer_terms{name}.csv") for name in ("", "_queries")
    )
    assert whole["method"].tolist() == ["tracin_last"]
    assert each["query_id"].tolist() == pipeline_of(config).queries.ids.tolist()
    assert whole["overlap_saliency"][0] == pytest.approx(each["overlap_saliency"].mean())
    scores = pipeline_of(config).matrices["tracin_last"]
    first = scores.train_ids[scores.scores.argmax(1)]
    assert each["first_proponent_id"].tolist() == first.tolist()
    ids = [
        pipeline_of(small_config(tmp_path, diagnose=terms, **change))
        .diagnoses.groups[""]
        .diagnosis_id(terms[0]["name"])
        for change in ({}, {"queries": {"split": "test", "count": 2}}, {"scores__rows_per_shard": 8})
    ]
    assert len(set(ids)) == 3, "it reads the queries and the scores"
    assert "Diagnostic: last layer terms" in (result.run_dir / "report.html").read_text()


def test_refit_list_names_them(capsys):
    assert main(["list", "diagnostics"]) == 0
    assert "cancellation" in capsys.readouterr().out


def test_the_order_of_methods_does_not_matter_to_cancellation(tmp_path):
    one, other = (
        pipeline_of(small_config(tmp_path, diagnose=CANCELLATION, methods=methods)).diagnoses.groups[""]
        for methods in (CONFIG["methods"], CONFIG["methods"][::-1])
    )
    assert one.diagnosis_id("cancellation") == other.diagnosis_id("cancellation")


def test_tables_by_method_are_in_the_order_of_the_config_whatever_was_computed_before(tmp_path):
    terms = [{"name": "last_layer_terms", "k": 8, "top": 4}]
    for methods in (CONFIG["methods"], CONFIG["methods"][::-1]):
        config = small_config(tmp_path, diagnose=terms, methods=methods)
        run_here(config, until="diagnose")
        [whole] = (tables[""] for tables in pipeline_of(config).diagnosed.values())
        assert whole["method"].tolist() == [label for label in config.methods if label != "random"]
