"""Computes from a campaign's ledger rows the checks that several campaigns share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from influence.checkpoint import QueryBlock
from orchestrator.analysis import model_checks, query_checks
from orchestrator.analysis.checks import Check
from orchestrator.analysis.model_checks import Accuracy
from orchestrator.analysis.rests_on import fewest_of_contrasts
from orchestrator.campaigns.scored import Scored
from orchestrator.experiment.arm import Arm
from orchestrator.records import LedgerRow, Outcome
from tasks.base import Split
from tasks.data.near_duplicates import THRESHOLD, Copy, equal_rows, near_duplicates
from tasks.hooks import overrides
from tasks.measurements import GoldProbability
from tasks.task import Task

if TYPE_CHECKING:
    from orchestrator.campaigns.results import Results

Rows = Mapping[str, LedgerRow]
NO_RIGHT = "The models have no classes to be right about, or decide themselves which label is asked about."


def common_checks(scored: Scored, plan: Any, rows: Rows, results: Results | None = None) -> list[Check]:
    """Return the checks for any campaign whose references are models trained on all examples.

    With `results`, the numbers of queries and repeats are those that the verdicts rest on; without, those that were planned.
    """
    experiment = scored.experiment
    tables = {} if results is None else results.tables
    n_asked = len(getattr(plan, "seeds", experiment.seeds))
    n_repeats = fewest_of_contrasts(tables, "n_repeats", n_asked)
    found = [reference_accuracy(scored, plan, rows), model_checks.repeats_check(n_repeats, n_asked=n_asked)]
    if not experiment.campaign.asks_queries or not scored.groups:
        return found
    queries = scored.queries(scored.groups[0].key)
    judged = [(arm, queries, outcome) for arm, outcome in references(scored, plan, rows)]
    n_queries = fewest_of_contrasts(tables, "n_queries", len(queries.ids))
    return [*found, *checks_of_queries(scored, queries, judged, n_queries), *checks_of_scores(scored)]


# --- the models ------------------------------------------------------------------------------------------------------


def references(scored: Scored, plan: Any, rows: Rows) -> Iterator[tuple[Arm, Outcome]]:
    """Yield arm and outcome of every reference whose status is ok."""
    arms = scored.experiment.arms
    arm_of = {work.spec_id: work.arm for work in plan.works}
    for spec_id in dict.fromkeys(plan.references()):
        if spec_id in rows and rows[spec_id].outcome.status == "ok":
            yield arms.get(arm_of.get(spec_id, ""), scored.experiment.main), rows[spec_id].outcome


def reference_accuracy(scored: Scored, plan: Any, rows: Rows) -> Check:
    """Check the accuracy of the references of every arm, on the split of the queries (without queries: on every measured split)."""
    accuracies: dict[tuple[str, str], list[float]] = {}
    tasks = {}
    for arm, outcome in references(scored, plan, rows):
        asks = scored.experiment.campaign.asks_queries
        for split in [arm.asked.split] if asks else list(arm.task.measured):
            if f"accuracy/{split}" in outcome.metrics:
                accuracies.setdefault((arm.label, split), []).append(outcome.metrics[f"accuracy/{split}"])
                tasks[arm.label] = arm.task
    found = []
    for (label, split), values in accuracies.items():
        labels = tasks[label].splits[split].labels[tasks[label].measured[split]]
        models = f"reference models of {label}" if len(tasks) > 1 else "reference models"
        found.append(Accuracy.of(models, split, values, labels))
    return model_checks.accuracy_check(found, NO_RIGHT)


# --- the queries -----------------------------------------------------------------------------------------------------

Judged = Sequence[tuple[Arm, QueryBlock, Outcome]]


def checks_of_queries(scored: Scored, queries: QueryBlock, judged: Judged, n_queries: int) -> list[Check]:
    """Return the checks of the queries. `judged`: references with the queries they answer; `n_queries`: fewest that a verdict rests on."""
    found = [query_checks.queries_check(n_queries, len(queries.ids))]
    measurement = scored.experiment.config.measurement
    if judged and measurement.of_classes:
        found += _answers(scored, judged)
    return [*found, leaked_queries(scored.experiment.main.task.splits, queries)]


def _answers(scored: Scored, judged: Judged) -> list[Check]:
    """Return the checks of wrong and saturated queries; a query of two arms counts twice, since different models answer it."""
    wrong: dict[tuple[str, int], list[float]] = {}
    probability: dict[tuple[str, int], list[float]] = {}
    for arm, queries, outcome in judged:
        outputs = outcome.outputs[queries.split][measured_positions(arm, queries)]
        missed = outputs.argmax(axis=1) != gold_labels(arm, queries)
        sure = GoldProbability().value(outputs, queries.labels)
        for query, is_missed, p in zip(queries.ids.tolist(), missed, sure, strict=True):
            wrong.setdefault((arm.label, query), []).append(float(is_missed))
            probability.setdefault((arm.label, query), []).append(float(p))
    ids = [query for _, query in wrong]
    arms = {arm.label: arm for arm, _, _ in judged}
    names = {number: name for arm in arms.values() for number, name in arm.query_split.shown_ids().items()}
    where = scored.experiment.main.asked.where
    found = [query_checks.saturated_queries_check(_means(probability), ids, names)]
    if not overrides(scored.experiment.task, Task.query_labels):
        asked_for = where is not None and where.correct is False
        found.insert(0, query_checks.wrong_queries_check(_means(wrong), ids, asked_for, names))
    return found


def _means(values: Mapping[Any, Sequence[float]]) -> np.ndarray:
    return np.array([np.mean(of_one) for of_one in values.values()])


def gold_labels(arm: Arm, queries: QueryBlock) -> np.ndarray:
    return arm.task.splits[queries.split].labels[queries.rows]


def measured_positions(arm: Arm, queries: QueryBlock) -> np.ndarray:
    """Return the positions of the queries among the measured rows of their split."""
    measured = arm.task.measured[queries.split]
    order = np.argsort(measured)
    return order[np.searchsorted(measured, queries.rows, sorter=order)]


def leaked_queries(splits: Mapping[str, Split], queries: QueryBlock) -> Check:
    """Check for queries that are in the train set, by comparing texts, or features if the task has no texts."""
    train, asked = splits["train"], splits[queries.split]
    if queries.split == "train":
        return Check("leaked_queries", "not_checked", "The queries are training examples: that is what is asked.")
    if train.texts is not None and asked.texts is not None:
        texts = asked.segments()
        copies = near_duplicates([texts[row] for row in queries.rows], train.segments())
        how = f"the same words, or at least {THRESHOLD:.0%} of all runs of three words in common"
        how += ", in each of the two texts" if train.pair_starts is not None else ""
    elif train.features is not None and asked.features is not None:
        copies, how = equal_rows(asked.features[queries.rows], train.features), "exactly the same numbers"
    else:
        return Check("leaked_queries", "not_checked", "The task has neither texts nor features to compare.")
    found = _by_query(copies, queries, train)
    return query_checks.leaked_queries_check(found, len(queries.ids), how, asked.shown_ids(), train.shown_ids())


def _by_query(copies: Sequence[Copy], queries: QueryBlock, train: Split) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for copy in copies:
        found.setdefault(int(queries.ids[copy.query]), []).append(int(train.ids[copy.row]))
    return found


# --- the scores ------------------------------------------------------------------------------------------------------


def checks_of_scores(scored: Scored) -> list[Check]:
    experiment = scored.experiment
    n_models = min((len(group.models) for group in scored.groups), default=0)
    matrices = (
        (label, scored.matrix(group.key, label).scores) for group in scored.groups for label in experiment.scored
    )
    return [
        model_checks.scoring_models_check(n_models, experiment.campaign.judges_own_model),
        query_checks.scores_check(matrices),
    ]
