"""Collects what report and tracking store show of the diagnostics of a run."""

from __future__ import annotations

from orchestrator.report.diagnostics import Diagnosed
from orchestrator.stages.diagnoses import file_name
from orchestrator.stages.pipeline import Pipeline
from orchestrator.tracking.children import headline_children
from orchestrator.tracking.record import ChildRecord


def diagnosed(pipeline: Pipeline) -> list[Diagnosed]:
    """Return every diagnostic of the config with its tables, which come from the store."""
    diagnostics, tables = pipeline.experiment.config.diagnostics, pipeline.results.diagnosed
    return [
        Diagnosed(
            label,
            diagnostics[label].explained,
            diagnostics[label].labels,
            diagnostics[label].figure,
            {name: tables[name] for name in (file_name(label, table) for table in found)},
        )
        for label, found in pipeline.diagnosed.items()
    ]


def diagnostic_children(pipeline: Pipeline, committed_at: int) -> list[ChildRecord]:
    """Return one child run per row of the main table of each diagnostic, labelled by the diagnostic and the row's labels."""
    children = []
    for one in diagnosed(pipeline):
        main = next(iter(one.tables.values()))
        named = main.assign(diagnostic=one.label)
        children += headline_children(named, ["diagnostic", "scored_on", *one.labels], committed_at)
    return children
