"""What every campaign promises, run over the registry: a campaign that is registered later needs one line in CONFIGS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config.schema import LoadedConfig
from orchestrator.registry import CAMPAIGNS
from orchestrator.stages.pipeline import Pipeline, Unfinished
from tests.orchestrator.small_campaigns import small_debias, small_loo
from tests.orchestrator.small_grid import small_grid
from tests.orchestrator.small_mislabels import small_mislabels
from tests.orchestrator.tiny_campaign import Finished, pipeline_of, run_here, small_config, small_lds

CONFIGS: dict[str, Callable[[Path], LoadedConfig]] = {
    "debias": small_debias,
    "deletion": small_config,
    "lds": small_lds,
    "leave_one_out": small_loo,
    "mislabels": small_mislabels,
    "recipe_grid": small_grid,
}
NAMES = sorted(CAMPAIGNS.entries())


def test_every_registered_campaign_has_a_small_config():
    assert sorted(CONFIGS) == NAMES


@pytest.fixture(scope="module", params=NAMES)
def done(request, tmp_path_factory) -> Finished:
    """Run to the end, and not to be changed."""
    folder = tmp_path_factory.mktemp(request.param)
    config = CONFIGS[request.param](folder)
    assert config.settings.campaign == request.param
    return Finished(folder, config, run_here(config))


def asks_scores(pipeline: Pipeline) -> bool:
    return bool(pipeline.campaign.plans_by_scores and pipeline.groups)


def test_bounds_are_never_below_what_is_planned(done):
    pipeline = done.pipeline
    n_queries = len(pipeline.queries.ids) if pipeline.campaign.asks_queries else 0
    cells, distinct = pipeline.campaign.bounds(pipeline.experiment, n_queries)
    assert cells >= pipeline.planned.n_requested > 0
    assert distinct >= len(pipeline.planned.works) > 0


def test_the_same_scores_and_ledger_give_the_same_plan(done):
    one, other = done.pipeline.planned, done.pipeline.planned
    assert one is not other
    assert [work.spec_id for work in one.works] == [work.spec_id for work in other.works]
    assert one.columns() == other.columns()
    assert (one.references(), one.n_requested, one.is_final) == (other.references(), other.n_requested, other.is_final)


def test_works_are_distinct_and_name_arms_and_the_references_are_among_them(done):
    pipeline = done.pipeline
    ids = [work.spec_id for work in pipeline.planned.works]
    assert len(set(ids)) == len(ids)
    assert set(pipeline.planned.references()) <= set(ids)
    assert {work.arm for work in pipeline.planned.works} <= set(pipeline.experiment.arms)


def test_columns_hold_one_cell_a_row_and_name_works(done):
    plan = done.pipeline.planned
    columns = plan.columns()
    assert "spec_id" in columns
    assert len({len(column) for column in columns.values()}) == 1
    assert len(columns["spec_id"]) > 0
    assert set(columns["spec_id"]) <= {work.spec_id for work in plan.works}
    assert all(isinstance(value, (str, int)) for column in columns.values() for value in column)


def test_a_plan_that_does_not_need_scores_is_made_before_there_are_any(done, tmp_path):
    before = pipeline_of(CONFIGS[done.config.settings.campaign](tmp_path))
    if asks_scores(done.pipeline):
        with pytest.raises(Unfinished):
            _ = before.planned
    else:
        assert before.planned.columns() == done.pipeline.planned.columns()


def test_the_same_rows_in_any_order_give_the_same_bytes(done):
    pipeline = done.pipeline
    turned = dict(reversed(list(pipeline.rows.items())))
    found = [
        pipeline.campaign.checked_results(pipeline.scored, pipeline.planned, rows) for rows in (pipeline.rows, turned)
    ]
    assert found[0].csv() == found[1].csv()
    assert found[0].verdicts == found[1].verdicts
    assert found[0].notes == found[1].notes


def test_the_headline_is_a_table_whose_labels_tell_its_rows_apart(done):
    results = done.pipeline.results
    headline = results.tables[results.headline]
    assert len(headline) > 0
    assert {*results.labels, *results.shown} <= set(headline.columns)
    assert not headline.duplicated(list(results.labels)).any()


def test_checks_are_named_once_and_have_a_sentence(done):
    checks = done.pipeline.results.checks
    assert checks
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert check.name.replace("_", "").isalnum()
        assert check.sentence[0].isupper() or not check.sentence[0].isalpha()
        assert len(check.sentence.split()) > 3


def test_the_page_has_sections_and_figures_with_names_of_their_own(done):
    pipeline = done.pipeline
    page = pipeline.campaign.page(pipeline.finished)
    ids = [section.id for section in page.sections]
    assert ids
    assert len(set(ids)) == len(ids)
    figures = [name for section in page.sections for name in section.figures]
    assert len(set(figures)) == len(figures)
    assert all(
        svg.lstrip().startswith(("<svg", "<?xml")) for section in page.sections for svg in section.figures.values()
    )
    assert all(label and isinstance(value, str) for label, value in page.asked)
    assert len({label for label, _ in page.asked}) == len(page.asked)


def test_the_tracking_record_tells_its_children_apart(done):
    pipeline = done.pipeline
    record = pipeline.campaign.tracking(pipeline.finished)
    assert record.params
    labels = [tuple(sorted(child.labels.items())) for child in record.children]
    assert labels
    assert len(set(labels)) == len(labels)
    last = max(pipeline.finished.committed_ms.values())
    assert all(child.points and 0 < child.committed_at <= last for child in record.children)


def test_asking_for_advice_needs_no_finished_retrain(done):
    pipeline = done.pipeline
    for rows in ({}, pipeline.rows):
        assert isinstance(pipeline.campaign.advice(pipeline.scored, pipeline.planned, rows), str)
