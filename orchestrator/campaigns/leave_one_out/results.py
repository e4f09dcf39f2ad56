"""Computes the tables of a leave-one-out campaign, which compare predicted with measured influence, from its ledger rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from influence.checkpoint import QueryBlock
from orchestrator.campaigns.leave_one_out.agreement import Comparison, Key
from orchestrator.campaigns.leave_one_out.block import ComparisonConfig, LeaveOneOutBlock
from orchestrator.campaigns.leave_one_out.plan import Cell, LeaveOneOutPlan, arm_label, group_key
from orchestrator.campaigns.leave_one_out.tables import agreement_tables, agreement_verdicts
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.experiment.arm import Arm
from orchestrator.records import LedgerRow

SHOWN = ("mean_r", "ci_low", "ci_high", "class_share", "class_share_ci_low", "class_share_ci_high")
SHOWN += ("over_median", "n_diverged", "n_units", "paper")
JUDGED = ("mean_r", "class_share")  # statistics that have verdicts; the contrasts table has all


@dataclass(frozen=True, eq=False)
class LeaveOneOutView:
    """The data that the report draws: every comparison with its matrices, and its arm, which has the features and texts."""

    comparisons: tuple[Comparison, ...]
    arms: Mapping[tuple[str, str], Arm]  # (truth, unit) -> arm
    point_ids: Mapping[tuple[str, str], np.ndarray]


def leave_one_out_results(
    campaign: LeaveOneOutBlock, scored: Scored, plan: LeaveOneOutPlan, rows: Mapping[str, LedgerRow]
) -> Results:
    """Return the tables agreement, agreement_units, agreement_classes, agreement_contrasts and points, and verdicts from the contrasts."""
    measured = {(cell.arm, cell.repeat): Measured.of(scored, plan, cell, rows) for cell in plan.cells}
    compared = campaign.compared(scored.experiment)
    found = [one for row in compared for one in _comparisons(campaign, scored, row, measured)]
    available = {one.key for one in found}
    pairs = [pair for pair in _pairs(campaign, compared) if set(pair) <= available]
    tables = agreement_tables(found, pairs, campaign.threshold)
    _add_paper(tables, compared)
    contrasts = tables["agreement_contrasts"]
    judged = contrasts.loc[contrasts["statistic"].isin(JUDGED) & (contrasts["n_units"] > 1)]
    verdicts = tuple(agreement_verdicts(judged.to_dict("records")))
    n_holes = int(sum(np.isnan(m.influence).sum() for m in measured.values() if m is not None))
    view = LeaveOneOutView(
        tuple(found),
        {
            (row.truth, unit): scored.experiment.arms[arm_label(row.truth, unit)]
            for row in compared
            for unit in campaign.units
        },
        {(cell.arm, str(cell.repeat)): cell.point_ids for cell in plan.cells},
    )
    return Results(
        tables,
        verdicts,
        headline="agreement",
        labels=("label", "scores", "truth"),
        shown=SHOWN,
        n_excluded=n_holes,
        notes=_notes(campaign, n_holes, measured, found),
        view=view,
    )


def _pairs(campaign: LeaveOneOutBlock, compared: Sequence[ComparisonConfig]) -> list[tuple[Key, Key]]:
    with_baseline = [(row, campaign.baseline(row, compared)) for row in compared if row.against is not None]
    return [(_key(row), _key(baseline)) for row, baseline in with_baseline if baseline is not None]


def _key(row: ComparisonConfig) -> Key:
    return row.name, row.scores, row.truth


def _notes(
    campaign: LeaveOneOutBlock,
    n_holes: int,
    measured: Mapping[tuple[str, int], Measured | None],
    found: Sequence[Comparison],
) -> tuple[str, ...]:
    notes = [
        "Scores are judged on retrains of the very model they explain, because leave-one-out measures how this model would have changed."
    ]
    if n_holes:
        notes.append(f"{n_holes} (query, point) pairs have no measured influence (diverged or failed retrains).")
    lost = [arm for (arm, _), one in measured.items() if one is None]
    if lost:
        notes.append(
            f"The reference of {', '.join(dict.fromkeys(lost))} diverged or failed, so nothing is compared with it."
        )
    n_queries = max((len(one.query_ids) for one in found), default=0)
    left_out = {f"{one.name}: {n_queries - len(one.query_ids)}" for one in found if len(one.query_ids) < n_queries}
    if left_out:
        notes.append(
            "Queries are left out if the scored and the retrained model give them different labels, since their losses are then different: "
            f"{'; '.join(sorted(left_out))}."
        )
    if len(campaign.units) == 1:
        notes.append("There is one data set; intervals, if any, are over repeats of its training.")
    return tuple(notes)


@dataclass(frozen=True, eq=False)
class Measured:
    """Measured influence of every left-out point on every query: float64 [n_queries, n_points], NaN without an outcome."""

    queries: QueryBlock
    influence: np.ndarray

    @staticmethod
    def of(scored: Scored, plan: LeaveOneOutPlan, cell: Cell, rows: Mapping[str, LedgerRow]) -> Measured | None:
        """Return f(q; all) - f(q; without i); if a model decides the queries' labels, they are those of the reference.

        None if the reference diverged or failed.
        """
        arm = scored.experiment.arms[cell.arm]
        reference = rows[plan.works[cell.reference].spec_id].outcome
        if reference.status != "ok":
            return None
        queries = arm.queries(reference.outputs)
        position = np.searchsorted(arm.measured_rows, queries.rows)
        measurement = scored.experiment.config.measurement
        whole = measurement.value(reference.outputs[queries.split][position], queries.labels)
        without = np.full((len(queries.ids), len(cell.point_ids)), np.nan)
        for column, (work, member) in enumerate(zip(cell.work, cell.member, strict=True)):
            outcome = rows[plan.works[work].spec_id].outcome
            if outcome.status == "ok":
                outputs = outcome.outputs[queries.split]
                outputs = outputs[position] if member < 0 else outputs[member][position]
                without[:, column] = measurement.value(outputs, queries.labels)
        return Measured(queries, whole[:, None] - without)


def _comparisons(
    campaign: LeaveOneOutBlock,
    scored: Scored,
    row: ComparisonConfig,
    measured: Mapping[tuple[str, int], Measured | None],
) -> Iterator[Comparison]:
    """Yield the comparison of a row in every unit, without the queries that the two models label differently, since their losses differ."""
    experiment = scored.experiment
    for unit in campaign.units:
        for r in range(len(experiment.seeds)):
            truth, key = measured[arm_label(row.truth, unit), r], group_key(arm_label(row.scores, unit), r)
            if truth is None:
                continue
            same = scored.queries(key).labels == truth.queries.labels
            matrix = scored.matrix(key, row.method)
            points = campaign.points_of(experiment.arms[arm_label(row.truth, unit)])
            predicted = matrix.reordered(truth.queries.ids, points).scores
            if not same.any():
                continue
            yield Comparison(
                row.name,
                row.scores,
                row.truth,
                unit_label(unit, r, len(experiment.seeds)),
                predicted.astype(np.float64)[same],
                truth.influence[same],
                truth.queries.labels[same],
                truth.queries.ids[same],
            )


def unit_label(unit: str, repeat: int, n_repeats: int) -> str:
    """Return the name of a unit in tables: the value of `over`, the repeat if there are several, or both."""
    if not unit:
        return str(repeat)
    return unit if n_repeats == 1 else f"{unit}/{repeat}"


def _add_paper(tables: dict, compared: Sequence[ComparisonConfig]) -> None:
    """Add the column `paper` to the headline table if the config has numbers from the paper."""
    if any(row.paper is not None for row in compared):
        paper = {_key(row): row.paper for row in compared}
        frame = tables["agreement"]
        keys = zip(frame["label"], frame["scores"], frame["truth"], strict=True)
        frame["paper"] = [np.nan if paper[key] is None else paper[key] for key in keys]
