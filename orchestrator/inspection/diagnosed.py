"""Collects what report and tracking store show of the diagnostics of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from influence.diagnostic import Diagnostic, Scatter
from influence.ranking import ranked
from orchestrator.report.data import ShownExample
from orchestrator.report.diagnostics import Diagnosed, MarkedQuery
from orchestrator.report.examples import query_page, shown_example
from orchestrator.stages.diagnoses import file_name
from orchestrator.stages.pipeline import Pipeline
from orchestrator.tracking.children import headline_children
from orchestrator.tracking.record import ChildRecord

QUERIES_SHOWN = 50
EXAMPLES_SHOWN = 3


def diagnosed(pipeline: Pipeline) -> list[Diagnosed]:
    """Return every diagnostic of the config with its tables, which come from the store."""
    diagnostics, tables = pipeline.experiment.config.diagnostics, pipeline.results.diagnosed
    found = []
    for label, frames in pipeline.diagnosed.items():
        one = diagnostics[label]
        drawn = file_name(label, one.figure.table) if isinstance(one.figure, Scatter) else ""
        by_file = {name: tables[name] for name in (file_name(label, table) for table in frames)}
        marked = _marked(pipeline, one, frames) if one.marked_table else []
        found.append(Diagnosed(label, one.explained, one.labels, one.figure, by_file, drawn, marked))
    return found


def _marked(pipeline: Pipeline, diagnostic: Diagnostic, frames: dict[str, pd.DataFrame]) -> list[MarkedQuery]:
    """Return the first queries of the first scoring group, with coloured tokens and their top examples by every method."""
    experiment, queries, key = pipeline.experiment, pipeline.queries, pipeline.groups[0].key
    split, table = experiment.task.splits[queries.split], frames[diagnostic.marked_table]
    if "scored_on" in table.columns:
        table = table.loc[table["scored_on"] == key]
    matrices = pipeline.matrices
    outputs = _outputs(pipeline)
    shown = []
    for place, (query_id, row) in enumerate(zip(queries.ids.tolist(), queries.rows, strict=True)):
        if place == QUERIES_SHOWN:
            break
        tokens = table.loc[(table["query_id"] == query_id) & (table["end"] > table["start"])]
        columns = (tokens[name].tolist() for name in ("start", "end", diagnostic.marked_column))
        spans = [(int(start), int(end), float(value)) for start, end, value in zip(*columns, strict=True)]
        examples = {
            label: {group: _examples(pipeline, place, matrix, group) for group in ("proponents", "opponents")}
            for label, matrix in matrices.items()
            if not np.isnan(matrix.scores[place]).any()
        }
        shown.append(MarkedQuery(query_page(split, int(row), outputs.get(int(row)), examples), spans))
    return shown


def _examples(pipeline: Pipeline, place: int, matrix: Any, group: Any) -> list[ShownExample]:
    order = ranked(matrix.scores[place], matrix.train_ids, group)[:EXAMPLES_SHOWN]
    task, queries = pipeline.experiment.task, pipeline.queries
    return [shown_example(task, queries, place, matrix, int(train_id)) for train_id in order]


def _outputs(pipeline: Pipeline) -> dict[int, np.ndarray]:
    """Return row -> class logits of the first scoring model, for the measured rows of the split of the queries."""
    split = pipeline.queries.split
    recorded = pipeline.rows[pipeline.groups[0].models[0].work.spec_id].outcome.outputs.get(split)
    return (
        {} if recorded is None else dict(zip(pipeline.experiment.task.measured[split].tolist(), recorded, strict=True))
    )


def diagnostic_children(pipeline: Pipeline, committed_at: int) -> list[ChildRecord]:
    """Return one child run per row of the main table of each diagnostic, labelled by the diagnostic and the row's labels."""
    children = []
    for label, frames in pipeline.diagnosed.items():
        labels = pipeline.experiment.config.diagnostics[label].labels
        main = pipeline.results.diagnosed[file_name(label, next(iter(frames)))]
        named = main.assign(diagnostic=label)
        children += headline_children(named, ["diagnostic", "scored_on", *labels], committed_at)
    return children
