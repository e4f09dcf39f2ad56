"""Report and MLflow follow from the ledger, and neither can fail a campaign."""

from __future__ import annotations

import contextlib
import html
import io
import shutil
import socket
import warnings

import pytest

from orchestrator import api
from orchestrator.cli import main
from orchestrator.inspection.projections import sync
from orchestrator.terminal.progress import Progress
from orchestrator.tracking.record import TrackingError
from tests.orchestrator.tiny_campaign import Finished, result_bytes, small_config


def client_of(uri):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's own, at import
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)


def content(uri):
    """All runs of the campaign with params, tags, and every metric row."""
    client = client_of(uri)
    experiment = client.get_experiment_by_name("small")
    return {
        run.info.run_id: (
            run.info.start_time,
            run.info.end_time,
            run.data.params,
            run.data.tags,
            [
                (m.key, m.step, m.timestamp, m.value)
                for key in sorted(run.data.metrics)
                for m in client.get_metric_history(run.info.run_id, key)
            ],
        )
        for run in client.search_runs([experiment.experiment_id])
    }


@pytest.fixture(scope="module")
def tracked(finished, tmp_path_factory) -> Finished:
    """The finished campaign, run again with tracking."""
    folder = tmp_path_factory.mktemp("tracked")
    shutil.copytree(finished.folder / "runs", folder / "runs")
    config = small_config(folder, tracking={"uri": f"sqlite:///{folder}/mlflow.db"})
    return Finished(folder, config, api.run(config, address="local"))


def uri_of(tracked):
    return tracked.config.settings.tracking.uri


def test_the_report_is_written_with_the_verdicts_and_needs_no_network(finished):
    page = (finished.run_dir / "report.html").read_text()
    assert list((finished.run_dir / "figures").glob("*.svg"))
    assert finished.result.results.verdicts
    for verdict in finished.result.results.verdicts:
        assert verdict in html.unescape(page)
    assert not [text for text in ('src="http', 'href="http', "@import", "url(http") if text in page]


def test_a_report_is_rebuilt_from_the_ledger_to_the_same_bytes(own_copy, capsys):
    before = result_bytes(own_copy.run_dir)
    page = (own_copy.run_dir / "report.html").read_text()
    assert main(["report", str(own_copy.run_dir)]) == 0
    again = (own_copy.run_dir / "report.html").read_text()
    shutil.rmtree(own_copy.run_dir / "results")
    (own_copy.run_dir / "report.html").unlink()
    assert main(["report", str(own_copy.run_dir)]) == 0
    assert str(own_copy.run_dir / "report.html") in capsys.readouterr().out
    assert result_bytes(own_copy.run_dir) == before
    assert (own_copy.run_dir / "report.html").read_text() == again
    assert page.count("<tr") == again.count("<tr")


def test_tracking_is_switched_on_without_training(tracked):
    assert (tracked.result.exit_code, tracked.result.report.retrained) == (0, 0)


def test_mlflow_holds_a_run_per_campaign_and_per_curve_with_the_tables_numbers(tracked):
    runs = content(uri_of(tracked))
    assert len(runs) == 1 + 3 * 2
    curves = api.open_run(tracked.run_dir).curves().round(12)
    points = {(step, round(value, 12)) for _, _, _, _, rows in runs.values() for _, step, _, value in rows}
    assert {(k, delta) for k, delta in zip(curves["k"], curves["delta"], strict=True)} <= points


def test_syncing_again_adds_nothing(tracked, capsys):
    before = content(uri_of(tracked))
    again = sync(tracked.pipeline)
    assert (again.created, again.updated) == (0, 0)
    assert content(uri_of(tracked)) == before
    assert api.run(tracked.config, address="local").exit_code == 0
    assert main(["sync", str(tracked.run_dir)]) == 0
    assert "0 runs created, 0 updated" in capsys.readouterr().out
    assert content(uri_of(tracked)) == before


def test_sync_rebuilds_a_store_that_was_lost(tracked, tmp_path):
    before = content(uri_of(tracked))
    database = tracked.folder / "mlflow.db"
    kept = tmp_path / "kept.db"
    shutil.copy(database, kept)
    client = client_of(uri_of(tracked))
    for run_id in before:
        client.delete_run(run_id)
    try:
        assert sync(tracked.pipeline).created == 7

        def without_ids(found):
            return sorted(repr((v[0], v[1], v[2], v[4])) for v in found.values())

        assert without_ids(content(uri_of(tracked))) == without_ids(before)
    finally:
        client_of(uri_of(tracked))._tracking_client.store.engine.dispose()
        shutil.copy(kept, database)


@pytest.fixture
def down() -> str:
    """The address of a server that is not there."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_an_outage_is_a_warning_and_the_run_is_complete(own_copy, down):
    config = small_config(own_copy.folder, tracking={"uri": down})
    shutil.rmtree(own_copy.run_dir / "results")
    said = io.StringIO()
    done = api.run(config, address="local", progress=Progress(said))
    assert done.exit_code == 0
    assert result_bytes(done.run_dir)
    (warning,) = [line for line in said.getvalue().splitlines() if "warning" in line]
    assert "MLflow was not updated" in warning
    assert down in warning
    with pytest.raises(TrackingError):
        sync(api.open_run(done.run_dir).pipeline())


def test_a_file_that_is_no_database_is_a_warning_too(own_copy, tmp_path, capsys):
    path = tmp_path / "mlflow.db"
    path.write_text("this is no database, and never was one" * 50)
    write = ["--set", f"tracking={{uri: 'sqlite:///{path}'}}"]
    assert main(["run", str(own_copy.config.path), "--yes", "--address", "local", *write]) == 0
    assert "MLflow was not updated" in capsys.readouterr().err
    assert path.read_text().startswith("this is no database")


def test_sync_says_in_one_line_that_nothing_is_tracked(finished, capsys):
    assert main(["sync", str(finished.run_dir)]) != 0
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1
    assert "tracking" in err[0]
