"""Computes the tables of an LDS campaign in results/ from ledger rows; the same rows give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from influence.checkpoint import QueryBlock
from influence.controls import Control
from influence.matrix import ScoreMatrix
from orchestrator.campaigns.lds import tables
from orchestrator.campaigns.lds.correlations import halves_left_out, lds_left_out
from orchestrator.campaigns.lds.subsets import control_scores, predicted_sums
from orchestrator.campaigns.lds.tables import Judged
from orchestrator.campaigns.outcomes import measured_values
from orchestrator.campaigns.plan import CellTable
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.experiment.experiment import Experiment
from orchestrator.records import LedgerRow

SHOWN = ("lds", "ci_low", "ci_high", "ci_fixed_low", "ci_fixed_high", "ceiling", "n_queries", "n_repeats", "n_subsets")
LEAST_SUBSETS = 4  # fewer complete subsets give no result


@dataclass(frozen=True, eq=False)
class CompleteSubsets:
    """The measurements that count, float64 [n_repeats, n_queries, n_subsets], and which those are.

    `repeats`, `subsets`: bool masks over the design; a subset counts if it has a result in every repeat that counts, and a repeat counts
    if any of its subsets has one. So all queries, methods and repeats are compared on the same subsets.
    """

    values: np.ndarray
    repeats: np.ndarray
    subsets: np.ndarray


def lds_results(
    scored: Scored, plan: CellTable, rows: Mapping[str, LedgerRow], removed: Sequence[np.ndarray]
) -> Results:
    """Return all tables and verdicts; `removed`: the TrainIds that each subset leaves out."""
    experiment, queries = scored.experiment, scored.queries("")
    cells = [plan.works[i] for i in plan.work]
    values = measured_values(experiment, cells, queries, rows).reshape(-1, len(removed), len(queries.ids))
    measured = complete(values)
    kept = np.array([~np.isin(experiment.train.ids, ids) for ids in removed])[measured.subsets]
    predicted = {
        label: predicted_sums(scores, kept) for label, scores in method_scores(scored, experiment, queries).items()
    }
    judged = judge(predicted, measured.values, queries.ids, n_excluded=int((~measured.subsets).sum()))
    contrasts = tables.contrasts(judged, list(_controls(experiment)))
    found = {
        "lds": tables.summary(judged),
        "query_lds": tables.by_query(judged),
        "contrasts": contrasts,
        "holes": holes(values),
    }
    sentences = tables.verdicts(contrasts)
    return Results(
        found, sentences, "lds", ("method",), SHOWN, judged.n_excluded, tuple(_notes(judged, len(queries.ids)))
    )


def complete(values: np.ndarray) -> CompleteSubsets:
    """Return the measurements that count, from those of the whole design: float64 [n_repeats, n_subsets, n_queries]."""
    finished = np.asarray(np.isfinite(values).all(axis=-1))
    repeats = np.asarray(finished.any(axis=-1))
    subsets = np.asarray(finished[repeats].all(axis=0) & bool(repeats.any()))
    return CompleteSubsets(values[repeats][:, subsets].transpose(0, 2, 1), repeats, subsets)


def holes(values: np.ndarray) -> pd.DataFrame:
    """Return the retrains without a measurement: columns `subset, repeat`."""
    missing = np.argwhere(~np.isfinite(values).all(axis=2))
    return pd.DataFrame({"subset": missing[:, 1], "repeat": missing[:, 0]})


def method_scores(scored: Scored, experiment: Experiment, queries: QueryBlock) -> dict[str, np.ndarray]:
    """Return label -> scores [n_queries, n_train] in the order of the queries and of the train set; those of controls are drawn."""
    train, controls = experiment.train, _controls(experiment)
    labels = dict(zip(queries.ids.tolist(), queries.labels.tolist(), strict=True))

    def matrix(label: str) -> ScoreMatrix:
        if label not in controls:
            return scored.matrix("", label)
        return control_scores(controls[label], train.ids, train.labels, labels, experiment.seeds[0])

    return {label: matrix(label).reordered(queries.ids, train.ids).scores for label in experiment.methods}


def judge(
    predicted: Mapping[str, np.ndarray], measured: np.ndarray, query_ids: np.ndarray, n_excluded: int = 0
) -> Judged:
    """Return the LDS of every method, from predicted sums [n_queries, n_subsets] and measurements [n_repeats, n_queries, n_subsets].

    A query counts if its mean measurement varies over subsets, and if every method that has scores at all has scores for it.
    """
    n_repeats, _, n_subsets = measured.shape
    has_scores = {label: ~np.isnan(sums).any(axis=1) for label, sums in predicted.items()}
    counts = np.ones(len(query_ids), bool)
    if n_repeats < 2 or n_subsets < LEAST_SUBSETS:
        counts[:] = False
    else:
        counts &= np.ptp(measured.mean(axis=0), axis=1) > 0
    for there in has_scores.values():
        counts &= there | ~there.any()
    methods = tuple(predicted)
    lacking = tuple(label for label, there in has_scores.items() if not there.any())
    used = measured[:, counts]
    sums = np.stack([np.nan_to_num(predicted[label][counts]) for label in methods])
    if not counts.any():
        return Judged(methods, np.asarray(query_ids)[counts], None, None, n_repeats, n_subsets, n_excluded, lacking)
    lds, halves = lds_left_out(sums, used), halves_left_out(used)
    return Judged(methods, np.asarray(query_ids)[counts], lds, halves, n_repeats, n_subsets, n_excluded, lacking)


def _controls(experiment: Experiment) -> dict[str, Control]:
    return {label: method for label, method in experiment.methods.items() if isinstance(method, Control)}


def _notes(judged: Judged, n_asked: int) -> list[str]:
    found = []
    if judged.n_excluded:
        found.append(
            f"{judged.n_excluded} subsets lack a result in some repeat and were left out of every table, for all methods alike."
        )
    if len(judged.query_ids) < n_asked:
        found.append(
            f"{n_asked - len(judged.query_ids)} of {n_asked} queries were left out of every table: their measurement is the same for all "
            "subsets, or a method has no scores for them."
        )
    found += [f"{label} has no scores for any query, so it has no LDS." for label in judged.lacking]
    return found
