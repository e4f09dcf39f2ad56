"""A user's own method and measurement, in a module outside the repository, from config to tables."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator import api
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import run_here, small_config

OWN = '''
"""Examples help by how many words they share with the query; what counts is twice the probability."""
from typing import ClassVar

import numpy as np

from influence.base import Method
from tasks.measurements import GoldProbability

class Overlap(Method):
    name: ClassVar[str] = "overlap"
    follows_query_loss: ClassVar[bool] = False
    sign: int = 1

    def prepare(self, task, base_dir, queries):
        words = [set(text.split()) for text in task.splits["train"].texts]
        asked = [set(task.splits[queries.split].texts[row].split()) for row in queries.rows]
        return np.array([[len(q & w) for w in words] for q in asked], np.float32)

    def score(self, queries, train, prepared):
        return self.sign * prepared[:, train.rows]

class Twice(GoldProbability):
    name: ClassVar[str] = "twice"

    def value(self, outputs, labels):
        return 2 * super().value(outputs, labels)
'''


@pytest.fixture
def own(tmp_path, plugin):
    """The result of a campaign with `overlap`, its opposite and the control."""
    module = plugin("plugin_overlap", OWN)
    methods = [
        {"name": f"{module}:Overlap", "as": "overlap"},
        {"name": f"{module}:Overlap", "sign": -1, "as": "opposite"},
        {"name": "random"},
    ]
    measurement = {"name": f"{module}:Twice"}
    config = small_config(tmp_path, methods=methods, plugins=[module], measurement=measurement, repeats__count=1)
    return config, run_here(config)


def test_it_is_scored_planned_retrained_and_in_every_table(own):
    config, result = own
    view, pipeline = api.open_run(result.run_dir), api.open_run(result.run_dir).pipeline()
    texts, train = pipeline.experiment.task.splits["test"].texts, pipeline.experiment.train
    scores = view.scores("overlap")
    for query_id in scores.index:
        shared = [len(set(texts[query_id].split()) & set(text.split())) for text in train.texts]
        assert scores.loc[query_id].tolist() == shared
    assert np.array_equal(view.scores("opposite"), -scores)
    assert set(view.curves()["method"]) == {"overlap", "opposite", "random"}
    assert set(view.contrasts()["method"]) | set(view.contrasts()["baseline"]) == {"overlap", "opposite", "random"}
    assert "overlap" in (result.run_dir / "report.html").read_text()
    assert (result.exit_code, run_here(config).report.retrained) == (0, 0)


def test_its_best_examples_are_removed_and_its_measurement_measured(own):
    _, result = own
    pipeline = api.open_run(result.run_dir).pipeline()
    plan = pipeline.planned
    removed = plan.works[plan.cell[0, 0, 0, 0, 0]].edit.ids
    row = pipeline.matrices["overlap"].scores[0]
    assert sorted(row[pipeline.experiment.train.rows_of(removed)]) == sorted(row)[-2:]
    values = result.results.cells.reference
    assert values.shape == (3, 1)
    logits = pipeline.rows[plan.works[plan.reference[0]].spec_id].outcome.outputs["test"][pipeline.queries.rows]
    p = np.exp(logits.astype(float))[np.arange(3), pipeline.queries.labels] / np.exp(logits.astype(float)).sum(axis=1)
    assert values[:, 0] == pytest.approx(2 * p)


def test_a_plugin_needs_a_label_and_one_line_says_so(tmp_path, plugin):
    module = plugin("plugin_overlap", OWN)
    with pytest.raises(InputError, match=r"methods\[0\]\.as: 'plugin_overlap:Overlap'.*`as:`"):
        small_config(tmp_path, methods=[{"name": f"{module}:Overlap"}, {"name": "random"}], plugins=[module])
