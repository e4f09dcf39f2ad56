"""Terminal, report, API, MLflow and results/ carry the same checks beside every verdict."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator import api
from orchestrator.analysis.checks import CAUTION, FAILED, with_status
from orchestrator.cli import main
from tests.orchestrator.doubtful_campaign import UNTRAINED, doubtful
from tests.orchestrator.test_projections import client_of

RELIED = "Not to be relied on: accuracy "


@dataclass(frozen=True)
class Shown:
    """A campaign of a model that has learnt nothing, and everything it showed."""

    result: api.RunResult
    terminal: str
    uri: str

    @property
    def run_dir(self) -> Path:
        return self.result.run_dir


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Shown:
    folder = tmp_path_factory.mktemp("doubtful")
    uri = f"sqlite:///{folder}/mlflow.db"
    config = doubtful(folder, {**UNTRAINED, "tracking": {"uri": uri}})
    api.run(config, address="local")
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        assert main(["run", str(config.path), "--yes", "--address", "local"]) == 0
    return Shown(api.run(config, address="local"), "\n".join(lines), uri)


def checks_of(shown):
    checks = shown.result.results.checks
    failed, cautions = with_status(checks, "failed"), with_status(checks, "caution")
    assert [check.name for check in failed] == ["accuracy"]
    assert {"queries", "repeats", "scoring_models"} <= {check.name for check in cautions}
    return failed, cautions


def test_every_verdict_of_a_model_at_chance_begins_with_the_reason_not_to_rely_on_it(shown):
    checks_of(shown)
    assert len(shown.result.results.verdicts) == 2
    assert all(verdict.startswith(RELIED) for verdict in shown.result.results.verdicts)


def test_the_terminal_shows_failures_above_the_sentences_in_short_and_cautions_below(shown):
    failed, cautions = checks_of(shown)
    text = " ".join(shown.terminal.split())
    assert all(sentence.startswith(RELIED) for sentence in shown.result.results.in_short)
    order = [FAILED, *(check.sentence for check in failed), *shown.result.results.in_short, "All 2 comparisons are in"]
    order += [CAUTION, *(check.sentence for check in cautions), "Of 10 checks, 1 failed"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_the_report_shows_them_in_the_box_of_the_verdicts(shown):
    failed, cautions = checks_of(shown)
    page = (shown.run_dir / "report.html").read_text()
    box = html.unescape(re.search(r'<section class="verdict unreliable".*?</section>', page, re.DOTALL).group())
    order = [FAILED, *(check.sentence for check in failed), *shown.result.results.in_short]
    order += [*shown.result.results.verdicts, CAUTION, *(check.sentence for check in cautions)]
    places = [box.index(part) for part in order]
    assert places == sorted(places)
    table = html.unescape(page[page.index('<h2 id="checks">') :])
    assert all(check.sentence in table for check in shown.result.results.checks)


def test_the_api_gives_every_check_as_a_table(shown):
    table = api.open_run(shown.run_dir).checks()
    assert list(table.columns) == ["name", "status", "sentence", "numbers"]
    told = [(check.name, check.status, check.sentence) for check in shown.result.results.checks]
    assert list(table.iloc[:, :3].itertuples(index=False, name=None)) == told


def test_mlflow_tags_every_run_and_tells_the_verdicts_with_their_checks(shown):
    failed, cautions = checks_of(shown)
    client = client_of(shown.uri)
    runs = client.search_runs([client.get_experiment_by_name("doubtful").experiment_id])
    assert len(runs) == 1 + 2 * 2
    for run in runs:
        assert run.data.tags["refit.checks_failed"] == "accuracy"
        assert run.data.tags["refit.checks_caution"] == ", ".join(check.name for check in cautions)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    told = parent.data.tags["mlflow.note.content"]
    for sentence in (*shown.result.results.verdicts, *(check.sentence for check in (*failed, *cautions))):
        assert f"- {sentence}" in told
    assert "checks.csv" in {Path(file.path).name for file in client.list_artifacts(parent.info.run_id, "results")}


def test_verify_derives_the_checks_again(shown, capsys):
    path = shown.run_dir / "results" / "checks.csv"
    kept = path.read_bytes()
    assert main(["verify", str(shown.run_dir)]) == 0
    path.write_bytes(kept.replace(b"failed", b"passed", 1))
    try:
        assert main(["verify", str(shown.run_dir)]) == 1
        assert "checks.csv: differs from the table derived from the ledger" in capsys.readouterr().out
    finally:
        path.write_bytes(kept)
