"""Settings that differ in the recipe alone share their data: read, digested, tokenised and shipped once."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest

from orchestrator.experiment.checks import checked_experiment
from orchestrator.experiment.experiment import Experiment
from orchestrator.runtime.backend import WorkerContext
from orchestrator.runtime.worker import configure, retrain
from tasks.base import Numerics, Split
from tasks.data import readers
from tasks.data.edits import Edit
from tasks.models.text_cnn import TextCNN
from tests.orchestrator.small_grid import GRID, small_grid, write_texts

N_SETTINGS = 50


def grid_of(folder, n_settings, **changes):
    """The small grid with one arm of so many settings."""
    rates = [round(0.001 * (number + 1), 6) for number in range(n_settings)]
    block = {"arms": [{"name": "arm"}], "grid": {"recipe.learning_rate": rates}}
    return small_grid(folder, recipe_grid=block, **changes)


@pytest.fixture
def calls(monkeypatch) -> Counter:
    """How often data is read, a split digested and base weights are looked at or loaded."""
    counted: Counter = Counter()

    def count(owner, name):
        original = getattr(owner, name)

        def counting(*args, **kwargs):
            counted[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(Split, "content_digest")
    count(TextCNN, "identity_of_weights")
    count(TextCNN, "base_state")
    count(readers, "read_delimited")
    return counted


def test_data_is_read_and_digested_once_whatever_the_number_of_settings(tmp_path, calls):
    experiment = checked_experiment(grid_of(tmp_path, N_SETTINGS), None)
    assert len(experiment.arms) == N_SETTINGS
    ids = {arm.spec(Numerics(), Edit(), 1).spec_id for arm in experiment.arms.values()}
    assert len(ids) == N_SETTINGS
    assert len(set(experiment.task_ids.values())) == 1
    assert all(arm.task.splits["train"] is experiment.train for arm in experiment.arms.values())
    # three splits are read; the train set and three measured splits are digested
    assert calls == {"read_delimited": 3, "content_digest": 4, "identity_of_weights": 1}


def test_preparing_one_setting_prepares_all(tmp_path, calls):
    experiment = checked_experiment(grid_of(tmp_path, N_SETTINGS), None)
    first, *others = (arm.task for arm in experiment.arms.values())
    others[-1].prepare()
    assert all(task.tokeniser is first.tokeniser for task in others)
    for task in (first, *others):
        task.prepare()
    assert calls["base_state"] == 1


def test_a_worker_is_sent_the_data_once(tmp_path):
    write_texts(tmp_path, n_train=1500)
    sizes = {}
    for n_settings in (1, N_SETTINGS):
        config = grid_of(tmp_path / str(n_settings), n_settings, task=_read_from(tmp_path))
        sizes[n_settings] = len(pickle.dumps(_context(checked_experiment(config, None))))
    assert sizes[N_SETTINGS] < 1.2 * sizes[1]


def test_a_setting_sent_with_others_trains_as_it_does_alone(tmp_path):
    experiment = checked_experiment(grid_of(tmp_path, 3), None)
    context = pickle.loads(pickle.dumps(_context(experiment)))
    configure(context)
    for label, arm in experiment.arms.items():
        work = arm.work(context.numerics, Edit(), 7)
        together = retrain(context, work, "w")
        alone = checked_experiment(grid_of(tmp_path / label, 3), None).arms[label].task
        alone.prepare()
        apart = retrain(WorkerContext(alone, context.numerics), work, "w")
        assert together.outputs["test"].tobytes() == apart.outputs["test"].tobytes()


def _context(experiment: Experiment) -> WorkerContext:
    tasks = {label: arm.task for label, arm in experiment.arms.items()}
    for task in tasks.values():
        task.prepare()
    return WorkerContext(experiment.task, Numerics(), tasks=tasks)


def _read_from(folder):
    data = {split: {**block, "path": str(folder / f"{split}.csv")} for split, block in GRID["task"]["data"].items()}
    return {**GRID["task"], "data": data}
