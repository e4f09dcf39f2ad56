"""Saliency, token masking and artifacts through a whole campaign: their tables, report, resuming, and refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from influence.saliency import normalised, token_saliency
from orchestrator import api
from orchestrator.inspection.status import status
from orchestrator.inspection.track_record import track_record
from orchestrator.inspection.verify import verify
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import pipeline_of, result_bytes, run_here, small_config

OWN = "def vowels(text):\n    return sum(letter in 'aeiou' for letter in text) / len(text)\n"
MASKING = {"name": "token_masking", "overlap_shares": [0.1, 0.25], "methods": ["tracin_last"]}


def asked(module):
    own = f"{module}:vowels"
    artifact = {"name": "artifact", "of": own, "negations": ["ba"], "group_by": "negation", "as": "vowels"}
    return [{"name": "saliency"}, MASKING, artifact]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A finished campaign with the three diagnostics: (config, result)."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "my_artifacts.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        config = small_config(folder, diagnose=asked("my_artifacts"), plugins=["my_artifacts"])
        yield config, run_here(config)


def table(campaign, name):
    return pd.read_csv(campaign[1].run_dir / "results" / f"diagnose_{name}.csv")


def test_the_saliency_table_holds_every_token_of_every_query(campaign):
    pipeline, tokens, whole = pipeline_of(campaign[0]), table(campaign, "saliency_tokens"), table(campaign, "saliency")
    queries, task, last = pipeline.queries, pipeline.experiment.task, pipeline.scores.checkpoints()[-1:]
    task.prepare()
    labels = [task.classes.index(name) for name in whole["label"]]
    saliency = token_saliency(task, last, queries.split, queries.rows, np.array(labels))
    for place, query_id in enumerate(queries.ids):
        mine = tokens.loc[tokens["query_id"] == query_id]
        expected = normalised(saliency[place][: len(mine)])
        np.testing.assert_allclose(mine["saliency"], expected, rtol=1e-5, atol=1e-7)
        assert mine["saliency"].abs().sum() == pytest.approx(1)


def test_the_means_of_overlaps_are_those_of_the_queries(campaign):
    means, queries = table(campaign, "token_masking"), table(campaign, "token_masking_queries")
    assert set(means["method"]) == {"tracin_last"}
    assert set(means["saliency_rank"]) == {"lowest", "median", "highest", "smallest", "random"}
    of = ["method", "saliency_rank", "top_share"]
    expected = queries.groupby(of)["overlap"].mean()
    np.testing.assert_allclose(means.set_index(of)["overlap"].sort_index(), expected.sort_index())
    assert (means["n_queries"] == 3).all()
    contrasts = table(campaign, "token_masking_contrasts")
    assert len(contrasts) == 2 * 10, "pairs of five ranks, for two shares"
    assert {"overlap_diff", "ci_low", "p_holm"} <= set(contrasts.columns)
    assert {"influence", "influence_ci_low"} <= set(table(campaign, "token_masking_holding").columns)


def test_the_artifact_of_a_users_function_is_fitted_on_the_stored_scores(campaign):
    pipeline, queries = pipeline_of(campaign[0]), table(campaign, "vowels_queries")
    train = pipeline.experiment.task.splits["train"]
    values = [sum(letter in "aeiou" for letter in text) / len(text) for text in train.texts]
    for _, row in queries.iterrows():
        scores = pipeline.matrices[row["method"]].row(row["query_id"]).astype(np.float64)
        expected = np.polyfit((scores - scores.mean()) / scores.std(), values, 2)
        np.testing.assert_allclose([row["quadratic"], row["linear"], row["constant"]], expected, rtol=1e-9)
    assert "my_artifacts" in pipeline.experiment.sources, "the workers check its source"


def test_report_mlflow_and_verify_show_them(campaign):
    page = (campaign[1].run_dir / "report.html").read_text()
    assert "Diagnostic: token masking" in page
    assert page.count("<h4>Saliency</h4>") == 3
    section = page[page.index("<h4>Saliency</h4>") :]
    assert '<mark class="h' in section
    assert "proponents" in section
    figures = campaign[1].run_dir / "figures"
    assert (figures / "diagnose-vowels.svg").read_text().count("predicted") >= 3
    assert (figures / "diagnose-token_masking.svg").is_file()
    pipeline = api.open_run(campaign[1].run_dir).pipeline()
    children = track_record(pipeline).children
    masked = [child for child in children if child.labels.get("diagnostic") == "token_masking"]
    assert len(masked) == 2 * 5
    assert {"overlap", "overlap_ci_low"} <= {metric for metric, _, _ in masked[0].points}
    assert not verify(pipeline).problems


def test_a_run_that_was_killed_between_diagnostics_ends_with_the_same_bytes(campaign):
    config, result = campaign
    before = result_bytes(result.run_dir)
    stored = pipeline_of(config).store.root / "diagnoses"
    files = {path: path.read_bytes() for path in stored.glob("*/tables-*.json")}
    assert len(files) == 3
    for path in list(files)[1:]:
        path.unlink()
    assert run_here(config).report.retrained == 0
    assert {path: path.read_bytes() for path in stored.glob("*/tables-*.json")} == files
    assert result_bytes(result.run_dir) == before


def test_a_run_until_diagnose_has_the_tables_before_any_retrain(campaign, tmp_path):
    config = small_config(tmp_path, diagnose=asked("my_artifacts"), plugins=["my_artifacts"])
    result = run_here(config, until="diagnose")
    assert result.report.retrained == 1, "the scoring model"
    complete = result_bytes(campaign[1].run_dir)
    early = result_bytes(result.run_dir)
    assert early == {name: data for name, data in complete.items() if name.startswith("diagnose_")}
    run_here(config, until="retrain")
    now = status(result.run_dir)
    assert (now.complete, now.stage) == (True, "retraining"), "tables of diagnostics are no analysis"


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"name": "artifact", "of": "overlap"}, r"diagnose\.0\.of: 'overlap'.*no artifact; allowed: lexical_overlap"),
        ({"name": "artifact", "of": "lexical_overlap"}, r"diagnose\.0\.of: 'lexical_overlap' needs pairs of texts"),
        ({"name": "artifact", "of": "unlisted:f"}, r"diagnose\.0\.of: .*module 'unlisted' is not listed under plugins"),
        ({**MASKING, "methods": ["random"]}, r"diagnose\.0\.methods: 'random' is no method with scores"),
        ({**MASKING, "overlap_shares": [0.001]}, r"diagnose\.0\.overlap_shares: 0.001 of 40 train examples"),
        ({**MASKING, "ranks": ["most"]}, r"diagnose\.0\.ranks\.0"),
        ({**MASKING, "common_random_numbers": False}, r"diagnose\.0\.common_random_numbers: false needs a method"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused_before_anything_starts(tmp_path, block, problem):
    with pytest.raises(InputError, match=problem):
        pipeline_of(small_config(tmp_path, diagnose=[block]))


def test_a_plugin_without_the_function_is_refused(tmp_path, plugin):
    module = plugin("no_artifacts", "limit = 3\n")
    for name, problem in (("missing", "cannot import no_artifacts:missing"), ("limit", "limit is not a function")):
        with pytest.raises(InputError, match=rf"diagnose\.0\.of: {problem}|{problem}"):
            small_config(tmp_path, diagnose=[{"name": "artifact", "of": f"{module}:{name}"}], plugins=[module])
