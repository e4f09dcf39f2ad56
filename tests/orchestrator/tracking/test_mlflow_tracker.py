import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from track_records import KS, METHODS, STAMP, make_record, with_more_repeats

from orchestrator.tracking.children import headline_children
from orchestrator.tracking.mlflow_tracker import sync
from orchestrator.tracking.record import TrackingError
from tasks.errors import InputError


def client_of(uri):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's own, at import
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)


def runs_of(client, campaign="tiny"):
    return list(client.search_runs([client.get_experiment_by_name(campaign).experiment_id]))


def files_of(client, run_id, where=None):
    found = []
    for item in client.list_artifacts(run_id, where):
        found += files_of(client, run_id, item.path) if item.is_dir else [item.path]
    return found


def content(client):
    """All that a reader of the store sees: runs, params, tags, metric history rows, artifacts."""
    return {
        run.info.run_id: (
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            run.data.params,
            run.data.tags,
            sorted(
                (m.key, m.step, m.timestamp, m.value)
                for key in run.data.metrics
                for m in client.get_metric_history(run.info.run_id, key)
            ),
            sorted(files_of(client, run.info.run_id)),
        )
        for run in runs_of(client)
    }


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """A database with the schema in place: creating it takes seconds, a copy does not."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    client_of(f"sqlite:///{path}").search_experiments()
    return path.read_bytes()


@pytest.fixture
def uri(tmp_path, migrated):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mlflow.db").write_bytes(migrated)
    return f"sqlite:///{tmp_path}/runs/mlflow.db"


def test_a_parent_and_a_child_per_curve_with_everything_on_them(record, tables, uri, tmp_path):
    result = sync(record, uri)
    client = client_of(uri)
    runs = {run.info.run_id: run for run in runs_of(client)}
    assert (result.created, result.updated, len(runs)) == (7, 0, 1 + len(METHODS) * 2)
    assert set(result.run_ids.values()) == set(runs)
    parent = runs[result.run_ids["campaign"]]
    assert parent.data.params == {"deletion.k": "[10, 20]", "task": "planted"}
    assert parent.data.tags["git_commit"] == "abc"
    assert sorted(files_of(client, parent.info.run_id)) == [
        "figures/curves.svg",
        "ledger/ledger.parquet",
        "report.html",
        "results/curves.csv",
    ]
    child = runs[result.run_ids["tfidf/opponents"]]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.data.params["method"], child.data.params["group"]) == ("tfidf", "opponents")
    history = client.get_metric_history(child.info.run_id, "delta")
    curve = tables.curves.query("method == 'tfidf' and group == 'opponents'")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == list(zip(KS, curve.delta, strict=True))
    assert {m.timestamp for m in history} == {tables.committed_at["tfidf", "opponents"]}
    assert files_of(client, child.info.run_id) == ["curves.csv"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert (child.info.start_time, child.info.end_time) == (STAMP - 5000, tables.committed_at["tfidf", "opponents"])
    assert (tmp_path / "runs" / "mlflow.artifacts").is_dir()


def test_the_second_sync_adds_nothing(record, uri):
    first = sync(record, uri)
    before = content(client_of(uri))
    again = sync(record, uri)
    assert (again.created, again.updated, again.run_ids) == (0, 0, first.run_ids)
    assert content(client_of(uri)) == before


def test_values_that_moved_are_logged_with_the_new_ledger_time_and_no_others(record, uri):
    run_id = sync(record, uri).run_ids["tracin_we/proponents"]
    client = client_of(uri)
    before = content(client)
    result = sync(with_more_repeats(record, delta=-0.5), uri)
    after = content(client)
    assert (result.created, result.updated) == (
        0,
        2,
    )  # the curve's run, and the parent, which ends with the last ledger row
    added = set(after[run_id][5]) - set(before[run_id][5])
    assert added == {("delta", 10, STAMP + 60_000, -0.5), ("n_repeats", 10, STAMP + 60_000, 6.0)}
    assert len(after[run_id][5]) == len(before[run_id][5]) + 2
    assert after[run_id][2] == STAMP + 60_000
    untouched = set(before) - {run_id, result.run_ids["campaign"]}
    assert all(after[one] == before[one] for one in untouched)
    assert sync(with_more_repeats(record, delta=-0.5), uri).updated == 0


def test_only_changed_artifacts_are_written_again(record, uri):
    run_id = sync(record, uri).run_ids["campaign"]
    client = client_of(uri)
    root = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    stored = {path: root / path for path in ("report.html", "figures/curves.svg")}
    kept = stored["figures/curves.svg"].stat().st_mtime_ns
    next(path for path, _ in record.artifacts if path.name == "report.html").write_text("a newer report")
    assert sync(record, uri).updated == 1
    assert stored["report.html"].read_text() == "a newer report"
    assert stored["figures/curves.svg"].stat().st_mtime_ns == kept


def test_what_a_killed_sync_left_is_completed_and_finished(record, tables, uri):
    client = client_of(uri)
    experiment = client.create_experiment(
        "tiny", artifact_location=uri.removeprefix("sqlite://").removesuffix(".db") + ".artifacts"
    )
    stale = client.create_run(experiment, start_time=STAMP, tags={"refit.run": record.run})
    half = client.create_run(
        experiment,
        start_time=STAMP,
        tags={"refit.run": record.run, "refit.method": "tfidf", "refit.group": "opponents"},
    )
    client.log_metric(half.info.run_id, "delta", tables.curves.delta[6], tables.committed_at["tfidf", "opponents"], 10)
    other = client.create_run(experiment, start_time=STAMP, tags={"refit.run": "1234"})
    result = sync(record, uri)
    assert (result.created, result.updated) == (5, 2)
    assert (result.run_ids["campaign"], result.run_ids["tfidf/opponents"]) == (stale.info.run_id, half.info.run_id)
    ended = client.get_run(stale.info.run_id).info
    assert (ended.status, ended.end_time) == ("FINISHED", max(tables.committed_at.values()))
    assert len(client.get_metric_history(half.info.run_id, "delta")) == len(KS)
    assert client.get_run(other.info.run_id).info.status == "RUNNING"


def test_a_second_run_of_one_curve_is_removed(record, uri):
    run_ids = sync(record, uri).run_ids
    client = client_of(uri)
    twin = client.create_run(
        client.get_experiment_by_name("tiny").experiment_id,
        start_time=STAMP + 1,
        tags={"refit.run": record.run, "refit.method": "random", "refit.group": "opponents"},
    )
    assert sync(record, uri).run_ids == run_ids
    assert twin.info.run_id not in {run.info.run_id for run in runs_of(client)}


def test_a_param_that_changed_stands_in_a_tag(record, uri):
    run_id = sync(replace(record, params={"workers": 1}), uri).run_ids["campaign"]
    sync(replace(record, params={"workers": 2, "new": "x"}), uri)
    data = client_of(uri).get_run(run_id).data
    assert data.params == {"workers": "1", "new": "x"}
    assert data.tags["refit.param.workers"] == "2"
    sync(replace(record, params={"workers": 1, "new": "x"}), uri)
    assert client_of(uri).get_run(run_id).data.tags["refit.param.workers"] == "1"


def test_labels_and_values_of_any_shape_are_taken(record, tables, uri):
    odd = {"tracin_we": "méthode: <b>{{7*7}}</b> 'quoted' ..", "tfidf": "../up", "random": "random"}
    named = {name: getattr(tables, name).replace({"method": odd}) for name in ("curves", "summary", "contrasts")}
    named["contrasts"] = named["contrasts"].assign(baseline=odd["tracin_we"])
    stamps = {(odd[method], group): stamp for (method, group), stamp in tables.committed_at.items()}
    long = replace(
        record,
        children=replace(tables, **named, committed_at=stamps).children(),
        params={"long": "x" * 9000, "key: <odd>": None},
        tags={"long": "y" * 9000, "empty": ""},
    )
    first = sync(long, uri)
    assert (first.created, sync(long, uri).updated) == (7, 0)
    assert f"{odd['tracin_we']}/proponents" in first.run_ids


def test_a_run_per_row_of_another_campaign_and_the_second_sync_adds_nothing(uri, tmp_path):
    table = pd.DataFrame({"test": ["math", "math", "race"], "action": ["undo", "reinforce", "undo"], "share": 0.5})
    record = make_record(tmp_path, headline_children(table, ("test", "action"), STAMP))
    first = sync(record, uri)
    assert list(first.run_ids) == ["campaign", "math/undo", "math/reinforce", "race/undo"]
    before = content(client_of(uri))
    again = sync(record, uri)
    assert (first.created, again.created, again.updated, again.run_ids) == (4, 0, 0, first.run_ids)
    assert content(client_of(uri)) == before
    moved = headline_children(table.assign(share=[0.5, 0.75, 0.5]), ("test", "action"), STAMP + 1)
    sync(replace(record, children=moved), uri)
    history = client_of(uri).get_metric_history(first.run_ids["math/reinforce"], "share")
    assert [(m.timestamp, m.value) for m in history] == [(STAMP, 0.5), (STAMP + 1, 0.75)]
    assert len(client_of(uri).get_metric_history(first.run_ids["race/undo"], "share")) == 1


def test_two_campaigns_share_a_store_and_a_directory_is_made(record, uri):
    sync(record, uri)
    other = sync(replace(record, run="aa", campaign="another"), uri)
    assert other.created == 7
    assert len(runs_of(client_of(uri))) == len(runs_of(client_of(uri), "another")) == 7


def test_the_first_sync_of_a_process_makes_the_database_quietly(tmp_path):
    script = """if True:
        import pathlib, sys
        sys.path.insert(0, sys.argv[1])
        from track_records import make_record
        from orchestrator.tracking.mlflow_tracker import sync
        result = sync(make_record(pathlib.Path()), "sqlite:///new/place/mlflow.db")
        assert result.created == 7, result
        assert not {"torch", "ray"} & set(sys.modules)"""
    here = Path(__file__)
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script, str(here.parent)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(here.parents[3])},
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "new/place/mlflow.db").exists()


@pytest.mark.parametrize("uri", ["mlruns", "file:///mlruns", "http://user:hunter2@host"])
def test_a_refused_uri_is_input_error_before_anything_is_written(record, uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError):
        sync(record, uri)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_is_no_database_is_a_tracking_error(record, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(TrackingError, match="tracking store") as caught:
        sync(record, f"sqlite:///{tmp_path}/mlflow.db")
    assert "\n" not in str(caught.value)


def test_a_deleted_experiment_is_not_brought_back(record, uri):
    sync(record, uri)
    client = client_of(uri)
    client.delete_experiment(client.get_experiment_by_name("tiny").experiment_id)
    with pytest.raises(TrackingError, match="is deleted in the tracking store"):
        sync(record, uri)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_is_down_is_a_tracking_error_and_the_environment_is_as_before(record, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with pytest.raises(TrackingError, match=r"tracking store http://127.*: \[Errno \d+\] Connection refused$"):
        sync(record, f"http://127.0.0.1:{free_port()}")
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.fixture
def server(tmp_path, migrated):
    """A real tracking server on loopback."""
    (tmp_path / "server.db").write_bytes(migrated)
    port = free_port()
    log = open(tmp_path / "server.log", "wb")  # noqa: SIM115 - the process writes to it until the fixture ends
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{tmp_path}/server.db",
            "--artifacts-destination",
            str(tmp_path / "server-artifacts"),
        ],
        stdout=log,
        stderr=log,
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(address, process, tmp_path / "server.log")
        yield address, process
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def wait_until_up(address, process, log):
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.mark.slow
def test_a_tracking_server_gets_the_same_and_its_end_is_a_tracking_error(record, server):
    address, process = server
    first = sync(record, address)
    before = content(client_of(address))
    assert first.created == 7
    assert "report.html" in before[first.run_ids["campaign"]][6]
    again = sync(record, address)
    assert (again.created, again.updated) == (0, 0)
    assert content(client_of(address)) == before
    process.terminate()
    process.wait(30)
    with pytest.raises(TrackingError):
        sync(record, address)
