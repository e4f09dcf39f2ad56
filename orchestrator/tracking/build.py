"""From a finished pipeline to the plain record that a tracking store shows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

from orchestrator.pipeline import Pipeline
from orchestrator.storage.blobs import write_file
from orchestrator.storage.ledger_parts import encode_rows
from orchestrator.tracking.record import TrackRecord


def track_record(pipeline: Pipeline) -> TrackRecord:
    """The campaign as MLflow shows it; timestamps are the ledger's."""
    experiment, results = pipeline.experiment, pipeline.results
    rows = {work.spec_id: pipeline.rows[work.spec_id] for work in pipeline.planned.works}
    stamps = {s: _epoch_ms(row.committed_at) for s, row in rows.items()}
    plan, settings = pipeline.planned, experiment.settings
    references = [stamps[plan.works[i].spec_id] for i in plan.reference]
    committed = {
        (method, group): max([*references, *(stamps[plan.works[i].spec_id] for i in np.unique(plan.cell[m, g]))])
        for m, method in enumerate(plan.methods)
        for g, group in enumerate(plan.groups)
    }
    provenance = pipeline.run_dir.provenance()
    params = {
        "campaign": settings.campaign,
        "task": settings.task.get("name"),
        "measurement": experiment.config.measurement.name,
        "n_train": len(experiment.train),
        "n_queries": len(plan.query_ids),
        "n_repeats": len(plan.seeds),
        "k": list(plan.ks),
        "groups": list(plan.groups),
        "methods": list(plan.methods),
        "scoring_models": settings.scores.models,
    }
    tags = {
        "task_id": experiment.task_id,
        "train_digest": experiment.train_digest,
        "git_commit": provenance.get("git_commit") or "unknown",
        "code_version": provenance.get("code_version", ""),
        "store": provenance.get("store", ""),
        "state": "complete",
        "n_quarantined": sum(r.outcome.status == "quarantined" for r in rows.values()),
    }
    return TrackRecord(
        settings.name,
        experiment.run_hex,
        params,
        tags,
        results.tables["curves"],
        results.tables["summary"],
        results.tables["contrasts"],
        committed,
        _artifacts(pipeline),
        min(stamps.values()),
    )


def _artifacts(pipeline: Pipeline) -> list[tuple[Any, str]]:
    run_dir = pipeline.run_dir
    write_file(
        run_dir.path / "ledger.parquet", encode_rows([pipeline.rows[work.spec_id] for work in pipeline.planned.works])
    )
    found = [(path, "results") for path in sorted(run_dir.results.glob("*.csv"))]
    found += [(path, "figures") for path in sorted((run_dir.path / "figures").glob("*.svg"))]
    found += [(run_dir.path / name, "") for name in ("report.html", "config.yaml", "plan.parquet", "ledger.parquet")]
    return [(path, directory) for path, directory in found if path.exists()]


def _epoch_ms(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp() * 1000)
