"""Collects the plain data that the report shows from a finished pipeline."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.checks import accuracy_found
from orchestrator.inspection.diagnosed import diagnosed
from orchestrator.records import LedgerRow
from orchestrator.report.data import ReportData
from orchestrator.report.diagnostics import diagnostic_sections
from orchestrator.stages.pipeline import Pipeline
from orchestrator.terminal.progress import duration
from tasks.sources import source_digests


def report_data(pipeline: Pipeline) -> ReportData:
    """Return everything that report.html shows, read from the ledger, the scores and the result tables."""
    experiment, results, rows = pipeline.experiment, pipeline.results, pipeline.rows
    campaign = pipeline.campaign.page(pipeline.finished)
    return ReportData(
        name=experiment.settings.name,
        campaign=experiment.settings.campaign,
        asked=campaign.asked,
        explained=campaign.explained,
        data_card=_data_card(pipeline),
        model_card=_model_card(pipeline),
        accuracies=_accuracies(pipeline, rows),
        verdicts=results.verdicts,
        in_short=[*results.in_short, *(accuracy_found(results.checks) if results.in_short else ())],
        notes=_notes(pipeline, [*campaign.notes, *results.notes], rows),
        sections=[*campaign.sections, *diagnostic_sections(diagnosed(pipeline))],
        failures=_failures(rows),
        holes=results.tables.get("holes"),
        cost=[*(campaign.cost or [("Distinct retrains", str(len(pipeline.planned.works)))]), *_cost(rows)],
        reproduce=_reproduce(pipeline),
        provenance=pipeline.run_dir.provenance(),
        checks=results.checks,
    )


def _data_card(pipeline: Pipeline) -> list[dict[str, Any]]:
    task = pipeline.experiment.task
    card = []
    for name, split in task.splits.items():
        counts = np.bincount(split.labels, minlength=len(split.classes)) if split.classes else np.zeros(0, int)
        card.append(
            {
                "split": name,
                "n": len(split),
                "n_measured": len(task.measured.get(name, ())),
                "classes": dict(zip(split.classes, counts.tolist(), strict=True)),
                "digest": split.content_digest(),
            }
        )
    return card


def _model_card(pipeline: Pipeline) -> list[tuple[str, str]]:
    experiment = pipeline.experiment
    model, recipe = experiment.task.model, experiment.task.recipe
    numerics = pipeline.numerics.identity()
    return [
        ("Model", f"{model.name} {_options(model.model_dump(mode='json'))}"),
        ("Recipe", f"{recipe.name} {_options(recipe.model_dump(mode='json'))}"),
        ("Numerics", _options(numerics)),
        *((f"Plugin {module}", f"source {found}") for module, found in source_digests(experiment.sources).items()),
    ]


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items() if value not in (None, "", [], ()))


def _accuracies(pipeline: Pipeline, rows: Mapping[str, LedgerRow]) -> list[dict[str, Any]]:
    roles = {
        "scoring model": [s.work.spec_id for s in pipeline.scoring],
        "reference": pipeline.planned.references(),
    }
    found = []
    for role, specs in roles.items():
        for split in pipeline.experiment.task.measured:
            values = [
                rows[s].outcome.metrics[f"accuracy/{split}"]
                for s in specs
                if f"accuracy/{split}" in rows[s].outcome.metrics
            ]
            if values:
                found.append(
                    {
                        "role": role,
                        "split": split,
                        "mean": float(np.mean(values)),
                        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
                        "n": len(values),
                    }
                )
    return found


def _notes(pipeline: Pipeline, of_campaign: Sequence[str], rows: Mapping[str, LedgerRow]) -> list[str]:
    notes = list(of_campaign)
    notes += [f"{warning[0].upper()}{warning[1:]}." for warning in pipeline.score_warnings()]
    diverged = sum(row.outcome.status == "diverged" for row in rows.values())
    if diverged:
        notes.append(f"{diverged} retrains diverged (NaN or infinite loss); their cells are holes.")
    return notes


def _failures(rows: Mapping[str, LedgerRow]) -> pd.DataFrame:
    failed = [
        (s, row.outcome.status, row.attempts, row.outcome.error or "")
        for s, row in rows.items()
        if row.outcome.status != "ok"
    ]
    return pd.DataFrame(failed, columns=["spec_id", "status", "attempts", "error"])


def _cost(rows: Mapping[str, LedgerRow]) -> list[tuple[str, str]]:
    seconds = [row.outcome.seconds for row in rows.values()]
    devices = sorted({row.outcome.device for row in rows.values() if row.outcome.device})
    return [
        ("Training time", f"{duration(sum(seconds))} in all, {np.median(seconds):.2f} s a retrain (median)"),
        ("Devices", ", ".join(devices) or "unknown"),
    ]


def _reproduce(pipeline: Pipeline) -> list[str]:
    provenance, path = pipeline.run_dir.provenance(), pipeline.run_dir.path
    changes = "".join(f" --set {shlex.quote(override)}" for override in provenance.get("overrides", ()))
    return [
        f"refit run {provenance.get('config_file', 'config.yaml')} --yes{changes}",
        f"refit verify {path.name} --rerun 3",
    ]
