"""What every influence method promises, run over the registry: a new line there is covered here."""

import inspect
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from influence.base import Method
from influence.checkpoint import NEEDS, QueryBlock
from influence.registry import METHODS
from influence.scoring import Scorer
from tasks.base import Split
from tasks.components import parse_component
from tasks.errors import InputError
from tasks.model import Model
from tasks.task import Task

sys.path.append(str(Path(__file__).parents[1] / "influence"))
from small_task import SmallCNN, SmallTask, checkpoint, query_block

OPTIONS = {
    "scores_file": {"path": "planted:oracle", "axes": "query_train", "orientation": "helpful_positive"},
    "influence_function": {"solver": {"name": "exact", "damping": 1.0}},
    "cross_loss_influence": {"solver": {"name": "cg", "damping": 1.0, "tolerance": 1e-6}},
}
NAMES = sorted(METHODS.entries())
TASK = SmallTask(SmallCNN())
N_TRAIN = len(TASK.splits["train"])


def make(name) -> Method:
    return parse_component(METHODS.load(name, "test"), OPTIONS.get(name, {}), "test", f"methods.{name}")


JUDGED = [name for name in NAMES if not make(name).is_control]


def scored(method, queries, start=0, stop=N_TRAIN, task=TASK):
    points = [checkpoint(task, seed, step=seed, weight=0.1 * seed) for seed in (1, 2)]
    prepared = pickle.loads(pickle.dumps(method.prepare(task, Path(), queries)))
    return Scorer(task, points, queries, {"m": method}, {"m": prepared}).score_range(start, stop)["m"]


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_what_it_is(name):
    method = make(name)
    assert isinstance(method, Method)
    assert method.name == name
    assert method.needs <= set(NEEDS)
    assert method.identity() == make(name).identity()
    assert inspect.getdoc(type(method)).splitlines()[0].endswith(".")
    assert METHODS.entries()[name].summary


@pytest.mark.parametrize("name", NAMES)
def test_it_pickles_and_checks_a_task_that_fits(name):
    method = make(name)
    assert pickle.loads(pickle.dumps(method)) == method
    method.check(TASK, Path(), "config.yaml: methods")


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused(name):
    with pytest.raises(InputError, match="unknown key 'nonsense'"):
        parse_component(type(make(name)), OPTIONS.get(name, {}) | {"nonsense": 1}, "test", "methods")


@pytest.mark.parametrize("name", JUDGED)
def test_scores_are_finite_float32_with_queries_as_rows(name):
    scores = scored(make(name), query_block(TASK))
    assert scores.shape == (3, N_TRAIN)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert np.abs(scores).max() > 0


@pytest.mark.parametrize("name", JUDGED)
def test_a_query_has_the_same_scores_alone_and_in_any_order(name):
    together = scored(make(name), query_block(TASK, (4, 0, 7)))
    turned = scored(make(name), query_block(TASK, (7, 4, 0)))
    alone = scored(make(name), query_block(TASK, (0,)))
    scale = 1e-5 * np.abs(together).max()
    np.testing.assert_allclose(turned, together[[2, 0, 1]], rtol=1e-5, atol=scale)
    np.testing.assert_allclose(alone, together[[1]], rtol=1e-5, atol=scale)


@pytest.mark.parametrize("name", JUDGED)
def test_columns_are_train_rows_and_ranges_are_independent(name):
    whole, part = scored(make(name), query_block(TASK)), scored(make(name), query_block(TASK), 11, 19)
    np.testing.assert_allclose(part, whole[:, 11:19], rtol=1e-5, atol=1e-5 * np.abs(whole).max())
    assert scored(make(name), query_block(TASK), 4, 4).shape == (3, 0)


@pytest.mark.parametrize("name", JUDGED)
def test_the_order_of_the_train_set_changes_no_score_of_an_id(name):
    order = np.random.default_rng(3).permutation(N_TRAIN)
    task, split = SmallTask(SmallCNN()), TASK.splits["train"]
    task.splits["train"] = Split(
        split.ids[order], split.labels[order], split.classes, tuple(split.texts[i] for i in order)
    )
    task.tokens["train"] = [TASK.tokens["train"][i] for i in order]
    whole, moved = scored(make(name), query_block(TASK)), scored(make(name), query_block(TASK), task=task)
    np.testing.assert_allclose(moved, whole[:, order], rtol=1e-5, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("name", [name for name in JUDGED if make(name).needs])
def test_an_example_helps_itself(name):
    """A query that is a training example, under its own label: its influence on itself is not negative."""
    split, rows = TASK.splits["train"], np.arange(8)
    queries = QueryBlock("train", split.ids[rows], rows, split.labels[rows])
    assert (np.diag(scored(make(name), queries, 0, 8)) >= 0).all()


@pytest.mark.parametrize("name", [name for name in JUDGED if make(name).needs and make(name).follows_query_loss])
def test_scores_follow_the_label_asked_about(name):
    queries = query_block(TASK)
    other = replace(queries, labels=(queries.labels + 1) % 3)
    assert np.abs(scored(make(name), queries) - scored(make(name), other)).max() > 1e-5


@pytest.mark.parametrize("name", [name for name in NAMES if make(name).is_control])
def test_controls_are_never_scored(name):
    scorer = Scorer(TASK, [checkpoint(TASK)], query_block(TASK), {"c": make(name)}, {})
    assert scorer.score_range(0, 3) == {}


def test_configs_with_methods_are_checked_without_torch_or_pyarrow():
    """`refit plan` and errors about input answer fast because of this."""
    code = (
        "import sys; from influence.registry import METHODS; import influence.matrix, influence.ranking\n"
        "for name in METHODS.entries(): METHODS.load(name, 'test')\n"
        "print(sorted({'torch', 'pyarrow', 'ray', 'mlflow', 'transformers', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert found.stdout.strip() == "[]"


class BareModel(Model):
    """A model that names no layers."""

    name = "bare"

    def build(self):
        raise NotImplementedError


class Bare(Task):
    """A task that overrides no hook."""

    model, recipe, splits = BareModel(), None, TASK.splits

    def _absent(self, *arguments, **options):
        raise NotImplementedError

    train_identity = model_identity = record_identity = network = batch = outputs = _absent


@pytest.mark.parametrize("name", [name for name in JUDGED if make(name).needs - {"layers"} or name in OPTIONS])
def test_a_task_that_does_not_fit_is_refused_before_anything_starts(name):
    with pytest.raises(InputError, match=r"config.yaml: methods.0"):
        make(name).check(Bare(), Path(), "config.yaml: methods.0")
