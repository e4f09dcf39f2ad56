"""The MLflow projection of a campaign: a parent run, and a child run per curve or row of its headline table."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.storage.blobs import locked_folder
from orchestrator.tracking.payload import (
    ARTIFACTS_TAG,
    METRICS_TAG,
    PARAM_TAG,
    RUN_TAG,
    Point,
    RunPayload,
    payloads,
    tag_value,
)
from orchestrator.tracking.record import SyncResult, TrackingError, TrackRecord, check_uri, sqlite_path
from tasks.digests import digest, digest_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

PARENT_TAG = "mlflow.parentRunId"  # how the MLflow UI nests runs
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines a run, where a server keeps them
}
# A server that is down is reported within seconds; by default MLflow tries for minutes.
_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}

CREATE_TRIES, CREATE_PAUSE_S = 10, 1.0
MADE_AT_ONCE = (
    "duplicate column",
    "already exists",
    "database is locked",
)  # what SQLite says of two that migrate one file


def sync(record: TrackRecord, uri: str) -> SyncResult:
    """Make the store at `uri` hold what `record` says; a second call with the same record changes nothing.

    Values are stamped with the ledger's commit times, so that MLflow recognises those it has. Runs that a killed
    process left RUNNING are finished, with ledger times too. Raises InputError for a refused URI, TrackingError when
    the store fails.
    """
    check_uri(uri)
    parent, children = payloads(record)
    with _environment():
        try:
            client = _connect(uri)
            return _project(client, _experiment_id(client, record.campaign, uri), parent, children)
        except Exception as error:  # open-ended (SQLAlchemy, alembic, requests); none of it may fail a campaign
            raise TrackingError(f"cannot write to the tracking store {uri}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """One line: of a chain of connection errors in one text, the last."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "Caused by" in text:
        text = text.rpartition(": ")[2].strip("\"')")
    return text[:300]


@contextmanager
def _environment() -> Iterator[None]:
    """MLflow stays quiet and gives up soon; what the user set stays as it is."""
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)  # for good: MLflow reads them at import and whenever it likes
    added = {key: value for key, value in _IMPATIENT.items() if key not in os.environ}
    os.environ.update(added)
    levels: dict[str, int] = {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # MLflow's own, at import and first use
            import mlflow.tracking  # noqa: F401 - sets the levels of its loggers at import

            for name in ("alembic", "mlflow", "urllib3"):
                levels[name] = logging.getLogger(name).level
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
    finally:
        for key in added:
            os.environ.pop(key, None)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _connect(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    if not sqlite_path(uri):
        return MlflowClient(tracking_uri=uri)
    path = Path(sqlite_path(uri)).absolute()
    try:  # MLflow would try again for minutes
        path.parent.mkdir(parents=True, exist_ok=True)
        sqlite3.connect(path).execute("PRAGMA schema_version").connection.close()
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(f"{path}: cannot be used as a database: {error}") from error
    _, question, options = uri.partition("?")
    return _created(path, f"sqlite:///{path}{question}{options}")


def _created(path: Path, uri: str) -> MlflowClient:
    """A client of a database file whose tables are there: one process makes them, others wait for it.

    MLflow makes and migrates the tables of a new file without a lock. The folder's lock keeps other runs of Refit away;
    against any other program, and on a file system without locks, trying again finds what the other has made.
    """
    from mlflow import MlflowClient

    for n_left in reversed(range(CREATE_TRIES)):
        try:
            with locked_folder(path.parent):
                client = MlflowClient(tracking_uri=uri)
                client.search_experiments(max_results=1)  # MLflow opens the file at the first call
                return client
        except Exception as error:
            if not n_left or not any(text in str(error) for text in MADE_AT_ONCE):
                raise
            time.sleep(CREATE_PAUSE_S)
    raise AssertionError("the last try returns or raises")


def _experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # A server decides where artifacts lie; those of a database file lie beside it, wherever the next command runs.
        beside = Path(sqlite_path(uri)).absolute().with_suffix(".artifacts").as_uri() if sqlite_path(uri) else None
        try:
            return client.create_experiment(name, artifact_location=beside)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another campaign of this name made it just now
            if found is None:
                raise
    return _active(found)


def _active(experiment: Experiment) -> str:
    if experiment.lifecycle_stage != "active":
        command = f"mlflow experiments restore -x {experiment.experiment_id}"
        raise TrackingError(f"experiment {experiment.name!r} was deleted there; restore it ({command})")
    return experiment.experiment_id


def _project(client: MlflowClient, experiment: str, parent: RunPayload, children: list[RunPayload]) -> SyncResult:
    told_by = list(dict.fromkeys(tag for payload in children for tag in payload.identity if tag != RUN_TAG))
    existing = _existing_runs(client, experiment, parent.identity[RUN_TAG], told_by)
    created, updated, run_ids = 0, 0, {}
    parent_id = ""
    for payload in (parent, *children):
        key = _key(payload.identity, told_by)
        nesting = {PARENT_TAG: parent_id} if parent_id else {}
        run = existing.get(key)
        is_new = run is None
        if run is None:
            run = client.create_run(
                experiment, start_time=payload.start_ms, run_name=payload.name, tags={**payload.identity, **nesting}
            )
        changed = _update(client, run, payload, nesting, is_new)
        created, updated = created + is_new, updated + (changed and not is_new)
        parent_id = parent_id or run.info.run_id
        run_ids["/".join(filter(None, key)) or "campaign"] = run.info.run_id
    return SyncResult(created, updated, run_ids)


def _key(tags: Mapping[str, str], told_by: Sequence[str]) -> tuple[str, ...]:
    return tuple(tags.get(tag, "") for tag in told_by)


def _existing_runs(
    client: MlflowClient, experiment: str, run: str, told_by: Sequence[str]
) -> dict[tuple[str, ...], Run]:
    """This campaign's runs by the values of the tags `told_by`; those of the parent are empty.

    MLflow has no unique keys: a create call whose reply was lost leaves a second run, which is deleted here.
    """
    page = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run}'", max_results=1000)
    found: list[Run] = list(page)
    while page.token:
        page = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run}'", max_results=1000, page_token=page.token)
        found.extend(page)
    runs: dict[tuple[str, ...], Run] = {}
    for one in sorted(found, key=lambda one: (one.info.start_time, one.info.run_id)):
        key = _key(one.data.tags, told_by)
        if key in runs:
            client.delete_run(one.info.run_id)
        runs.setdefault(key, one)
    return runs


def _update(client: MlflowClient, run: Run, payload: RunPayload, nesting: Mapping[str, str], is_new: bool) -> bool:
    """Log what `run` does not hold yet; whether there was anything."""
    from mlflow.entities import Metric, Param, RunTag

    have = run.data.tags
    digests = _artifact_digests(payload)
    artifacts = {
        where: value for where, value in digests.items() if have.get(ARTIFACTS_TAG + (where or "root")) != value
    }
    points = _missing_points(client, run, payload, is_new)
    params = {key: value for key, value in payload.params.items() if key not in run.data.params}
    tags = {**payload.identity, **payload.tags, **nesting, **_changed_params(run, payload)}
    tags = {key: value for key, value in tags.items() if have.get(key) != value}
    if points or params or tags:
        client.log_batch(
            run.info.run_id,
            [Metric(p.key, p.value, p.timestamp, p.step) for p in points],
            [Param(*item) for item in params.items()],
            [RunTag(*item) for item in tags.items()],
        )
    _log_artifacts(client, run.info.run_id, payload, set(artifacts))
    done = {ARTIFACTS_TAG + (where or "root"): value for where, value in artifacts.items()}
    if payload.points and have.get(METRICS_TAG) != payload.metrics_digest():
        done[METRICS_TAG] = payload.metrics_digest()
    if done:  # last, so that a sync killed half-way does its part again
        client.log_batch(run.info.run_id, tags=[RunTag(*item) for item in done.items()])
    return _finish(client, run, payload) or bool(points or params or tags or done)


def _finish(client: MlflowClient, run: Run, payload: RunPayload) -> bool:
    if run.info.status == "FINISHED" and run.info.end_time == payload.end_ms:
        return False
    client.set_terminated(run.info.run_id, "FINISHED", end_time=payload.end_ms)
    return True


def _missing_points(client: MlflowClient, run: Run, payload: RunPayload, is_new: bool) -> list[Point]:
    """Points whose latest value in the store differs; a value that did not move is not logged with a newer time."""
    if is_new or run.data.tags.get(METRICS_TAG) == payload.metrics_digest():
        return list(payload.points) if is_new else []
    latest = {}
    for key in sorted({point.key for point in payload.points} & set(run.data.metrics)):
        for metric in sorted(client.get_metric_history(run.info.run_id, key), key=lambda metric: metric.timestamp):
            latest[key, metric.step] = metric.value
    return [point for point in payload.points if latest.get((point.key, point.step)) != point.value]


def _changed_params(run: Run, payload: RunPayload) -> dict[str, str]:
    """A param cannot change in MLflow; what a resumed campaign changed (workers, say) is kept in a tag beside it."""
    now = {key: (f"{PARAM_TAG}{key}"[:250], tag_value(value)) for key, value in payload.params.items()}
    return {
        tag: value
        for key, (tag, value) in now.items()
        if tag in run.data.tags or run.data.params.get(key, payload.params[key]) != payload.params[key]
    }


def _artifact_digests(payload: RunPayload) -> dict[str, str]:
    """One digest per artifact directory: a tag per file would bury the others in the UI."""
    content = defaultdict(list)
    for path, where in sorted(payload.files):
        content[where].append([path.name, digest_file(path)])
    for name, text in sorted(payload.texts.items()):
        content[""].append([name, hashlib.sha256(text.encode()).hexdigest()])
    return {where: digest(files) for where, files in content.items()}


def _log_artifacts(client: MlflowClient, run_id: str, payload: RunPayload, wanted: set[str]) -> None:
    for path, where in payload.files:
        if where in wanted:
            client.log_artifact(run_id, str(path), where or None)
    if "" in wanted:
        for name, text in payload.texts.items():
            client.log_text(run_id, text, name)
