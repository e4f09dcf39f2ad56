"""The planted truth: what decides a query is known, and training agrees."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tasks.base import Numerics
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.measurements import GoldProbability
from tasks.recipe import Training
from tasks.registry import TASKS
from tasks.task import OpenRequest

OPTIONS = {
    "name": "planted",
    "model": {"name": "text_cnn", "embedding_dim": 16, "filters": 16, "kernel": 1, "max_length": 16},
    "recipe": {"name": "finetune", "epochs": 8, "batch_size": 32, "learning_rate": 0.01},
}


def open_task(**options):
    return parse_named(TASKS, {**OPTIONS, **options}, "c.yaml", "task").open(OpenRequest(Path(), where="c.yaml"))


@pytest.fixture(scope="module")
def task():
    task = open_task()
    task.prepare()
    return task


def test_keys_of_a_query_occur_in_its_deciders_and_nowhere_else(task):
    train, test = task.splits["train"], task.splits["test"]
    words = [set(text.split()) for text in train.texts]
    for query, text, label in zip(test.ids.tolist(), test.texts, test.labels, strict=True):
        deciders = train.rows_of(task.deciders[query])
        assert len(deciders) == 20
        assert (train.labels[deciders] == label).all()
        keys = set(text.split()) & set.intersection(*(words[row] for row in deciders))
        assert len(keys) == 3
        others = np.setdiff1d(np.arange(len(train)), deciders)
        assert not any(keys & words[row] for row in others)


def test_every_other_word_of_a_query_is_used_by_every_class(task):
    train, test = task.splits["train"], task.splits["test"]
    used = [
        set(" ".join(t for t, label in zip(train.texts, train.labels, strict=True) if label == c).split())
        for c in (0, 1)
    ]
    keys = [word for text in test.texts for word in text.split() if (word in used[0]) != (word in used[1])]
    assert len(keys) == 3 * len(test)


def test_ids_are_not_positions_and_classes_are_balanced(task):
    train, test = task.splits["train"], task.splits["test"]
    assert len(train) == 600
    assert train.ids.min() >= len(train)
    assert np.bincount(train.labels).tolist() == [300, 300]
    assert np.bincount(test.labels).tolist() == [4, 4]
    deciders = np.concatenate(list(task.deciders.values()))
    assert len(np.unique(deciders)) == 160
    assert np.ptp(train.rows_of(deciders)) > 500, "deciders are scattered over the train set"


def test_same_options_same_text_other_seed_other_text(task):
    assert open_task().train_identity() == task.train_identity()
    assert open_task(seed=1).train_identity() != task.train_identity()


def test_oracle_marks_the_deciders(task):
    scores, query_ids, train_ids = task.named_scores("oracle")
    assert (scores.dtype, scores.shape) == (np.float32, (8, 600))
    for row, query in zip(scores, query_ids.tolist(), strict=True):
        assert sorted(train_ids[row == 1]) == sorted(task.deciders[query])
    assert (task.oracle([3, 1]) == scores[[3, 1]]).all()


def test_shuffled_oracle_has_the_same_ones_elsewhere(task):
    scores, query_ids, train_ids = task.named_scores("shuffled-3")
    oracle = task.named_scores("oracle")[0]
    assert scores.sum(1).tolist() == [20] * 8
    assert (scores * oracle).sum(1).max() <= 5
    assert len({row.tobytes() for row in scores}) == 8
    assert (task.named_scores("shuffled-3")[0] == scores).all()
    assert (task.named_scores("shuffled-4")[0] != scores).any()
    assert (query_ids.tolist(), train_ids.tolist()) == (
        task.splits["test"].ids.tolist(),
        task.splits["train"].ids.tolist(),
    )


@pytest.mark.parametrize("name", ["", "oracle-1", "shuffled", "shuffled-", "shuffled--1", "shuffled-x", "shuffled-1.5"])
def test_other_scores_are_refused(task, name):
    with pytest.raises(ValueError, match="is not one of: oracle, shuffled-<seed>"):
        task.named_scores(name)


def probabilities(task, edit):
    trained = task.recipe.train(task, Training(edit=edit, seed=11, numerics=Numerics()))
    return GoldProbability().value(
        task.outputs(trained.network, "test", task.measured["test"]), task.splits["test"].labels
    )


def test_removing_deciders_makes_the_prediction_chance_and_other_rows_do_not_matter(task):
    reference = probabilities(task, Edit())
    assert reference.min() > 0.95
    everyone = np.concatenate(list(task.deciders.values()))
    without = probabilities(task, Edit.removal(everyone))
    assert abs(without.mean() - 0.5) < 0.15
    alone = [probabilities(task, Edit.removal(task.deciders[query]))[query] for query in (0, 1)]
    assert max(alone) < 0.85
    others = np.setdiff1d(task.splits["train"].ids, everyone)
    bystanders = np.random.default_rng(0).choice(others, 50, replace=False)
    assert probabilities(task, Edit.removal(bystanders)).min() > 0.9


def test_planted_task_survives_pickling(task):
    copy = pickle.loads(pickle.dumps(task))
    assert copy.train_identity() == task.train_identity()
    assert (copy.named_scores("oracle")[0] == task.named_scores("oracle")[0]).all()


def test_more_classes_and_a_measured_train_set():
    task = open_task(
        n_train=200, n_queries=6, n_classes=3, measure=[{"split": "test"}, {"split": "train", "limit": 10}]
    )
    assert task.classes == ("class0", "class1", "class2")
    assert {name: len(rows) for name, rows in task.measured.items()} == {"test": 6, "train": 10}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_train": 160}, "c.yaml: task: "),
        ({"keys": 12}, "leave no neutral word"),
        ({"n_train": 1_000_000, "n_queries": 100_000, "deciders": 1, "keys": 11}, "different words"),
        ({"deciders": 0}, "c.yaml: task.deciders: 0: "),
        ({"decider": 3}, "c.yaml: task.decider: unknown key 'decider'; allowed: deciders, keys, "),
        ({"measure": [{"split": "dev"}]}, "c.yaml: task.measure.0.split: no split 'dev'; splits: train, test"),
        ({"model": {"name": "text_cnn", "filters": "10"}}, "c.yaml: task.model.filters: '10': "),
    ],
)
def test_bad_options_are_named(change, says):
    with pytest.raises(InputError) as caught:
        open_task(**change)
    assert says in str(caught.value)
