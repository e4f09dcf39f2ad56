"""Report and MLflow: projections of the ledger. A tracking outage is a warning, never a failure."""

from __future__ import annotations

import logging

from orchestrator.inspection.report_data import report_data
from orchestrator.inspection.track_record import track_record
from orchestrator.report.render import write_report
from orchestrator.stages.pipeline import Pipeline
from orchestrator.tracking.record import SyncResult, TrackingError
from tasks.errors import InputError

log = logging.getLogger("refit")


def write_projections(pipeline: Pipeline) -> None:
    """Write every projection of a finished run."""
    for write in PROJECTIONS:
        write(pipeline)


def write_page(pipeline: Pipeline) -> None:
    """Write report.html and the figures."""
    write_report(report_data(pipeline), pipeline.run_dir.path)


def write_runs(pipeline: Pipeline) -> None:
    """Write the runs in MLflow if the config has a tracking store; if it cannot be reached, that is a warning."""
    if pipeline.experiment.settings.tracking is None:
        return
    try:
        sync(pipeline)
    except TrackingError as error:
        pipeline.progress.say(
            f"warning: MLflow was not updated ({error}); the ledger has everything, and refit sync writes it later"
        )
        log.warning("tracking: %s", error)


def sync(pipeline: Pipeline) -> SyncResult:
    """Rebuild the MLflow projection. Raises TrackingError when the store cannot be reached."""
    from orchestrator.tracking.mlflow_tracker import sync as sync_mlflow

    tracking = pipeline.experiment.settings.tracking
    if tracking is None:
        raise InputError(
            f"{pipeline.experiment.config.where}: tracking", "is null; give it a uri to have something to sync"
        )
    return sync_mlflow(track_record(pipeline), tracking.uri)


PROJECTIONS = (write_page, write_runs)
