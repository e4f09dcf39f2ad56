"""An opened config: seeds, queries, identities. None of it needs torch."""

from __future__ import annotations

import copy
import dataclasses
import shutil

import numpy as np
import pytest
import yaml

from orchestrator.config.load import load_config
from orchestrator.config.yaml_files import ConfigError
from orchestrator.experiment.checks import checked_experiment
from orchestrator.experiment.experiment import Experiment
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import options, small_config

N_MEASURED = 6
OUTPUTS = np.array([[9, 0], [0, 9], [0, 1], [1, 0], [9, 0], [0, 0.1]], np.float32)  # labels are 0 1 0 1 0 1


def experiment(folder, **changes) -> Experiment:
    return checked_experiment(small_config(folder, **changes), None)


def drawn(folder, outputs=None, **queries):
    return experiment(folder, queries={"split": "test", **queries}).queries(
        None if outputs is None else {"test": outputs}
    )


# --- seeds ---------------------------------------------------------------------------------------------------------


def test_seeds_follow_the_formula_and_more_repeats_keep_the_first(tmp_path):
    expected = [int(np.random.SeedSequence(7, spawn_key=(r,)).generate_state(1)[0]) for r in range(5)]
    assert list(experiment(tmp_path, repeats={"count": 5, "base_seed": 7}).seeds) == expected
    assert list(experiment(tmp_path, repeats={"count": 2, "base_seed": 7}).seeds) == expected[:2]


def test_literal_seeds_are_taken_literally(tmp_path):
    assert experiment(tmp_path, repeats={"seeds": [2021, 5, 0]}).seeds == (2021, 5, 0)


def test_scoring_seeds_are_apart_from_every_repeats(tmp_path):
    free = experiment(tmp_path, scores={"models": 4}, repeats={"seeds": [1]}).scoring_seeds
    assert len(set(free)) == 4
    assert experiment(tmp_path, scores={"models": 2}, repeats={"seeds": [1]}).scoring_seeds == free[:2]
    taken = experiment(tmp_path, scores={"models": 3}, repeats={"seeds": [free[0], 1, free[2]]})
    assert not set(taken.scoring_seeds) & set(taken.seeds)
    assert taken.scoring_seeds[:2] == (free[1], free[3])
    assert set(experiment(tmp_path, scores={"models": 4, "seed": 1}).scoring_seeds).isdisjoint(free)


# --- queries -------------------------------------------------------------------------------------------------------


def test_ids_are_the_queries_in_their_order(tmp_path):
    block = drawn(tmp_path, ids=[4, 0, 3])
    assert block.split == "test"
    assert block.ids.tolist() == block.rows.tolist() == [4, 0, 3]
    assert block.labels.tolist() == [0, 0, 1]


def test_count_is_a_draw_that_only_its_seed_changes(tmp_path):
    first = drawn(tmp_path, count=3)
    assert first.ids.tolist() == sorted(set(first.ids.tolist()))
    assert drawn(tmp_path, count=3).ids.tolist() == first.ids.tolist()
    assert len({tuple(drawn(tmp_path, count=3, seed=seed).ids.tolist()) for seed in range(8)}) > 3
    assert drawn(tmp_path, count=6).ids.tolist() == list(range(6))


def test_per_class_takes_as_many_of_each(tmp_path):
    block = drawn(tmp_path, per_class=2)
    assert np.bincount(block.labels).tolist() == [2, 2]
    assert len(set(block.ids.tolist())) == 4


def test_queries_are_drawn_from_measured_rows_only(tmp_path):
    changes = {"task.measure": [{"split": "test", "limit": 4}]}
    found = experiment(tmp_path, **changes, queries={"split": "test", "count": 4})
    assert found.task.measured["test"].tolist() == [0, 1, 2, 3]
    assert found.queries(None).ids.tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"queries\.ids: 5 is not measured"):
        experiment(tmp_path, **changes, queries={"split": "test", "ids": [0, 5]})
    with pytest.raises(InputError, match=r"queries\.count: only 4 measured points fit; the config asks for 5"):
        experiment(tmp_path, **changes, queries={"split": "test", "count": 5})
    with pytest.raises(InputError, match=r"queries\.per_class: class 'class0' has 2"):
        experiment(tmp_path, **changes, queries={"split": "test", "per_class": 3})


def test_train_points_may_be_queries_by_their_ids(tmp_path):
    found = experiment(tmp_path, task__measure=[{"split": "train"}], queries={"split": "train", "ids": [1007, 1003]})
    block = found.queries(None)
    assert block.rows.tolist() == [7, 3], "ids are never positions"
    assert block.labels.tolist() == found.train.labels[[7, 3]].tolist()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"correct": True}, [0, 1, 4, 5]),
        ({"correct": False}, [2, 3]),
        ({"probability": [0.2, 0.6]}, [2, 3, 5]),  # gold probabilities 1 1 .27 .27 1 .52
        ({"probability": [0.5, 1.0]}, [0, 1, 4, 5]),
        ({"label": "class1"}, [1, 3, 5]),
        ({"label": "class1", "correct": True, "probability": [0.0, 0.6]}, [5]),
    ],
)
def test_where_is_judged_by_the_scoring_models_outputs(tmp_path, where, expected):
    assert drawn(tmp_path, OUTPUTS, where=where).ids.tolist() == expected
    some = drawn(tmp_path, OUTPUTS, where=where, count=1).ids
    assert set(some.tolist()) <= set(expected)


def test_where_needs_outputs_and_enough_points(tmp_path):
    assert experiment(tmp_path, queries={"split": "test", "where": {"correct": True}}).needs_scoring_outputs
    assert not experiment(tmp_path).needs_scoring_outputs
    with pytest.raises(ValueError, match="outputs"):
        drawn(tmp_path, where={"correct": True})
    with pytest.raises(InputError, match="only 2 measured points fit; the config asks for 3"):
        drawn(tmp_path, OUTPUTS, where={"correct": False}, count=3)
    with pytest.raises(InputError, match="has 1 measured points that fit"):
        drawn(tmp_path, OUTPUTS, where={"correct": False}, per_class=2)
    with pytest.raises(InputError, match="only 0 measured points fit"):
        drawn(tmp_path, OUTPUTS, where={"probability": [0.0, 0.01]})


@pytest.mark.parametrize(
    "queries",
    [
        {"where": {"label": "klass"}},
        {"where": {"correct": True}, "count": 7},
        {"where": {"correct": True}, "per_class": 4},
    ],
    ids=["an unknown label", "more than are measured", "more of a class than are measured"],
)
def test_a_where_that_can_never_be_met_is_refused_before_anything_is_trained(tmp_path, queries):
    with pytest.raises(InputError, match=r"config.yaml: queries"):
        experiment(tmp_path, queries={"split": "test", **queries})


def test_a_measurement_of_the_predicted_label_explains_that_label(tmp_path):
    changes = {"measurement": "predicted_probability", "queries": {"split": "test", "ids": [5, 2, 0, 3]}}
    found = experiment(tmp_path, **changes)
    assert found.needs_scoring_outputs
    assert found.queries({"test": OUTPUTS}).labels.tolist() == [1, 1, 0, 0]
    with pytest.raises(ValueError, match="outputs"):
        found.queries(None)
    changes["measurement"] = "loss"
    assert experiment(tmp_path, **changes).queries(None).labels.tolist() == [1, 0, 0, 1]


# --- identity ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base_hex(tmp_path_factory) -> str:
    return experiment(tmp_path_factory.mktemp("base")).run_hex


@pytest.mark.parametrize(
    "change",
    [
        {"task.seed": 1},
        {"task.model.filters": 3},
        {"task.recipe.learning_rate": 0.03},
        {"task.measure": [{"split": "test"}, {"split": "train"}]},
        {"queries.count": 2},
        {"queries.seed": 1},
        {"measurement": "loss"},
        {"scores.models": 2},
        {"scores.checkpoints": [2]},
        {"methods": [{"name": "tracin_last"}, {"name": "random"}]},
        {"methods": [{"name": "tracin_last"}, {"name": "tracin_last", "as": "with_bias"}, {"name": "random"}]},
        {"methods": [{"name": "tracin_last", "as": "a"}, {"name": "tracin_last", "as": "b"}, {"name": "random"}]},
        {"deletion.k": [2]},
        {"deletion.groups": ["proponents"]},
        {"deletion.mode": "drop"},
        {"repeats.base_seed": 1},
        {"repeats.count": 3},
    ],
    ids=lambda change: "-".join(change),
)
def test_what_is_asked_changes_the_run(tmp_path, base_hex, change):
    assert experiment(tmp_path, **change).run_hex != base_hex


@pytest.mark.parametrize(
    "change",
    [
        {"compute": {"workers": 7, "retries": 0, "timeout_s": 3.0}},
        {"tracking": {"uri": "sqlite:///elsewhere.db"}},
        {"output": "elsewhere"},
        {"name": "another"},
        {"plugins": ["json"]},
        {"deletion.mode": "mask"},
        {"measurement": {"name": "gold_probability"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_how_and_where_it_runs_does_not(tmp_path, monkeypatch, base_hex, change):
    monkeypatch.chdir(tmp_path)
    assert experiment(tmp_path, **change).run_hex == base_hex


def test_neither_does_the_order_of_keys_nor_how_seeds_are_written(tmp_path, base_hex):
    def backwards(value):
        return {k: backwards(value[k]) for k in reversed(list(value))} if isinstance(value, dict) else value

    path = tmp_path / "backwards.yaml"
    path.write_text(yaml.safe_dump(backwards(options()), sort_keys=False))
    assert path.read_text().startswith("output")
    assert checked_experiment(load_config(path), None).run_hex == base_hex
    seeds = [int(np.random.SeedSequence(2021, spawn_key=(r,)).generate_state(1)[0]) for r in range(2)]
    assert experiment(tmp_path, repeats={"seeds": seeds}).run_hex == base_hex


def files_config(folder, scores_name="scores.npz"):
    """A config that reads its data and one method's scores from files beside it."""
    folder.mkdir()
    rows = "text,label\n" + "".join(f"words number {i},{'yes' if i % 2 else 'no'}\n" for i in range(12))
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text(rows)
    np.savez(
        folder / scores_name, scores=np.arange(144.0).reshape(12, 12), query_ids=np.arange(12), train_ids=range(12)
    )
    split = {"format": "csv", "text": "text", "label": "label"}
    raw = copy.deepcopy(options())
    raw["task"] = {
        "name": "text_classification",
        "data": {"train": {"path": "train.csv", **split}, "test": {"path": "test.csv", **split}},
        "model": raw["task"]["model"],
        "recipe": raw["task"]["recipe"],
        "measure": [{"split": "test"}],
    }
    raw["methods"] = [
        {"name": "scores_file", "path": scores_name, "axes": "query_train", "orientation": "helpful_positive"},
        {"name": "random"},
    ]
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    return folder


def open_files(folder) -> Experiment:
    return checked_experiment(load_config(folder / "config.yaml"), None)


def test_data_that_moves_is_the_same_data_and_data_that_changes_is_not(tmp_path):
    here = files_config(tmp_path / "here")
    there = shutil.move(here, tmp_path / "there")
    other_names = files_config(tmp_path / "names", "renamed.npz")
    again = files_config(tmp_path / "again")
    hexes = {open_files(folder).run_hex for folder in (there, other_names, again)}
    assert len(hexes) == 1, "a path is in the run's identity"
    np.savez(again / "scores.npz", scores=np.ones((12, 12)), query_ids=np.arange(12), train_ids=range(12))
    assert open_files(again).run_hex not in hexes
    (there / "train.csv").write_text((there / "train.csv").read_text().replace("number 7", "number seven"))
    assert open_files(there).run_hex not in hexes


def test_a_retrain_is_what_is_trained_not_why(tmp_path):
    numerics, edit = Numerics(), Edit.removal([1003, 1001])
    one = experiment(tmp_path)
    other = experiment(
        tmp_path,
        methods=[{"name": "tfidf"}],
        queries={"split": "test", "count": 1},
        deletion={"k": [3]},
        measurement="loss",
    )
    assert one.spec(numerics, edit, 5).spec_id == other.spec(numerics, edit, 5).spec_id
    assert one.task_id == other.task_id
    changed = experiment(tmp_path, task__recipe__epochs=3)
    assert changed.spec(numerics, edit, 5).spec_id != one.spec(numerics, edit, 5).spec_id
    threads = dataclasses.replace(numerics, threads=2)
    assert one.spec(threads, edit, 5).spec_id != one.spec(numerics, edit, 5).spec_id


def test_scoring_models_keep_the_weights_of_the_asked_epochs(tmp_path):
    found = experiment(tmp_path, scores={"models": 2, "checkpoints": [2, 0.5]}).scoring_works(Numerics())
    assert [s.work.keep_steps for s in found] == [(2, 8), (2, 8)]  # 4 batches of 10 an epoch
    assert [dict(s.learning_rates) for s in found] == [{2: 0.05, 8: 0.05}] * 2
    assert all(s.work.edit.is_empty for s in found)
    last = experiment(tmp_path, scores={"models": 1}).scoring_works(Numerics())
    assert last[0].work.keep_steps == (8,), "by default the weights of the last epoch"
    assert last[0].work.spec_id == found[0].work.spec_id, "what is kept is no part of a retrain's identity"


def test_checkpoint_0_is_step_0_with_the_learning_rate_of_the_first_update(tmp_path):
    recipe = {"name": "finetune", "epochs": 2, "batch_size": 10, "learning_rate": 0.08, "warmup_frac": 0.5}
    [found] = experiment(tmp_path, scores={"checkpoints": [0, 1, 2]}, task__recipe=recipe).scoring_works(Numerics())
    assert found.work.keep_steps == (0, 4, 8)
    assert dict(found.learning_rates) == pytest.approx({0: 0.02, 4: 0.08, 8: 0.08})
    [alone] = experiment(tmp_path, scores={"checkpoints": [0]}).scoring_works(Numerics())
    assert (alone.work.keep_steps, dict(alone.learning_rates)) == ((0,), {0: 0.05})


def test_a_measurement_of_classes_needs_classes_and_one_of_the_output_must_have_none(tmp_path):
    with pytest.raises(ConfigError, match=r"measurement: 'output' needs one number per row"):
        experiment(tmp_path, measurement="output")
