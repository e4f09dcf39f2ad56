"""From a finished pipeline to the plain record that a tracking store shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from orchestrator.analysis.checks import CAUTION, FAILED, Check, Status, standing, with_status
from orchestrator.campaigns.plan import NOT_ASKED
from orchestrator.pipeline import Pipeline
from orchestrator.records import LedgerRow
from orchestrator.results import Results
from orchestrator.storage.blobs import write_file
from orchestrator.storage.ledger_parts import encode_rows
from orchestrator.tracking.children import deletion_children, headline_children
from orchestrator.tracking.payload import CAUTION_TAG, FAILED_TAG
from orchestrator.tracking.record import ChildRecord, TrackRecord


def track_record(pipeline: Pipeline) -> TrackRecord:
    """The campaign as MLflow shows it; timestamps are the ledger's."""
    experiment, results = pipeline.experiment, pipeline.results
    rows = _rows(pipeline)
    stamps = {s: _epoch_ms(row.committed_at) for s, row in rows.items()}
    is_deletion = experiment.settings.campaign == "deletion"
    return TrackRecord(
        experiment.settings.name,
        experiment.run_hex,
        {**_params(pipeline), **(_deletion_params(pipeline) if is_deletion else _campaign_params(pipeline))},
        {**_tags(pipeline, rows), **check_tags(results.checks)},
        _deletion_children(pipeline, stamps)
        if is_deletion
        else headline_children(results.tables[results.headline], results.labels, max(stamps.values())),
        _artifacts(pipeline, rows),
        min(stamps.values()),
        _description(results),
    )


def _rows(pipeline: Pipeline) -> dict[str, LedgerRow]:
    """The ledger rows behind the tables: those of the plan where there is one."""
    if pipeline.experiment.settings.campaign == "deletion":
        return {work.spec_id: pipeline.rows[work.spec_id] for work in pipeline.planned.works}
    return dict(pipeline.rows)


def _params(pipeline: Pipeline) -> dict[str, Any]:
    experiment, settings = pipeline.experiment, pipeline.experiment.settings
    return {
        "campaign": settings.campaign,
        "task": settings.task.get("name"),
        "n_train": len(experiment.train),
        "n_repeats": len(getattr(pipeline.planned, "seeds", experiment.seeds)),
        "scoring_models": settings.scores.models if experiment.campaign.asks_queries else 0,
    }


def _deletion_params(pipeline: Pipeline) -> dict[str, Any]:
    plan = pipeline.planned
    return {
        "measurement": pipeline.experiment.config.measurement.name,
        "n_queries": len(plan.query_ids),
        "k": list(plan.ks),
        "groups": list(plan.groups),
        "methods": list(plan.methods),
    }


def _campaign_params(pipeline: Pipeline) -> dict[str, Any]:
    campaign = pipeline.experiment.settings.campaign
    return {f"{campaign}.{key}": value for key, value in pipeline.experiment.campaign.model_dump(mode="json").items()}


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


def _deletion_children(pipeline: Pipeline, stamps: Mapping[str, int]) -> list[ChildRecord]:
    plan, tables = pipeline.planned, pipeline.results.tables
    references = [stamps[plan.works[i].spec_id] for i in plan.reference]
    committed = {
        (method, group): max(
            [*references, *(stamps[plan.works[i].spec_id] for i in np.unique(plan.cell[m, g]) if i != NOT_ASKED)]
        )
        for m, method in enumerate(plan.methods)
        for g, group in enumerate(plan.groups)
    }
    return deletion_children(tables["curves"], tables["summary"], tables["contrasts"], committed)


def check_tags(checks: Sequence[Check]) -> dict[str, str]:
    """Names of the checks that failed and of those that ask for caution, "none" if there are none; no tags without checks."""
    kinds: dict[str, Status] = {FAILED_TAG: "failed", CAUTION_TAG: "caution"} if checks else {}
    return {tag: ", ".join(check.name for check in with_status(checks, kind)) or "none" for tag, kind in kinds.items()}


def _description(results: Results) -> str:
    """The verdicts with their checks, as the text that MLflow shows on the page of the run."""
    failed, cautions = with_status(results.checks, "failed"), with_status(results.checks, "caution")
    parts = [
        _listed(FAILED, [check.sentence for check in failed]),
        _listed("", results.verdicts),
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


def _epoch_ms(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp() * 1000)
