"""What every task promises, run over the registry: a new line there needs one small example in task_examples.py, and no test."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from task_examples import EXAMPLES, write_files

import influence.registry  # noqa: F401  (registers the recipes of the higher room)
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.hooks import overrides
from tasks.registry import TASKS
from tasks.task import OpenRequest, Task, TaskConfig

NAMES = sorted(TASKS.entries())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("examples")
    write_files(path)
    return path


def open_task(name, folder) -> Task:
    config = parse_named(TASKS, {"name": name, **EXAMPLES[name]}, "c.yaml", "task")
    return config.open(OpenRequest(folder, folder / "cache", "c.yaml"))


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def task(name, folder):
    task = open_task(name, folder)
    task.prepare()
    return task


@pytest.fixture(scope="module")
def network(task):
    return task.network(3).eval()


def identities(task) -> str:
    return json.dumps([task.train_identity(), task.model_identity(), task.record_identity()], sort_keys=True)


def bytes_of(batch) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in batch.items()}


def test_a_task_derives_from_the_base_classes(name, task):
    assert issubclass(TASKS.load(name, "test"), TaskConfig)
    assert isinstance(task, Task)


def test_identities_are_plain_json_and_the_same_whenever_they_are_asked_for(name, task, folder):
    fresh = open_task(name, folder)
    before = identities(fresh)
    assert before == identities(task), "one is prepared, the other is not"
    fresh.prepare()
    assert identities(fresh) == before
    assert identities(pickle.loads(pickle.dumps(fresh))) == before


def test_opening_and_identities_need_no_torch(name, folder):
    code = (
        "import sys, json; from pathlib import Path; import influence.registry\n"
        "from tasks.components import parse_named; from tasks.registry import TASKS; from tasks.task import OpenRequest\n"
        "task = parse_named(TASKS, json.loads(sys.argv[1]), 'c.yaml', 'task').open(OpenRequest(Path(sys.argv[2])))\n"
        "found = [task.train_identity(), task.model_identity(), task.record_identity()]\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)), json.dumps(found, sort_keys=True))"
    )
    command = [sys.executable, "-c", code, json.dumps({"name": name, **EXAMPLES[name]}), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == f"[] {identities(open_task(name, folder))}"


def test_preparing_twice_is_preparing_once_and_a_prepared_task_can_be_pickled(task):
    rows, before = np.arange(3), bytes_of(task.batch("train", np.arange(3)))
    task.prepare()
    assert bytes_of(task.batch("train", rows)) == before
    sent = pickle.loads(pickle.dumps(task))
    sent.prepare()
    assert bytes_of(sent.batch("train", rows)) == before
    for one, other in zip(task.network(5).state_dict().values(), sent.network(5).state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_network_is_decided_by_its_seed(task):
    first, again, other = (task.network(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_blank_row_shows_nothing_of_its_content(task, network):
    """Two batches that differ in their blank row alone are equal."""
    first, second = (
        task.batch("train", np.array([0, row]), blank=np.array([False, True]))
        for row in (1, len(task.splits["train"]) - 1)
    )
    assert bytes_of(first) == bytes_of(second)
    assert first["labels"][1] == 0
    shown = task.batch("train", np.array([0, 1]))
    assert bytes_of(shown) != bytes_of(first)


@pytest.mark.parametrize("by", ["pad", "unknown"])
def test_a_replaced_word_shows_nothing_and_the_rest_of_the_batch_stays(task, by):
    """The replaced token may be any: a second replacement at the same positions finds nothing of it."""
    train_id, rows = int(task.splits["train"].ids[1]), np.arange(3)
    assert task.with_replaced(Edit.removal([train_id])) is task
    edit = Edit.replacement({train_id: [1]}, by)
    if not overrides(task, Task.with_replaced):
        with pytest.raises(ValueError, match="no words that an edit can replace"):
            task.with_replaced(edit)
        return
    other = task.with_replaced(Edit.replacement({train_id: [1]}, "unknown"))
    before, after = (bytes_of(one.with_replaced(edit).batch("train", rows)) for one in (task, other))
    assert before == after
    batch, plain = task.with_replaced(edit).batch("train", rows), task.batch("train", rows)
    changed = {name: (batch[name] != plain[name]).nonzero().tolist() for name in plain}
    assert changed.pop("input_ids") == [[1, 1]]
    assert all(places in ([], [[1, 1]]) for places in changed.values())
    assert bytes_of(task.with_replaced(edit).batch("train", rows, blank=rows == 1)) == bytes_of(
        task.batch("train", rows, blank=rows == 1)
    )


def test_every_measured_row_is_a_row_of_its_split(task):
    assert task.measured
    for split, rows in task.measured.items():
        assert len(rows)
        assert len(np.unique(rows)) == len(rows)
        assert set(rows.tolist()) <= set(range(len(task.splits[split])))


def test_splits_have_distinct_ids_and_labels_of_their_classes(task):
    assert "train" in task.splits
    for split in task.splits.values():
        assert len(np.unique(split.ids)) == len(split) == len(split.labels)
        assert ((split.labels >= 0) & (split.labels < len(split.classes))).all()


def test_outputs_are_float32_with_a_row_each_and_the_same_for_any_rows(task, network):
    for split, rows in task.measured.items():
        whole = task.outputs(network, split, rows)
        assert whole.dtype == np.float32
        assert whole.ndim == 2
        assert len(whole) == len(rows)
        assert np.isfinite(whole).all()
        np.testing.assert_allclose(task.outputs(network, split, rows[::-1]), whole[::-1], rtol=1e-5, atol=1e-6)


def test_outputs_of_a_classifier_are_its_logits(task, network):
    of_classes = {split: rows for split, rows in task.measured.items() if len(task.splits[split].classes) > 1}
    for split, rows in of_classes.items():
        logits = task.logits(network, task.batch(split, rows)).detach().numpy()
        assert logits.shape == (len(rows), len(task.splits[split].classes))
        np.testing.assert_allclose(task.outputs(network, split, rows), logits, rtol=1e-5, atol=1e-6)


def test_there_is_a_finite_loss_for_every_row_that_has_one(task, network):
    for split in task.splits_with_losses if task.splits_with_losses is not None else task.splits:
        rows = np.arange(min(4, len(task.splits[split])))
        losses = task.losses(network, task.batch(split, rows))
        assert losses.shape == (len(rows),)
        assert losses.requires_grad
        assert bool(losses.isfinite().all())


def test_splits_that_are_named_exist(task):
    for named in (task.splits_with_losses, task.splits_with_query_losses):
        assert named is None or (named and named <= task.splits.keys())
    parameters = {key for key, _ in task.network(0).named_parameters()}
    assert task.independent_rows <= parameters


def test_query_losses_have_the_shape_of_the_default(task, network):
    """The default is -log p(label) of the logits: [n], differentiable."""
    allowed = task.splits_with_query_losses
    for split in [split for split in task.measured if allowed is None or split in allowed]:
        rows = task.measured[split][:2]
        labels = task.splits[split].labels[rows]
        if overrides(task, Task.query_losses):
            losses = task.query_losses(network, split, rows, labels)
        else:
            logits = task.logits(network, task.batch(split, rows))
            losses = torch.nn.functional.cross_entropy(logits, torch.as_tensor(labels), reduction="none")
        assert losses.shape == (len(rows),)
        assert losses.requires_grad


def test_query_labels_have_the_shape_of_the_split_s_own(task, network):
    if overrides(task, Task.query_labels):
        outputs = {split: task.outputs(network, split, rows) for split, rows in task.measured.items()}
        for split, rows in task.measured.items():
            labels = task.query_labels(split, rows, outputs)
            assert labels.dtype == np.int64
            assert labels.shape == task.splits[split].labels[rows].shape


def test_a_penalty_is_a_number_or_none(task, network):
    penalty = task.penalty(network)
    assert penalty is None or (penalty.shape == () and penalty.requires_grad)


def test_parameters_chosen_for_queries_are_in_the_network_and_their_closed_forms_have_its_shapes(task, network):
    parameters = dict(network.named_parameters())
    allowed = task.splits_with_query_losses
    for split in [split for split in task.measured if allowed is None or split in allowed]:
        chosen = task.influence_parameters(split, task.measured[split][:1]) or {}
        assert chosen.keys() <= parameters.keys()
        for name, rows in chosen.items():
            if rows is None:
                continue
            n_train, size = len(task.splits["train"]), parameters[name][0].numel()
            touching = task.rows_touching(name, rows)
            assert touching is None or set(touching.tolist()) <= set(range(n_train))
            hessians = task.row_hessians(network, name, rows)
            assert hessians is None or hessians.shape == (len(rows), size, size)
            vectors = torch.ones(2, len(rows), size)
            derivatives = task.row_derivatives(network, name, rows, vectors, np.arange(3))
            assert derivatives is None or derivatives.shape == (2, 3)


def test_tokens_of_a_text_stand_in_the_text(task):
    if overrides(task, Task.token_spans):
        text, spans = task.splits["train"].texts[0], task.token_spans("train", 0)
        shown = [(start, end) for start, end, token in spans if token not in task.special_ids]
        assert shown
        assert all(0 <= start < end <= len(text) for start, end in shown)
        assert task.token_counts("train").shape[0] == len(task.splits["train"])
        assert all(task.token_text(token) for *_, token in spans)


def test_a_task_trained_by_another_recipe_shares_the_data(name, task, folder):
    other = task.with_recipe(EXAMPLES[name]["recipe"], OpenRequest(folder, None, "c.yaml").at("recipe"))
    assert other is None or (isinstance(other, Task) and other.splits is task.splits and other is not task)
