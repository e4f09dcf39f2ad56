"""The checks of whole campaigns: what they find in data that were made so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from orchestrator import api
from tests.orchestrator.doubtful_campaign import UNTRAINED, doubtful, write_texts
from tests.orchestrator.small_campaigns import small_debias, small_loo
from tests.orchestrator.small_grid import GRID, small_grid

COMMON = ["accuracy", "repeats", "queries", "wrong_queries", "saturated_queries", "leaked_queries"]
COMMON += ["scoring_models", "scores"]


def checks_of(config):
    return {check.name: check for check in api.run(config, address="local").results.checks}


@pytest.fixture(scope="module")
def leaked(tmp_path_factory):
    """A model that has learnt its task, and two copies of query 1 in the train set, one of them with a word more."""
    folder = tmp_path_factory.mktemp("leaked")
    query = write_texts(folder / "test.csv", 120, 2)[1]
    near = f"{query} other"
    config = doubtful(folder, {"deletion.k": [3, 50], "repeats.count": 5}, {5: query.upper() + "!", 7: near})
    return config, checks_of(config)


def test_a_campaign_of_a_model_that_has_learnt_its_task_passes_on_accuracy(leaked):
    _, checks = leaked
    assert list(checks) == [*COMMON, "controls", "broken_models"]
    assert (checks["accuracy"].status, checks["repeats"].status) == ("passed", "passed")
    assert checks["accuracy"].numbers["accuracy"] > 0.8
    assert checks["accuracy"].numbers["largest_class"] == 0.5
    assert checks["accuracy"].numbers["n_models"] == 5
    assert (checks["queries"].status, checks["queries"].numbers["n_queries"]) == ("caution", 3)


def test_copies_of_a_query_in_the_train_set_are_found(leaked):
    _, checks = leaked
    assert checks["leaked_queries"].status == "caution"
    assert checks["leaked_queries"].numbers["copies"] == {"1": [5, 7]}


def test_removals_of_most_of_the_train_set_break_the_model_and_small_ones_do_not(leaked):
    config, checks = leaked
    broken = checks["broken_models"]
    assert broken.status == "caution"
    assert {k for _, _, k, _ in broken.numbers["broken"]} == {50}
    pipeline = api.open_pipeline(config, address="local")
    plan, rows = pipeline.planned, pipeline.rows
    method, group, _, drop = broken.numbers["broken"][0]
    m, g = plan.methods.index(method), plan.groups.index(group)
    labels = pipeline.experiment.task.splits["test"].labels
    drops = []
    for q, r in np.ndindex(plan.cell.shape[3:]):
        others = np.arange(120) != plan.query_ids[q]
        one, reference = (
            rows[plan.works[w].spec_id].outcome.outputs["test"].argmax(axis=1)
            for w in (plan.cell[m, g, 1, q, r], plan.reference[r])
        )
        drops.append((reference == labels)[others].mean() - (one == labels)[others].mean())
    assert drop == pytest.approx(np.mean(drops), abs=1e-12)


def test_references_that_failed_leave_nothing_to_check(leaked):
    config, _ = leaked
    pipeline = api.open_pipeline(config, address="local")
    lost = set(pipeline.planned.references())
    rows = {
        spec_id: dataclasses.replace(
            row, outcome=dataclasses.replace(row.outcome, status="diverged", outputs={}, metrics={})
        )
        if spec_id in lost
        else row
        for spec_id, row in pipeline.rows.items()
    }
    checks = {
        check.name: check.status
        for check in pipeline.campaign.checked_results(pipeline.scored, pipeline.planned, rows).checks
    }
    assert (checks["accuracy"], checks["broken_models"]) == ("not_checked", "not_checked")


def lost(row):
    """The row of a retrain that diverged."""
    return dataclasses.replace(row, outcome=dataclasses.replace(row.outcome, status="diverged", outputs={}, metrics={}))


def test_queries_and_repeats_are_those_that_the_verdicts_rest_on(tmp_path):
    """6 queries in 6 repeats are asked about; of 3 repeats, and of most queries, a retrain that every curve needs has diverged."""
    config = doubtful(tmp_path, {"queries.ids": list(range(6)), "repeats.count": 6})
    result = api.run(config, address="local")
    quiet = {check.name: check for check in result.results.checks}
    assert (quiet["queries"].status, quiet["repeats"].status) == ("passed", "passed")
    assert "asked" not in quiet["queries"].sentence
    pipeline = api.open_pipeline(config, address="local")
    plan = pipeline.planned
    of_method = plan.cell[plan.methods.index("tracin_last")]
    kept = {*of_method[..., 5, 3:].ravel().tolist()}
    gone = {*of_method[..., :5, :].ravel().tolist(), *plan.reference[:3].tolist()} - kept
    ids = {plan.works[w].spec_id for w in gone}
    rows = {spec_id: lost(row) if spec_id in ids else row for spec_id, row in pipeline.rows.items()}
    complete = ~np.isin(plan.cell, list(gone)).any(axis=(0, 1, 2)) & ~np.isin(plan.reference, list(gone))
    n_queries, n_repeats = int(complete.any(axis=1).sum()), int(complete.any(axis=0).sum())
    assert n_repeats == 3
    assert 1 <= n_queries < 5
    checks = {check.name: check for check in pipeline.campaign.checked_results(pipeline.scored, plan, rows).checks}
    assert (checks["queries"].status, checks["repeats"].status) == ("caution", "caution")
    assert checks["queries"].numbers["n_queries"] == n_queries
    assert checks["queries"].numbers["n_asked"] == 6
    assert "of 6 asked" in checks["queries"].sentence
    assert checks["repeats"].sentence.startswith("A verdict rests on 3 repeats of 6 asked")


def test_seeds_of_debias_and_of_a_grid_are_those_with_results(tmp_path):
    def without_last_seed(config, is_lost):
        pipeline = api.open_pipeline(config, address="local")
        ids = {work.spec_id for work in pipeline.planned.works if work.spec.seed == 2 and is_lost(work)}
        rows = {spec_id: lost(row) if spec_id in ids else row for spec_id, row in pipeline.rows.items()}
        checks = pipeline.campaign.checked_results(pipeline.scored, pipeline.planned, rows).checks
        return {check.name: check for check in checks}["repeats"]

    debias = small_debias(tmp_path / "debias")
    trusting = {"train_accuracy_below": 0.0}
    grid = small_grid(tmp_path / "grid", recipe_grid={**GRID["recipe_grid"], "failed": trusting})
    for config, is_lost in ((debias, lambda work: work.spec.parent), (grid, lambda work: work.arm.startswith("long"))):
        assert checks_of(config)["repeats"].sentence.startswith("There are 2 repeats")
        assert without_last_seed(config, is_lost).sentence.startswith("A verdict rests on 1 repeat of 2 asked")


def test_saturated_and_wrong_queries_are_counted_in_the_references(tmp_path):
    """A model that knows the text words by heart is certain of the words it knows, and wrong where the label contradicts them."""
    wrong = {
        "queries.ids": [0, 1, 2, 3],
        "task.recipe.epochs": 30,
        "task.recipe.learning_rate": 0.08,
        "deletion.k": [2],
    }
    config = doubtful(tmp_path, wrong)
    lines = (tmp_path / "test.csv").read_text().splitlines()
    swapped = [line.replace("north", "x").replace("south", "north").replace("x", "south") for line in lines[1:4]]
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *swapped, *lines[4:]]) + "\n")
    checks = checks_of(api.load_config(config.path))
    assert checks["wrong_queries"].numbers["query_ids"] == [0, 1, 2]
    assert checks["wrong_queries"].status == "caution"
    assert (checks["saturated_queries"].numbers["n_floor"], checks["saturated_queries"].status) == (3, "caution")


def test_a_campaign_that_asks_for_wrong_queries_is_not_blamed_for_them(tmp_path):
    where = {"queries": {"split": "test", "count": 3, "where": {"correct": False}}, **UNTRAINED}
    assert checks_of(doubtful(tmp_path, where))["wrong_queries"].status == "passed"


def test_leave_one_out_is_checked_over_its_units(tmp_path):
    checks = checks_of(small_loo(tmp_path))
    assert list(checks) == [
        "accuracy",
        "repeats",
        "queries",
        "saturated_queries",
        "leaked_queries",
        "scoring_models",
        "scores",
    ]
    assert checks["accuracy"].status == "not_checked", "the model decides which cluster is asked about"
    assert (checks["repeats"].status, checks["repeats"].numbers["n_units"]) == ("caution", 2)
    assert checks["leaked_queries"].status == "not_checked", "the queries are the train set"
    assert checks["scoring_models"].status == "not_checked", "it judges the model that it scores"


def test_debias_is_checked_for_seeds_controls_and_scores(tmp_path):
    checks = checks_of(small_debias(tmp_path))
    assert list(checks) == ["repeats", "controls", "scoring_models", "scores"]
    assert (checks["repeats"].status, checks["repeats"].numbers["n_repeats"]) == ("caution", 2)
    assert checks["controls"].numbers["controls"] == ["random"]
    without = checks_of(
        small_debias(
            tmp_path,
            methods=[{"name": "cross_loss_influence", "as": "influence", "solver": {"name": "exact", "damping": 0.1}}],
        )
    )
    assert without["controls"].status == "caution"


def test_a_recipe_grid_is_checked_for_accuracy_on_test_and_for_seeds(tmp_path):
    checks = checks_of(small_grid(tmp_path))
    assert list(checks) == ["accuracy", "repeats"]
    assert checks["accuracy"].numbers["split"] == "test"
