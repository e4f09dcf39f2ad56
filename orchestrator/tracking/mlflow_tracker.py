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

PARENT_TAG = "mlflow.parentRunId"  # the MLflow UI nests runs by this tag
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a server would print two lines per run
}
# A server that is down is reported within seconds; by default MLflow tries for minutes.
_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}

CREATE_TRIES, CREATE_PAUSE_S = 10, 1.0
# Errors of SQLite when two processes migrate one file at the same time.
MADE_AT_ONCE = ("duplicate column", "already exists", "database is locked")


def sync(record: TrackRecord, uri: str) -> SyncResult:
    """Bring the tracking store at `uri` up to date with `record`; a second call with the same record changes nothing.

    Values carry the ledger's commit times, by which MLflow recognises values that it already has. Runs that a killed
    process left RUNNING are finished, also with ledger times. Raises InputError for a refused URI, and TrackingError if
    the store fails.
    """
    check_uri(uri)
    parent, children = payloads(record)
    with _environment():
        try:
            client = _connect(uri)
            return _project(client, _experiment_id(client, record.campaign, uri), parent, children)
        except Exception as error:  # of SQLAlchemy, alembic, requests ...; none may fail a campaign
            raise TrackingError(f"cannot write to the tracking store {uri}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Describe an error in one line; of a text that chains connection errors, return the last one."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "Caused by" in text:
        text = text.rpartition(": ")[2].strip("\"')")
    return text[:300]


@contextmanager
def _environment() -> Iterator[None]:
    """Keep MLflow quiet and its retries short while the body runs; variables that the user has set are not changed."""
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)  # not removed afterwards, since MLflow reads them at any time
    added = {key: value for key, value in _IMPATIENT.items() if key not in os.environ}
    os.environ.update(added)
    levels: dict[str, int] = {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # MLflow's own
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
    try:  # checked here, because MLflow would retry for minutes
        path.parent.mkdir(parents=True, exist_ok=True)
        sqlite3.connect(path).execute("PRAGMA schema_version").connection.close()
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(f"{path}: cannot be used as a database: {error}") from error
    _, question, options = uri.partition("?")
    return _created(path, f"sqlite:///{path}{question}{options}")


def _created(path: Path, uri: str) -> MlflowClient:
    """Return a client of a database file whose tables exist; one process creates them while others wait.

    MLflow creates and migrates the tables of a new file without a lock. The folder's lock keeps other runs of Refit out.
    Other programs, and file systems without locks, are handled by retrying, which finds the tables that the other
    process has created.
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
        # A server chooses the place of its artifacts. For a database file they lie next to it, at an absolute path, so
        # that it does not matter from which directory the next command runs.
        location = Path(sqlite_path(uri)).absolute().with_suffix(".artifacts").as_uri() if sqlite_path(uri) else None
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another run of this name has just created it
            if found is None:
                raise
    return _active(found)


def _active(experiment: Experiment) -> str:
    if experiment.lifecycle_stage != "active":
        command = f"mlflow experiments restore -x {experiment.experiment_id}"
        raise TrackingError(f"experiment {experiment.name!r} is deleted in the tracking store; restore it: {command}")
    return experiment.experiment_id


def _project(client: MlflowClient, experiment: str, parent: RunPayload, children: list[RunPayload]) -> SyncResult:
    label_tags = list(dict.fromkeys(tag for payload in children for tag in payload.identity if tag != RUN_TAG))
    existing = _existing_runs(client, experiment, parent.identity[RUN_TAG], label_tags)
    created, updated, run_ids = 0, 0, {}
    parent_id = ""
    for payload in (parent, *children):
        key = _key(payload.identity, label_tags)
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


def _key(tags: Mapping[str, str], label_tags: Sequence[str]) -> tuple[str, ...]:
    return tuple(tags.get(tag, "") for tag in label_tags)


def _existing_runs(
    client: MlflowClient, experiment: str, run: str, label_tags: Sequence[str]
) -> dict[tuple[str, ...], Run]:
    """Return this campaign's runs by the values of the tags `label_tags`, which are empty for the parent run.

    MLflow has no unique keys, so a create call that was repeated after its reply was lost leaves a second run, which is
    deleted here.
    """
    page = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run}'", max_results=1000)
    found: list[Run] = list(page)
    while page.token:
        page = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run}'", max_results=1000, page_token=page.token)
        found.extend(page)
    runs: dict[tuple[str, ...], Run] = {}
    for one in sorted(found, key=lambda one: (one.info.start_time, one.info.run_id)):
        key = _key(one.data.tags, label_tags)
        if key in runs:
            client.delete_run(one.info.run_id)
        runs.setdefault(key, one)
    return runs


def _update(client: MlflowClient, run: Run, payload: RunPayload, nesting: Mapping[str, str], is_new: bool) -> bool:
    """Log what `run` does not hold yet; return whether anything was logged."""
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
    if done:  # written last, so that a sync that was killed before is repeated
        client.log_batch(run.info.run_id, tags=[RunTag(*item) for item in done.items()])
    return _finish(client, run, payload) or bool(points or params or tags or done)


def _finish(client: MlflowClient, run: Run, payload: RunPayload) -> bool:
    if run.info.status == "FINISHED" and run.info.end_time == payload.end_ms:
        return False
    client.set_terminated(run.info.run_id, "FINISHED", end_time=payload.end_ms)
    return True


def _missing_points(client: MlflowClient, run: Run, payload: RunPayload, is_new: bool) -> list[Point]:
    """Return the points whose latest value in the store differs; an unchanged value is not logged with a newer time."""
    if is_new or run.data.tags.get(METRICS_TAG) == payload.metrics_digest():
        return list(payload.points) if is_new else []
    latest = {}
    for key in sorted({point.key for point in payload.points} & set(run.data.metrics)):
        for metric in sorted(client.get_metric_history(run.info.run_id, key), key=lambda metric: metric.timestamp):
            latest[key, metric.step] = metric.value
    return [point for point in payload.points if latest.get((point.key, point.step)) != point.value]


def _changed_params(run: Run, payload: RunPayload) -> dict[str, str]:
    """Return tags for changed params, such as the number of workers of a resumed campaign; MLflow cannot change a param."""
    now = {key: (f"{PARAM_TAG}{key}"[:250], tag_value(value)) for key, value in payload.params.items()}
    return {
        tag: value
        for key, (tag, value) in now.items()
        if tag in run.data.tags or run.data.params.get(key, payload.params[key]) != payload.params[key]
    }


def _artifact_digests(payload: RunPayload) -> dict[str, str]:
    """Return one digest per artifact directory, because one tag per file would clutter the UI."""
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
