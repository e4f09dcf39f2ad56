"""From a finished pipeline to the plain data that the report and MLflow show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from influence import ranking
from influence.scoring import word_contributions
from orchestrator.pipeline import Pipeline
from orchestrator.progress import duration
from orchestrator.records import LedgerRow
from orchestrator.report.data import Example, QueryPage, ReportData
from orchestrator.results import Results
from orchestrator.storage.blobs import write_file
from orchestrator.storage.ledger_parts import encode_rows
from orchestrator.tracking.record import TrackRecord
from tasks.measurements import GoldProbability

EXAMPLES_SHOWN = 3
QUERIES_SHOWN = 50


def report_data(pipeline: Pipeline) -> ReportData:
    """Everything report.html shows, read from the ledger, the scores and the results tables."""
    experiment, results = pipeline.experiment, _results(pipeline)
    rows = pipeline.ledger_rows(_all_specs(pipeline))
    tables = results.tables
    return ReportData(
        name=experiment.settings.name, campaign=experiment.settings.campaign, asked=_asked(pipeline), data_card=_data_card(pipeline),
        model_card=_model_card(pipeline), accuracies=_accuracies(pipeline, rows), curves=tables["curves"], query_curves=tables["query_curves"],
        summary=tables["summary"], contrasts=tables["contrasts"], verdicts=results.verdicts, notes=_notes(pipeline, results, rows),
        pairing=tables["pairing"], queries=_query_pages(pipeline, rows), failures=_failures(rows), holes=tables["holes"],
        cost=_cost(pipeline, rows), reproduce=_reproduce(pipeline), provenance=pipeline.run_dir.provenance())


def track_record(pipeline: Pipeline) -> TrackRecord:
    """The campaign as MLflow shows it; timestamps are the ledger's."""
    experiment, results = pipeline.experiment, _results(pipeline)
    rows = pipeline.ledger_rows(w.spec_id for w in pipeline.planned.works)
    stamps = {s: _epoch_ms(row.committed_at) for s, row in rows.items()}
    plan, settings = pipeline.planned, experiment.settings
    references = [stamps[plan.works[i].spec_id] for i in plan.reference]
    committed = {(method, group): max([*references, *(stamps[plan.works[i].spec_id] for i in np.unique(plan.cell[m, g]))])
                 for m, method in enumerate(plan.methods) for g, group in enumerate(plan.groups)}
    provenance = pipeline.run_dir.provenance()
    params = {"campaign": settings.campaign, "task": settings.task.get("name"), "measurement": experiment.config.measurement.name,
              "n_train": len(experiment.train), "n_queries": len(plan.query_ids), "n_repeats": len(plan.seeds), "k": list(plan.ks),
              "groups": list(plan.groups), "methods": list(plan.methods), "scoring_models": settings.scores.models}
    tags = {"task_id": experiment.task_id, "train_digest": experiment.train_digest, "git_commit": provenance.get("git_commit") or "unknown",
            "code_version": provenance.get("code_version", ""), "store": provenance.get("store", ""),
            "n_quarantined": sum(r.outcome.status == "quarantined" for r in rows.values())}
    return TrackRecord(settings.name, experiment.run_hex, params, tags, results.tables["curves"], results.tables["summary"],
                       results.tables["contrasts"], committed, _artifacts(pipeline), min(stamps.values()))


def _artifacts(pipeline: Pipeline) -> list[tuple[Any, str]]:
    run_dir = pipeline.run_dir
    rows = pipeline.ledger_rows(w.spec_id for w in pipeline.planned.works)
    write_file(run_dir.path / "ledger.parquet", encode_rows(list(rows.values())))
    found = [(path, "results") for path in sorted(run_dir.results.glob("*.csv"))]
    found += [(path, "figures") for path in sorted((run_dir.path / "figures").glob("*.svg"))]
    found += [(run_dir.path / name, "") for name in ("report.html", "config.yaml", "plan.parquet", "ledger.parquet")]
    return [(path, directory) for path, directory in found if path.exists()]


def _epoch_ms(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp() * 1000)


def _results(pipeline: Pipeline) -> Results:
    if pipeline.report.results is None:
        pipeline.report.results = pipeline.analyse()
    return pipeline.report.results


def _all_specs(pipeline: Pipeline) -> list[str]:
    return [s.work.spec_id for s in pipeline.scoring] + [w.spec_id for w in pipeline.planned.works]


def _asked(pipeline: Pipeline) -> list[tuple[str, str]]:
    experiment, plan = pipeline.experiment, pipeline.planned
    config, block = experiment.config, experiment.settings.queries
    return [
        ("Campaign", f"{experiment.settings.campaign}: remove the top k training examples of a group, retrain, measure the query"),
        ("Methods", ", ".join(plan.methods)), ("Groups", ", ".join(plan.groups)), ("k", ", ".join(map(str, plan.ks))),
        ("Edit", f"{experiment.campaign.mode} (a removed example keeps its slot with weight zero)" if experiment.campaign.mode == "mask"
         else f"{experiment.campaign.mode} (batches are rebuilt without the removed examples)"),
        ("Queries", f"{len(plan.query_ids)} of split {block.split}"), ("Measurement", config.measurement.name),
        ("Repeats", f"{len(plan.seeds)} (seeds {', '.join(map(str, plan.seeds))})"),
        ("Scoring models", f"{len(experiment.scoring_seeds)}, weights kept at steps {', '.join(map(str, pipeline.scoring[0].work.keep_steps))}"),
    ]


def _data_card(pipeline: Pipeline) -> list[dict[str, Any]]:
    task = pipeline.experiment.task
    card = []
    for name, split in task.splits.items():
        counts = np.bincount(split.labels, minlength=len(split.classes))
        card.append({"split": name, "n": len(split), "n_measured": len(task.measured.get(name, ())),
                     "classes": dict(zip(split.classes, counts.tolist(), strict=True)), "digest": split.content_digest()})
    return card


def _model_card(pipeline: Pipeline) -> list[tuple[str, str]]:
    experiment = pipeline.experiment
    model, recipe = experiment.task.model, experiment.task.recipe
    numerics = pipeline.numerics.identity()
    return [("Model", f"{model.name} {_options(model.model_dump(mode='json'))}"), ("Recipe", f"{recipe.name} {_options(recipe.model_dump(mode='json'))}"),
            ("Numerics", _options(numerics))]


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items() if value not in (None, "", [], ()))


def _accuracies(pipeline: Pipeline, rows: Mapping[str, LedgerRow]) -> list[dict[str, Any]]:
    roles = {"scoring model": [s.work.spec_id for s in pipeline.scoring],
             "reference": [pipeline.planned.works[i].spec_id for i in pipeline.planned.reference]}
    found = []
    for role, specs in roles.items():
        for split in pipeline.experiment.task.measured:
            values = [rows[s].outcome.metrics[f"accuracy/{split}"] for s in specs if f"accuracy/{split}" in rows[s].outcome.metrics]
            if values:
                found.append({"role": role, "split": split, "mean": float(np.mean(values)),
                              "sd": float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"), "n": len(values)})
    return found


def _notes(pipeline: Pipeline, results: Results, rows: Mapping[str, LedgerRow]) -> list[str]:
    notes = []
    if len(pipeline.scoring) == 1:
        notes.append("There is one scoring model: every interval is conditional on it. More scoring models (scores.models) would show how much the scores themselves vary.")
    if len(pipeline.planned.seeds) == 1:
        notes.append("There is one repeat: seed noise cannot be told from effect, so these-queries intervals are missing.")
    excluded = int(results.tables["summary"]["n_excluded"].max()) if len(results.tables["summary"]) else 0
    if excluded:
        notes.append(f"{excluded} (query, repeat) cells are incomplete for at least one method and were left out of every table, for all methods alike.")
    diverged = sum(row.outcome.status == "diverged" for row in rows.values())
    if diverged:
        notes.append(f"{diverged} retrains diverged (NaN or infinite loss); their cells are holes.")
    return notes


def _failures(rows: Mapping[str, LedgerRow]) -> pd.DataFrame:
    failed = [(s, row.outcome.status, row.attempts, row.outcome.error or "") for s, row in rows.items() if row.outcome.status != "ok"]
    return pd.DataFrame(failed, columns=["spec_id", "status", "attempts", "error"])


def _cost(pipeline: Pipeline, rows: Mapping[str, LedgerRow]) -> list[tuple[str, str]]:
    plan = pipeline.planned
    seconds = [row.outcome.seconds for row in rows.values()]
    naive = 2 * plan.n_requested
    return [("Cells asked for", str(plan.n_requested)), ("Retrains if nothing were shared", f"{naive} (every cell and its reference)"),
            ("Distinct retrains", str(len(plan.works))), ("Saved by deduplication", f"{naive - len(plan.works)} ({1 - len(plan.works) / naive:.0%})"),
            ("Training time", f"{duration(sum(seconds))} in all, {np.median(seconds):.2f} s a retrain (median)"),
            ("Devices", ", ".join(sorted({row.outcome.device for row in rows.values() if row.outcome.device})) or "unknown")]


def _reproduce(pipeline: Pipeline) -> list[str]:
    file = pipeline.run_dir.provenance().get("config_file", "config.yaml")
    return [f"refit run {file} --yes", f"refit verify {pipeline.run_dir.path.name} --rerun 3"]


# --- query pages ---------------------------------------------------------------------------------------------------


def _query_pages(pipeline: Pipeline, rows: Mapping[str, LedgerRow]) -> list[QueryPage]:
    experiment, queries = pipeline.experiment, pipeline.queries
    split = experiment.task.splits[queries.split]
    scoring = rows[pipeline.scoring[0].work.spec_id].outcome.outputs[queries.split]
    position = {int(row): i for i, row in enumerate(experiment.task.measured[queries.split])}
    words = _words(pipeline)
    pages = []
    for q, (query_id, row) in enumerate(zip(queries.ids[:QUERIES_SHOWN], queries.rows, strict=False)):
        logits = scoring[position[int(row)]]
        label = int(split.labels[row])
        pages.append(QueryPage(
            query_id=int(query_id), text=_text(split, row), label=split.classes[label], predicted=split.classes[int(logits.argmax())],
            probability=float(GoldProbability().value(logits[None], np.array([label]))[0]),
            examples={m: {g: _examples(pipeline, m, g, q, words.get(m, {})) for g in ("proponents", "opponents")} for m in experiment.scored}))
    return pages


def _text(split: Any, row: int) -> str:
    return split.texts[row] if split.texts is not None else np.array2string(split.features[row], precision=3, threshold=20)


def _top(pipeline: Pipeline, label: str, group: str, query: int) -> list[int]:
    matrix = pipeline.matrices[label]
    order = ranking.ranked(matrix.scores[query], matrix.train_ids, group)  # type: ignore[arg-type]
    return [int(i) for i in order[:EXAMPLES_SHOWN]]


def _words(pipeline: Pipeline) -> dict[str, dict[tuple[int, int], list[tuple[int, float]]]]:
    decomposing = {label: m for label, m in pipeline.experiment.scored.items() if hasattr(m, "words")}
    if not decomposing:
        return {}
    pipeline.experiment.task.prepare()
    checkpoints, shown = pipeline.scores.checkpoints(), pipeline.queries.ids[:QUERIES_SHOWN]
    found = {}
    for label, method in decomposing.items():
        pairs = [(int(query_id), train_id) for q, query_id in enumerate(shown) for group in ("proponents", "opponents")
                 for train_id in _top(pipeline, label, group, q)]
        found[label] = word_contributions(pipeline.experiment.task, method, checkpoints, pipeline.queries, pairs)
    return found


def _examples(pipeline: Pipeline, label: str, group: str, query: int, words: Mapping) -> list[Example]:
    train, matrix = pipeline.experiment.train, pipeline.matrices[label]
    ids = _top(pipeline, label, group, query)
    found = []
    for train_id, row in zip(ids, train.rows_of(ids), strict=True):
        score = float(matrix.scores[query, np.flatnonzero(matrix.train_ids == train_id)[0]])
        parts = words.get((int(pipeline.queries.ids[query]), train_id), ())
        found.append(Example(train_id, score, train.classes[int(train.labels[row])], _text(train, row), **_highlights(pipeline, query, int(row), parts)))
    return found


def _highlights(pipeline: Pipeline, query: int, row: int, parts: Sequence[tuple[int, float]]) -> dict[str, Any]:
    if not parts:
        return {}
    task: Any = pipeline.experiment.task
    contribution = dict(parts)
    ranked = sorted(parts, key=lambda part: (-abs(part[1]), part[0]))
    return {"train_spans": _spans(task.token_spans("train", row), contribution),
            "query_spans": _spans(task.token_spans(pipeline.queries.split, int(pipeline.queries.rows[query])), contribution),
            "words": [(task.token_text(token), value) for token, value in ranked]}


def _spans(spans: Iterable[tuple[int, int, int]], contribution: Mapping[int, float]) -> list[tuple[int, int, float]]:
    return [(int(start), int(end), contribution[token]) for start, end, token in spans if end > start and token in contribution]
