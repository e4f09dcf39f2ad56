"""From a campaign's ledger rows to its checks, and from its verdicts to the words that these checks allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from influence.base import QueryBlock
from orchestrator.analysis import model_checks, query_checks
from orchestrator.analysis.checks import Check, worded
from orchestrator.analysis.model_checks import Accuracy
from orchestrator.analysis.rests_on import fewest_of_contrasts, fewest_seeds_of_debias, fewest_seeds_of_grid
from orchestrator.campaigns.base import Scored
from orchestrator.campaigns.plan import NOT_ASKED, Plan
from orchestrator.experiment import Arm
from orchestrator.records import LedgerRow, Outcome
from tasks.base import Split
from tasks.data.near_duplicates import THRESHOLD, Copy, equal_rows, near_duplicates
from tasks.measurements import GoldProbability

if TYPE_CHECKING:
    from orchestrator.results import Results

Rows = Mapping[str, LedgerRow]
NO_RIGHT = "The models have no classes to be right about, or decide themselves which label is asked about."


def checked_results(scored: Scored, plan: Any, rows: Rows) -> Results:
    """The tables of a campaign with its checks, and its verdicts in the words that the checks allow."""
    campaign = scored.experiment.campaign
    results = campaign.results(scored, plan, rows)
    checks = tuple(campaign.checks(scored, plan, rows, results))
    return dataclasses.replace(results, verdicts=worded(results.verdicts, checks), checks=checks)


def common_checks(scored: Scored, plan: Any, rows: Rows, results: Results | None = None) -> list[Check]:
    """What can be checked of any campaign whose references are models trained on everything.

    `results`: with them, the queries and repeats that the verdicts rest on are counted; without, those that were planned.
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
    return [*found, *_of_queries(scored, queries, judged, n_queries), *_of_scores(scored)]


def deletion_checks(scored: Scored, plan: Plan, rows: Rows, results: Results) -> list[Check]:
    """The common checks; whether a control moves the measurement; and whether removals break the model."""
    split = scored.queries("").split
    drops = dict(_drops(scored, plan, rows))
    return [
        *common_checks(scored, plan, rows, results),
        query_checks.controls_check(results.tables["summary"].to_dict("records"), plan.controls),
        model_checks.broken_models_check(drops, split),
    ]


def leave_one_out_checks(scored: Scored, plan: Any, rows: Rows, results: Results) -> list[Check]:
    """The common checks: repeats are the units of the intervals, and every reference is asked with the labels of its own."""
    units = results.tables["agreement"]["n_units"].tolist()
    judged = [(arm, arm.queries(outcome.outputs), outcome) for arm, outcome in references(scored, plan, rows)]
    found = [
        reference_accuracy(scored, plan, rows),
        model_checks.repeats_check(min(units, default=0), "units"),
    ]
    if judged:
        found += _of_queries(scored, judged[0][1], judged, len(judged[0][1].ids))
    return [*found, *_of_scores(scored)]


def debias_checks(scored: Scored, results: Results) -> list[Check]:
    """Whether there are enough seeds, whether fine-tuning on random sentences moves the effect too, and whether methods rank."""
    from orchestrator.debiasing import is_told

    experiment = scored.experiment
    controls = [label for label, is_control in experiment.controls.items() if is_control]
    n_asked, contrasts = len(experiment.seeds), results.tables["effect_contrasts"]
    told = contrasts.loc[is_told(contrasts, experiment.campaign)]
    n_seeds = fewest_seeds_of_debias(told, results.tables["directions"], n_asked)
    return [
        model_checks.repeats_check(n_seeds, n_asked=n_asked),
        query_checks.random_sets_check(results.tables["directions"].to_dict("records"), controls),
        *_of_scores(scored),
    ]


def recipe_grid_checks(scored: Scored, results: Results, split: str) -> list[Check]:
    """Whether the chosen settings are better than the largest class on test, and whether there are enough seeds."""
    experiment, table = scored.experiment, results.tables["accuracy"]
    found = []
    for row in table.to_dict("records"):
        if np.isfinite(row["test"]):
            task = experiment.arms[row["setting"]].task
            labels = task.splits[split].labels[task.measured[split]]
            found.append(Accuracy.of(f"models of {row['setting']}", split, [row["test"]], labels))
    n_asked = len(experiment.seeds)
    n_seeds = fewest_seeds_of_grid(table, results.tables["trials"], experiment.campaign.reference, n_asked)
    return [
        model_checks.accuracy_check(found, "No chosen setting has an accuracy.", any_will_do=True),
        model_checks.repeats_check(n_seeds, n_asked=n_asked),
    ]


# --- the models ------------------------------------------------------------------------------------------------------


def references(scored: Scored, plan: Any, rows: Rows) -> Iterator[tuple[Arm, Outcome]]:
    """Arm and outcome of every reference that finished well."""
    arms = scored.experiment.arms
    arm_of = {work.spec_id: work.arm for work in plan.works}
    for spec_id in dict.fromkeys(plan.references()):
        if spec_id in rows and rows[spec_id].outcome.status == "ok":
            yield arms.get(arm_of.get(spec_id, ""), scored.experiment.main), rows[spec_id].outcome


def reference_accuracy(scored: Scored, plan: Any, rows: Rows) -> Check:
    """The accuracy of the references, arm by arm, on the split that the queries are from (without queries: on every measured split)."""
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


def _drops(scored: Scored, plan: Plan, rows: Rows) -> Iterator[tuple[tuple[str, str, int], float]]:
    """(method, group, k) -> mean drop of the accuracy on the measured examples other than the query, over (query, repeat)."""
    others = _accuracy_on_others(scored, plan, rows)
    queries = np.arange(len(plan.query_ids))[:, None]
    for m, g, k in np.ndindex(plan.cell.shape[:3]):
        cell = plan.cell[m, g, k]
        drop = np.where(cell != NOT_ASKED, others[plan.reference].T - others[cell, queries], np.nan)
        known = drop[np.isfinite(drop)]
        yield (plan.methods[m], plan.groups[g], plan.ks[k]), float(known.mean()) if len(known) else float("nan")


def _accuracy_on_others(scored: Scored, plan: Plan, rows: Rows) -> np.ndarray:
    """float64 [n_works, n_queries]: the accuracy of every retrain on the measured examples but that query, NaN where unknown."""
    queries, arm = scored.queries(""), scored.experiment.main
    found = np.full((len(plan.works), len(queries.ids)), np.nan)
    gold, position, n = _gold(arm, queries), _position(arm, queries), len(arm.task.measured[queries.split])
    for index, work in enumerate(plan.works):
        row = rows.get(work.spec_id)
        accuracy = row.outcome.metrics.get(f"accuracy/{queries.split}") if row is not None else None
        if row is None or accuracy is None or row.outcome.status != "ok" or n < 2:
            continue
        is_right = row.outcome.outputs[queries.split][position].argmax(axis=1) == gold
        found[index] = (accuracy * n - is_right) / (n - 1)
    return found


# --- the queries -----------------------------------------------------------------------------------------------------

Judged = Sequence[tuple[Arm, QueryBlock, Outcome]]


def _of_queries(scored: Scored, queries: QueryBlock, judged: Judged, n_queries: int) -> list[Check]:
    """`n_queries`: the fewest that a verdict rests on."""
    found = [query_checks.queries_check(n_queries, len(queries.ids))]
    measurement = scored.experiment.config.measurement
    if judged and getattr(measurement, "of_classes", True):
        found += _answers(scored, judged)
    return [*found, leaked_queries(scored.experiment.main.task.splits, queries)]


def _answers(scored: Scored, judged: Judged) -> list[Check]:
    """Wrong and saturated queries; a query of two arms counts twice, since it is another model that answers."""
    wrong: dict[tuple[str, int], list[float]] = {}
    probability: dict[tuple[str, int], list[float]] = {}
    for arm, queries, outcome in judged:
        outputs = outcome.outputs[queries.split][_position(arm, queries)]
        missed = outputs.argmax(axis=1) != _gold(arm, queries)
        sure = GoldProbability().value(outputs, queries.labels)
        for query, is_missed, p in zip(queries.ids.tolist(), missed, sure, strict=True):
            wrong.setdefault((arm.label, query), []).append(float(is_missed))
            probability.setdefault((arm.label, query), []).append(float(p))
    ids = [query for _, query in wrong]
    arms = {arm.label: arm for arm, _, _ in judged}
    names = {number: name for arm in arms.values() for number, name in arm.query_split.shown_ids().items()}
    where = scored.experiment.main.asked.where
    found = [query_checks.saturated_queries_check(_means(probability), ids, names)]
    if not hasattr(scored.experiment.task, "query_labels"):
        asked_for = where is not None and where.correct is False
        found.insert(0, query_checks.wrong_queries_check(_means(wrong), ids, asked_for, names))
    return found


def _means(values: Mapping[Any, Sequence[float]]) -> np.ndarray:
    return np.array([np.mean(of_one) for of_one in values.values()])


def _gold(arm: Arm, queries: QueryBlock) -> np.ndarray:
    return arm.task.splits[queries.split].labels[queries.rows]


def _position(arm: Arm, queries: QueryBlock) -> np.ndarray:
    """Where the queries stand among the measured rows of their split."""
    measured = arm.task.measured[queries.split]
    order = np.argsort(measured)
    return order[np.searchsorted(measured, queries.rows, sorter=order)]


def leaked_queries(splits: Mapping[str, Split], queries: QueryBlock) -> Check:
    """Queries that stand in the train set: by their texts, or by their numbers where a task has no texts."""
    train, asked = splits["train"], splits[queries.split]
    if queries.split == "train":
        return Check("leaked_queries", "not_checked", "The queries are training examples: that is what is asked.")
    if train.texts is not None and asked.texts is not None:
        texts = asked.texts
        copies = near_duplicates([texts[row] for row in queries.rows], train.texts)
        how = f"the same words, or at least {THRESHOLD:.0%} of all runs of three words in common"
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


def _of_scores(scored: Scored) -> list[Check]:
    experiment = scored.experiment
    n_models = min((len(group.models) for group in scored.groups), default=0)
    matrices = (
        (label, scored.matrix(group.key, label).scores) for group in scored.groups for label in experiment.scored
    )
    return [
        model_checks.scoring_models_check(n_models, experiment.campaign.judges_own_model),
        query_checks.scores_check(matrices),
    ]
