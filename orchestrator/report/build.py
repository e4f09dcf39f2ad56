"""From a finished pipeline to the plain data that the report shows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.pipeline import Pipeline
from orchestrator.progress import duration
from orchestrator.records import LedgerRow
from orchestrator.report.data import ReportData
from orchestrator.report.query_pages import query_pages
from orchestrator.results import Results


def report_data(pipeline: Pipeline) -> ReportData:
    """Everything report.html shows, read from the ledger, the scores and the results tables."""
    experiment, results = pipeline.experiment, pipeline.results
    rows = pipeline.rows
    tables = results.tables
    return ReportData(
        name=experiment.settings.name,
        campaign=experiment.settings.campaign,
        asked=_asked(pipeline),
        data_card=_data_card(pipeline),
        model_card=_model_card(pipeline),
        accuracies=_accuracies(pipeline, rows),
        curves=tables["curves"],
        query_curves=tables["query_curves"],
        summary=tables["summary"],
        contrasts=tables["contrasts"],
        verdicts=results.verdicts,
        notes=_notes(pipeline, results, rows),
        pairing=tables["pairing"],
        queries=query_pages(pipeline, rows),
        failures=_failures(rows),
        holes=tables["holes"],
        cost=_cost(pipeline, rows),
        reproduce=_reproduce(pipeline),
        provenance=pipeline.run_dir.provenance(),
    )


def _asked(pipeline: Pipeline) -> list[tuple[str, str]]:
    experiment, plan = pipeline.experiment, pipeline.planned
    config, block = experiment.config, experiment.settings.queries
    return [
        (
            "Campaign",
            f"{experiment.settings.campaign}: remove the top k training examples of a group, retrain, measure the query",
        ),
        ("Methods", ", ".join(plan.methods)),
        ("Groups", ", ".join(plan.groups)),
        ("k", ", ".join(map(str, plan.ks))),
        (
            "Edit",
            f"{experiment.campaign.mode} (a removed example keeps its slot with weight zero)"
            if experiment.campaign.mode == "mask"
            else f"{experiment.campaign.mode} (batches are rebuilt without the removed examples)",
        ),
        ("Queries", f"{len(plan.query_ids)} of split {block.split}"),
        ("Measurement", config.measurement.name),
        ("Repeats", f"{len(plan.seeds)} (seeds {', '.join(map(str, plan.seeds))})"),
        (
            "Scoring models",
            f"{len(experiment.scoring_seeds)}, weights kept at steps {', '.join(map(str, pipeline.scoring[0].work.keep_steps))}",
        ),
    ]


def _data_card(pipeline: Pipeline) -> list[dict[str, Any]]:
    task = pipeline.experiment.task
    card = []
    for name, split in task.splits.items():
        counts = np.bincount(split.labels, minlength=len(split.classes))
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
    ]


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items() if value not in (None, "", [], ()))


def _accuracies(pipeline: Pipeline, rows: Mapping[str, LedgerRow]) -> list[dict[str, Any]]:
    roles = {
        "scoring model": [s.work.spec_id for s in pipeline.scoring],
        "reference": [pipeline.planned.works[i].spec_id for i in pipeline.planned.reference],
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


def _notes(pipeline: Pipeline, results: Results, rows: Mapping[str, LedgerRow]) -> list[str]:
    notes = []
    if len(pipeline.scoring) == 1:
        notes.append(
            "There is one scoring model: every interval is conditional on it. "
            "More scoring models (scores.models) would show how much the scores themselves vary."
        )
    if len(pipeline.planned.seeds) == 1:
        notes.append(
            "There is one repeat: seed noise cannot be told from effect, so these-queries intervals are missing."
        )
    excluded = results.cells.n_excluded
    if excluded:
        notes.append(
            f"{excluded} (query, repeat) cells are incomplete for at least one method and were left out of every table, for all methods alike."
        )
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


def _cost(pipeline: Pipeline, rows: Mapping[str, LedgerRow]) -> list[tuple[str, str]]:
    plan = pipeline.planned
    seconds = [row.outcome.seconds for row in rows.values()]
    naive = 2 * plan.n_requested
    return [
        ("Cells asked for", str(plan.n_requested)),
        ("Retrains if nothing were shared", f"{naive} (every cell and its reference)"),
        ("Distinct retrains", str(len(plan.works))),
        ("Saved by deduplication", f"{naive - len(plan.works)} ({1 - len(plan.works) / naive:.0%})"),
        ("Training time", f"{duration(sum(seconds))} in all, {np.median(seconds):.2f} s a retrain (median)"),
        (
            "Devices",
            ", ".join(sorted({row.outcome.device for row in rows.values() if row.outcome.device})) or "unknown",
        ),
    ]


def _reproduce(pipeline: Pipeline) -> list[str]:
    provenance, path = pipeline.run_dir.provenance(), pipeline.run_dir.path
    changes = "".join(f" --set {shlex.quote(override)}" for override in provenance.get("overrides", ()))
    return [
        f"refit run {provenance.get('config_file', 'config.yaml')} --yes{changes}",
        f"refit verify {path.name} --rerun 3",
    ]
