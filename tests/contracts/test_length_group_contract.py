"""What every recipe that splits its batches must do when rows are grouped by length (`compute.length_group_cost`)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from recipe_tasks import CLASSES, REGISTERED, TASKS, plain_task, small, small_bert

from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import GivenBack, InputError
from tasks.hooks import overrides
from tasks.length_groups import check_length_groups
from tasks.models.encoder import Encoder
from tasks.recipe import Recipe, Training
from tests.fakes import tiny_bert
from tests.gaussian_fakes import mixture_task

COST = 2  # tokens; rows of the tasks have 3 to 11, so that most batches are cut
GROUPS, WHOLE = Numerics(length_group_cost=COST), Numerics()
CUTS = [name for name, cls in sorted(CLASSES.items()) if not cls.whole_batches]
KINDS = list(TASKS["text"])


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return small_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def still_bert(tmp_path_factory):
    """An encoder without dropout: masks are drawn for one group after the other, so with dropout they are others."""
    folder = tmp_path_factory.mktemp("still")
    model = Encoder(pretrained=str(tiny_bert(folder)), max_length=64, num_layers=1, dropout=0.0)
    return model, model.base_state(folder)


@pytest.fixture(
    scope="module",
    params=[(name, kind) for name in CUTS for kind in KINDS if name == "finetune" or kind == KINDS[0]],
    ids=lambda param: "-".join(param),
)
def task(request, bert):
    name, kind = request.param
    return TASKS["text"][kind](small(CLASSES[name]), bert)


def train(task: Any, edit=None, numerics=GROUPS, **watching):
    return task.recipe.train(task, Training(edit=edit or Edit(), seed=7, numerics=numerics, **watching))


def bits(task: Any, edit=None, **watching) -> bytes:
    """Outputs on the measured split and every weight, as bytes."""
    network = train(task, edit, **watching).network
    ((split, rows),) = task.measured.items()
    outputs = task.with_length_groups(COST).outputs(network, split, rows)
    return outputs.tobytes() + b"".join(weight.numpy().tobytes() for weight in network.state_dict().values())


def removal(task: Any, mode: str) -> Edit:
    return Edit.removal(task.splits["train"].ids[:4], mode)


def count_rows(task: Any) -> list[int]:
    """Return a list that gets the number of rows of every batch that the task makes."""
    sizes, make = [], task.batch

    def batch(split, rows, **options):
        sizes.append(len(rows))
        return make(split, rows, **options)

    object.__setattr__(task, "batch", batch)
    return sizes


@pytest.mark.parametrize("mode", ["mask", "drop"])
def test_content_labels_and_lengths_of_removed_rows_change_no_bit(task, mode):
    edit = removal(task, mode)
    assert bits(task.with_noise_in(np.array(edit.ids)), edit) == bits(task, edit)


def test_same_arguments_give_the_same_bits_and_other_bits_than_whole_batches(task):
    assert bits(task) == bits(task) != bits(task, numerics=WHOLE)


@pytest.mark.parametrize("mode", ["mask", "drop"])
@pytest.mark.parametrize("micro_batch", [0, 2])
@pytest.mark.parametrize(
    ("name", "kind"), [*((name, KINDS[0]) for name in CUTS), *(("finetune", k) for k in KINDS[1:])]
)
def test_groups_give_the_weights_of_whole_batches_up_to_rounding(name, kind, micro_batch, mode, still_bert):
    task = TASKS["text"][kind](small(CLASSES[name]), still_bert)
    grouped = replace(GROUPS, dtype="float64", micro_batch=micro_batch)
    whole = train(task, removal(task, mode), Numerics(dtype="float64"))
    sizes = count_rows(task)
    parts = train(task, removal(task, mode), grouped)
    assert len(sizes) > 2 * whole.metrics["n_steps"], "most batches are cut"
    for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert parts.metrics == pytest.approx(whole.metrics, abs=1e-12)


def test_a_group_has_at_most_as_many_rows_as_a_micro_batch(bert):
    task = TASKS["text"][KINDS[-1]](small(CLASSES["finetune"]), bert)
    sizes = count_rows(task)
    train(task, removal(task, "mask"), replace(GROUPS, length_group_cost=1000, micro_batch=2))
    assert max(sizes) == 2


class StopsOnce:
    """Takes one snapshot after the update `at`, stops there, and resumes from it."""

    def __init__(self, at: int):
        self.at, self.taken = at, None

    def resume(self):
        return self.taken

    def passed(self, step, snapshot):
        if step == self.at and self.taken is None:
            self.taken = snapshot()
            raise GivenBack("stop")


@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_resumed_training_has_the_bits_of_one_that_never_stopped(task, at):
    edit, stops = removal(task, "mask"), StopsOnce(at)
    with pytest.raises(GivenBack):
        bits(task, edit, snapshots=stops)
    assert bits(task, edit, snapshots=stops) == bits(task, edit)


@pytest.mark.parametrize("name", [name for name, cls in sorted(CLASSES.items()) if cls.whole_batches])
def test_a_recipe_that_takes_its_batches_whole_refuses_length_groups(name):
    task = plain_task(small(CLASSES[name]))
    refused = rf"^compute.length_group_cost: 2: recipe '{name}' cannot split its batches; allowed: 0$"
    with pytest.raises(InputError, match=refused):
        train(task)
    if overrides(task.recipe, Recipe.train_each):
        training = Training(edit=Edit.each_left_out(task.splits["train"].ids[:4]), seed=7, numerics=GROUPS)
        with pytest.raises(InputError, match=refused):
            task.recipe.train_each(task, training)


def test_a_task_without_texts_refuses_length_groups():
    task = mixture_task(small(REGISTERED["finetune"]), n_train=9, measured=("means",))
    refused = r"^compute.length_group_cost: 2: the examples of this task \(\w+\) have no lengths by which to group them"
    with pytest.raises(InputError, match=refused):
        train(task)
    check_length_groups(task.recipe, task, 0)
