"""From ledger rows to the tables in results/: the same rows give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from influence.base import QueryBlock
from orchestrator.analysis import tables
from orchestrator.analysis.advice import advice
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.checks import Check, checks_table
from orchestrator.analysis.stopping import savings
from orchestrator.analysis.two_controls import two_control_verdicts
from orchestrator.analysis.verdicts import verdicts
from orchestrator.campaigns.plan import Plan
from orchestrator.experiment import Experiment
from orchestrator.records import LedgerRow, Work
from tasks.base import Split

TABLES = ("curves", "query_curves", "summary", "contrasts", "pairing", "holes")


@dataclass(frozen=True)
class Results:
    """The tables of a campaign and the sentences they support.

    `verdicts`: in the words that `checks` allow; `checks`: what would make a careful reader doubt them, shown wherever they are.
    `headline`: the table for the terminal and the tracker; `labels`: its columns that name a row; `shown`: the others that a terminal
    has room for (none: all); `notes`: what a reader must know beside
    the tables; `view`: what the campaign's report sections are drawn from, beyond the tables.
    """

    tables: Mapping[str, pd.DataFrame]
    verdicts: tuple[str, ...]
    headline: str = "summary"
    labels: tuple[str, ...] = ("method", "group")
    shown: tuple[str, ...] = ()
    n_excluded: int = 0
    notes: tuple[str, ...] = ()
    cells: Cells | None = None
    view: Any = None
    checks: tuple[Check, ...] = ()

    def with_given_ids(self, split: Split | None) -> Results:
        """The same results, where every table with a column `query_id` has the ids as the data gives them beside it.

        `split`: that of the queries; where its ids are whole numbers, or there are no queries, nothing is added.
        """
        if split is None or split.given_ids is None:
            return self
        names = dict(zip(split.ids.tolist(), split.given_ids, strict=True))
        return replace(self, tables={name: _beside(table, names) for name, table in self.tables.items()})

    def csv(self) -> dict[str, str]:
        """File name -> text of results/."""
        checks = {"checks": checks_table(self.checks)} if self.checks else {}
        return {f"{name}.csv": tables.format_csv(frame) for name, frame in {**self.tables, **checks}.items()}


def _beside(table: pd.DataFrame, names: Mapping[int, str]) -> pd.DataFrame:
    """The table with the column `given_query_id` after `query_id`, if it has that one."""
    if "query_id" not in table.columns:
        return table
    found, at = table.copy(), list(table.columns).index("query_id") + 1
    found.insert(at, "given_query_id", [names[int(number)] for number in table["query_id"]])
    return found


def measured_values(
    experiment: Experiment, works: Sequence[Work], queries: QueryBlock, rows: Mapping[str, LedgerRow]
) -> np.ndarray:
    """The measurement of every query under every retrain: float64 [n_works, n_queries], NaN where there is no usable outcome."""
    values = np.full((len(works), len(queries.ids)), np.nan)
    measured = experiment.task.measured[queries.split]
    order = np.argsort(measured)
    position = order[np.searchsorted(measured, queries.rows, sorter=order)]
    for index, work in enumerate(works):
        row = rows.get(work.spec_id)
        if row is not None and row.outcome.status == "ok":
            values[index] = experiment.config.measurement.value(
                row.outcome.outputs[queries.split][position], queries.labels
            )
    return values


def deletion_results(experiment: Experiment, plan: Plan, queries: QueryBlock, rows: Mapping[str, LedgerRow]) -> Results:
    """All tables of a deletion campaign from the ledger rows of its plan."""
    cells = experiment.campaign.analyse(plan, measured_values(experiment, plan.works, queries, rows))
    contrasts = tables.contrasts(cells)
    found = {
        "curves": tables.curves(cells),
        "query_curves": tables.query_curves(cells),
        "summary": tables.summary(cells),
        "contrasts": contrasts,
        "pairing": tables.pairing(cells),
        "holes": tables.holes(cells),
    }
    told = tuple(_told(experiment, contrasts.to_dict("records")))
    adaptive, notes = _adaptive(cells, plan)
    return Results(found | adaptive, told, n_excluded=cells.n_excluded, cells=cells, notes=notes)


def _told(experiment: Experiment, contrasts: Sequence[Mapping[Any, Any]]) -> list[str]:
    """The verdicts; where there is a control of each kind, a method is told against both at once."""
    told = verdicts(contrasts)
    controls = {label: method for label, method in experiment.methods.items() if method.is_control}
    blind = [label for label, control in controls.items() if not getattr(control, "by_label", False)]
    by_label = [label for label in controls if label not in blind]
    return two_control_verdicts(told, contrasts, blind[0], by_label[0]) if blind and by_label else told


def _adaptive(cells: Cells, plan: Plan) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """The further tables of adaptive repeats, and what they saved in words; none of a fixed design."""
    if plan.stopping is None:
        return {}, ()
    designs = tables.designs(cells, len(plan.works), plan.n_full_repeat)
    return {"repeats": tables.repeats(cells), "designs": designs}, (savings(cells, designs.to_dict("records")),)


def deletion_advice(experiment: Experiment, plan: Plan, queries: QueryBlock, rows: Mapping[str, LedgerRow]) -> str:
    """Whether more queries would narrow the widest interval more cheaply than more repeats, from the rows there are."""
    cells = experiment.campaign.analyse(plan, measured_values(experiment, plan.works, queries, rows))
    is_control = [method in plan.controls for method in plan.methods]
    n_shared = 1 + len(np.unique(plan.cell[is_control][..., 0]))
    return advice(cells, n_shared, (plan.n_full_repeat - n_shared) / len(plan.query_ids))
