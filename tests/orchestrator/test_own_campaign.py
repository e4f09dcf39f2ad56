"""The campaign of a user's own that docs/guide/own_campaign.md shows, run as that page has it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from orchestrator import api
from orchestrator.inspection.track_record import track_record

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "own_campaign.md"
MODULE, CONFIG = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
BLOCK = "my_subsets:SubsetCorrelation"


@pytest.fixture
def config(tmp_path, plugin):
    """The page's config with its module importable, and MLflow in a SQLite file."""
    plugin("my_subsets", MODULE)
    tracking = {"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    written = {**yaml.safe_load(CONFIG), "output": str(tmp_path / "runs"), "tracking": tracking}
    path = tmp_path / "subsets.yaml"
    path.write_text(yaml.safe_dump(written, sort_keys=False))
    return api.load_config(path)


def test_the_example_is_short():
    assert len(MODULE.splitlines()) < 100


def test_its_plan_is_exact_before_any_model_is_scored(config):
    estimate = api.plan(config)
    assert estimate.scores == "missing"
    assert (estimate.distinct, estimate.cells, estimate.to_do) == (18, 16, 18)


def test_it_gets_intervals_contrasts_checks_a_figure_and_its_parameters_in_mlflow(config):
    result = api.run(config, address="local")
    assert result.report.retrained == 19  # 16 subsets, two references, one scoring model
    tables = {path.stem: pd.read_csv(path) for path in (result.run_dir / "results").glob("*.csv")}
    summary, contrasts = tables["correlations"], tables["contrasts"]
    assert summary["method"].tolist() == ["tracin_we", "tracin_last", "tfidf"]
    assert (summary["ci_low"] < summary["correlation"]).all()
    assert (summary["correlation"] < summary["ci_high"]).all()
    means = summary.set_index("method")["correlation"]
    for row in contrasts.to_dict("records"):
        assert row["diff"] == pytest.approx(means[row["method"]] - means[row["baseline"]])
        assert row["ci_low"] < row["diff"] < row["ci_high"]
        assert row["p"] <= row["p_holm"] <= 1
    assert {"accuracy", "repeats", "queries", "scoring_models"} <= set(tables["checks"]["name"])
    page = (result.run_dir / "report.html").read_text()
    assert (result.run_dir / "figures" / "intervals.svg").is_file()
    assert "correlation with its 95% interval" in page
    record = track_record(api.open_run(result.run_dir).pipeline())
    assert record.params[f"{BLOCK}.subsets"] == 8
    assert [child.labels for child in record.children] == [{"method": method} for method in means.index]
    logged = {name: value for name, _, value in record.children[0].points}
    np.testing.assert_allclose(logged["correlation"], means["tracin_we"])


def test_mlflow_shows_its_parameters_and_rows(config):
    mlflow = pytest.importorskip("mlflow")
    api.run(config, address="local")
    client = mlflow.MlflowClient(tracking_uri=config.settings.tracking.uri)
    [experiment] = [e for e in client.search_experiments() if e.name == "my-subsets"]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1 + 3
    assert all(run.data.params[f"{BLOCK.replace(':', '_')}.subsets"] == "8" for run in runs)
    assert sum("correlation" in run.data.metrics for run in runs) == 3
