"""Collects the plain record that a tracking store shows from a finished pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.analysis.checks import CAUTION, FAILED, Check, Status, standing, with_status
from orchestrator.campaigns.results import Results
from orchestrator.inspection.diagnosed import diagnostic_children
from orchestrator.records import LedgerRow
from orchestrator.stages.pipeline import Pipeline
from orchestrator.storage.blobs import write_file
from orchestrator.storage.ledger_parts import encode_rows
from orchestrator.tracking.payload import CAUTION_TAG, FAILED_TAG
from orchestrator.tracking.record import TrackRecord


def track_record(pipeline: Pipeline) -> TrackRecord:
    """Return the record that MLflow shows; its timestamps are those of the ledger."""
    experiment, results, finished = pipeline.experiment, pipeline.results, pipeline.finished
    of_campaign = pipeline.campaign.tracking(finished)
    return TrackRecord(
        experiment.settings.name,
        experiment.run_hex,
        {**_params(pipeline), **of_campaign.params},
        {**_tags(pipeline, finished.rows), **check_tags(results.checks)},
        [*of_campaign.children, *diagnostic_children(pipeline, max(finished.committed_ms.values()))],
        _artifacts(pipeline, finished.rows),
        min(finished.committed_ms.values()),
        _description(results),
    )


def _params(pipeline: Pipeline) -> dict[str, Any]:
    experiment, settings = pipeline.experiment, pipeline.experiment.settings
    return {
        "campaign": settings.campaign,
        "task": settings.task.get("name"),
        "n_train": len(experiment.train),
        "n_repeats": len(getattr(pipeline.planned, "seeds", experiment.seeds)),
        "scoring_models": settings.scores.models if experiment.campaign.asks_queries else 0,
    }


def _tags(pipeline: Pipeline, rows: Mapping[str, LedgerRow]) -> dict[str, Any]:
    experiment, provenance = pipeline.experiment, pipeline.run_dir.provenance()
    return {
        "task_id": experiment.task_id,
        "train_digest": experiment.train_digest,
        "git_commit": provenance.get("git_commit") or "unknown",
        "code_version": provenance.get("code_version", ""),
        "store": provenance.get("store", ""),
        "state": "complete",
        "n_quarantined": sum(r.outcome.status == "quarantined" for r in rows.values()),
    }


def check_tags(checks: Sequence[Check]) -> dict[str, str]:
    """Return two tags, the names of the failed checks and of those that ask for caution, each "none" if there are none; {} without checks."""
    kinds: dict[str, Status] = {FAILED_TAG: "failed", CAUTION_TAG: "caution"} if checks else {}
    return {tag: ", ".join(check.name for check in with_status(checks, kind)) or "none" for tag, kind in kinds.items()}


def _description(results: Results) -> str:
    """Return the verdicts with their checks, as the description that MLflow shows for the run."""
    failed, cautions = with_status(results.checks, "failed"), with_status(results.checks, "caution")
    parts = [
        _listed(FAILED, [check.sentence for check in failed]),
        _listed("In short:", results.in_short),
        _listed("All comparisons:" if results.in_short else "", results.verdicts),
        _listed(CAUTION, [check.sentence for check in cautions]),
        standing(results.checks),
    ]
    return "\n\n".join(filter(None, parts))


def _listed(title: str, sentences: Sequence[str]) -> str:
    points = "\n".join(f"- {sentence}" for sentence in sentences)
    return f"{title}\n\n{points}" if title and points else points


def _artifacts(pipeline: Pipeline, rows: Mapping[str, LedgerRow]) -> list[tuple[Any, str]]:
    run_dir = pipeline.run_dir
    write_file(run_dir.path / "ledger.parquet", encode_rows(list(rows.values())))
    found = [(path, "results") for path in sorted(run_dir.results.glob("*.csv"))]
    found += [(path, "figures") for path in sorted((run_dir.path / "figures").glob("*.svg"))]
    found += [(run_dir.path / name, "") for name in ("report.html", "config.yaml", "plan.parquet", "ledger.parquet")]
    return [(path, directory) for path, directory in found if path.exists()]
