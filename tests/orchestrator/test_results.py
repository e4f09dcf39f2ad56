"""From ledger rows to the tables: positions, holes, and the same text for the same rows."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from orchestrator.campaigns.deletion.results import TABLES, deletion_results
from orchestrator.campaigns.outcomes import measured_values
from orchestrator.experiment.checks import checked_experiment
from tasks.errors import InputError
from tests.orchestrator.small_campaigns import small_loo
from tests.orchestrator.tiny_campaign import pipeline_of, result_bytes, run_here, small_config


@pytest.fixture(scope="module")
def parts(finished):
    """Experiment, plan, queries and ledger rows of the finished campaign."""
    pipeline = finished.pipeline
    rows = pipeline.ledger_rows(w.spec_id for w in pipeline.planned.works)
    return pipeline.experiment, pipeline.planned, pipeline.queries, dict(rows)


def values_of(experiment, plan, queries, rows):
    return measured_values(experiment, plan.works, queries, rows)


def with_status(row, status):
    outputs = row.outcome.outputs if status == "ok" else {}
    return dataclasses.replace(row, outcome=dataclasses.replace(row.outcome, status=status, outputs=outputs))


def softmax_of(logits, label):
    e = [math.exp(float(x)) for x in logits]
    return e[label] / sum(e)


def test_values_are_the_measurement_of_every_query_under_every_retrain(parts):
    experiment, plan, queries, rows = parts
    values = values_of(*parts)
    assert values.shape == (len(plan.works), len(queries.ids))
    labels = experiment.task.splits["test"].labels
    for w, work in enumerate(plan.works):
        for q, row in enumerate(queries.rows):
            logits = rows[work.spec_id].outcome.outputs["test"][row]
            assert values[w, q] == pytest.approx(softmax_of(logits, labels[row]), abs=1e-12)


def test_queries_are_found_by_row_whatever_their_order(parts, tmp_path):
    experiment, plan, queries, rows = parts
    everything = {q: values_of(experiment, plan, experiment_queries(tmp_path, [q]), rows)[:, 0] for q in range(6)}
    turned = values_of(experiment, plan, experiment_queries(tmp_path, [5, 0, 3]), rows)
    assert np.array_equal(turned, np.stack([everything[q] for q in (5, 0, 3)], axis=1))
    assert np.array_equal(values_of(*parts), np.stack([everything[int(q)] for q in queries.ids], axis=1))


def experiment_queries(folder, ids):
    return checked_experiment(small_config(folder, queries={"split": "test", "ids": ids}), None).queries(None)


@pytest.mark.parametrize("repeats", [{"count": 2}, {"min": 3, "max": 4, "target_se": 0.001}], ids=["fixed", "adaptive"])
def test_the_label_that_the_reference_of_the_same_seed_predicts(tmp_path, repeats):
    config = small_config(tmp_path, measurement="reference_probability", repeats=repeats)
    pipeline = pipeline_of(run_here(config) and config)
    plan, queries = pipeline.planned, pipeline.queries
    rows = dict(pipeline.ledger_rows(w.spec_id for w in plan.works))
    values = values_of(pipeline.experiment, plan, queries, rows)
    predicted = {}
    for seed, spec_id in zip(plan.seeds, plan.references(), strict=True):
        predicted[seed] = rows[spec_id].outcome.outputs["test"][queries.rows].argmax(axis=1)
    for w, work in enumerate(plan.works):
        logits = rows[work.spec_id].outcome.outputs["test"][queries.rows]
        expected = [
            softmax_of(of_query, label) for of_query, label in zip(logits, predicted[work.spec.seed], strict=True)
        ]
        np.testing.assert_allclose(values[w], expected, atol=1e-12)
    lost = {spec_id: row for spec_id, row in rows.items() if spec_id != plan.references()[0]}
    is_hole = np.isnan(values_of(pipeline.experiment, plan, queries, lost)).all(axis=1)
    assert is_hole.tolist() == [work.spec.seed == plan.seeds[0] for work in plan.works]


def test_a_campaign_without_references_cannot_measure_their_label(tmp_path):
    with pytest.raises(
        InputError, match=r"measurement: 'reference_probability' needs a reference of every seed; leave_one_out"
    ):
        checked_experiment(small_loo(tmp_path, measurement="reference_probability"), None)


@pytest.mark.parametrize("status", ["diverged", "quarantined", "absent"])
def test_a_retrain_without_a_usable_outcome_is_a_hole(parts, status):
    experiment, plan, queries, rows = parts
    lost = plan.works[3].spec_id
    changed = {s: row for s, row in rows.items() if s != lost}
    if status != "absent":
        changed[lost] = with_status(rows[lost], status)
    values = values_of(experiment, plan, queries, changed)
    assert np.isnan(values[3]).all()
    assert np.isfinite(np.delete(values, 3, axis=0)).all()


def test_a_hole_leaves_its_cell_out_for_all_methods_alike(parts):
    experiment, plan, queries, rows = parts
    method, group, query, repeat = plan.methods.index("tracin_last"), 0, 1, 1
    lost = plan.cell[method, group, 0, query, repeat]
    changed = {**rows, plan.works[lost].spec_id: with_status(rows[plan.works[lost].spec_id], "diverged")}
    found = deletion_results(experiment, plan, queries, changed)
    hit = (plan.cell == lost).any(axis=(0, 1, 2))  # (query, repeat) cells that some method asked this set for
    assert hit[query, repeat]
    for name in ("curves", "summary"):
        assert set(found.tables[name]["n_excluded"]) == {int(hit.sum())}
    holes = found.tables["holes"]
    assert {(row.query_id, row.repeat) for row in holes.itertuples()} == {
        (int(queries.ids[q]), r) for q, r in np.argwhere(hit)
    }
    assert np.isnan(found.cells.auc[method, group, query, repeat])
    undisturbed = deletion_results(experiment, plan, queries, rows).cells.auc
    assert np.array_equal(found.cells.auc[..., ~hit], undisturbed[..., ~hit])


def test_a_lost_reference_is_a_hole_of_its_whole_repeat(parts):
    experiment, plan, queries, rows = parts
    reference = plan.works[plan.reference[0]].spec_id
    found = deletion_results(
        experiment, plan, queries, {**rows, reference: with_status(rows[reference], "quarantined")}
    )
    assert set(found.tables["summary"]["n_excluded"]) == {len(queries.ids)}
    assert set(found.tables["curves"]["n_repeats"]) == {1}


def test_tables_say_what_the_cells_say(parts):
    experiment, plan, queries, rows = parts
    found = deletion_results(experiment, plan, queries, rows)
    assert tuple(found.tables) == TABLES
    values = values_of(*parts)
    curves = found.tables["curves"].set_index(["method", "group", "k"])["delta"]
    for m, g, k in np.ndindex(plan.cell.shape[:3]):
        deltas = [
            values[plan.cell[m, g, k, q, r], q] - values[plan.reference[r], q]
            for q, r in np.ndindex(plan.cell.shape[3:])
        ]
        assert curves[plan.methods[m], plan.groups[g], plan.ks[k]] == pytest.approx(np.mean(deltas), abs=1e-12)
    assert len(found.tables["contrasts"]) == len(found.verdicts) == 2 * 3  # groups x (2 against random + 1)
    assert found.tables["holes"].empty


def test_the_accuracy_of_a_curve_leaves_the_query_out_and_agrees_with_the_check(parts, finished):
    experiment, plan, queries, rows = parts
    labels = experiment.task.splits["test"].labels
    curves = deletion_results(experiment, plan, queries, rows).tables["curves"].set_index(["method", "group", "k"])

    def accuracy(work, q):
        others = np.arange(len(labels)) != queries.rows[q]
        outputs = rows[plan.works[work].spec_id].outcome.outputs["test"]
        return (outputs.argmax(axis=1) == labels)[others].mean()

    for m, g, k in np.ndindex(plan.cell.shape[:3]):
        cells = list(np.ndindex(plan.cell.shape[3:]))
        removal = np.array([accuracy(plan.cell[m, g, k, q, r], q) for q, r in cells])
        change = removal - [accuracy(plan.reference[r], q) for q, r in cells]
        row = curves.loc[(plan.methods[m], plan.groups[g], plan.ks[k])]
        assert row["accuracy"] == pytest.approx(removal.mean(), abs=1e-12)
        assert row["accuracy_delta"] == pytest.approx(change.mean(), abs=1e-12)
    (check,) = [check for check in finished.result.results.checks if check.name == "broken_models"]
    assert check.numbers["largest_drop"] == pytest.approx(-curves["accuracy_delta"].min(), abs=1e-12)


def test_without_classes_to_be_right_about_the_accuracy_is_empty(parts):
    experiment, plan, queries, rows = parts
    unknown = {
        s: dataclasses.replace(row, outcome=dataclasses.replace(row.outcome, metrics={})) for s, row in rows.items()
    }
    curves = deletion_results(experiment, plan, queries, unknown).tables["curves"]
    assert curves.filter(like="accuracy").isna().all().all()
    assert curves["delta"].notna().all()


def test_the_same_rows_give_the_bytes_that_were_written(parts, finished):
    _, plan, _, rows = parts
    turned = dict(reversed(list(rows.items())))
    texts = finished.pipeline.campaign.checked_results(finished.pipeline.scored, plan, turned).csv()
    assert {name: text.encode() for name, text in texts.items()} == result_bytes(finished.run_dir)
