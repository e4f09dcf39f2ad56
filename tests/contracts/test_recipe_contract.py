"""What every registered recipe must do, on the kind of task it fits, in both modes of removal."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from recipe_tasks import CLASSES, N_TRAIN, REGISTERED, TASKS, plain_task, small, small_bert

from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.hooks import overrides
from tasks.recipe import Recipe, Training
from tasks.training import check_micro_batch
from tests.edits import reweighting

NUMERICS = Numerics()


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return small_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(
    scope="module",
    params=[(name, kind) for name, cls in CLASSES.items() for kind in TASKS[cls.fits]],
    ids=lambda param: "-".join(param),
)
def task(request, bert):
    name, kind = request.param
    return TASKS[CLASSES[name].fits][kind](small(CLASSES[name]), bert)


@pytest.fixture(params=["mask", "drop"])
def mode(request):
    return request.param


@dataclass
class Unwatched:
    """The trainings of one task that many tests compare with; each is made once, which the first test of this file permits."""

    task: Any

    @cached_property
    def _reference(self) -> Any:
        return train(self.task)

    @property
    def n_steps(self) -> int:
        return int(self._reference.metrics["n_steps"])

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return self._reference.network.state_dict()

    @cached_property
    def reference(self) -> bytes:
        return bits_of(self.task, self._reference.network)

    @cached_property
    def other_seed(self) -> bytes:
        return bits(self.task, seed=8)

    @cached_property
    def _removals(self) -> dict[str, bytes]:
        return {mode: bits(self.task, Edit.removal(some_ids(self.task), mode)) for mode in ("mask", "drop")}

    def removal(self, mode: str) -> bytes:
        return self._removals[mode]

    @cached_property
    def words(self) -> dict[int, list[int]]:
        """TrainId -> the positions of its first word, with all occurrences, in six training examples."""
        train = self.task.splits["train"]
        rows = {int(i): self.task.tokens["train"][int(train.rows_of([int(i)])[0])] for i in train.ids[:6]}
        return {i: np.flatnonzero(row == row[1]).tolist() for i, row in rows.items()}

    @cached_property
    def with_other_words(self) -> Any:
        """The task with other words at the positions `words`."""
        return with_others_at(self.task, tuple((i, tuple(at)) for i, at in self.words.items()))

    @cached_property
    def other_words(self) -> bytes:
        return bits(self.with_other_words)

    @cached_property
    def without_examples_of_words(self) -> bytes:
        return bits(self.task, Edit.removal(list(self.words)))


@pytest.fixture(scope="module")
def unwatched(task):
    return Unwatched(task)


def train(task: Any, edit=None, seed=7, numerics=NUMERICS, **watching):
    return task.recipe.train(task, Training(edit=edit or Edit(), seed=seed, numerics=numerics, **watching))


def bits(task: Any, edit=None, seed=7, **watching) -> bytes:
    """Train, and return the outputs on the measured split and every weight, as bytes."""
    return bits_of(task, train(task, edit, seed, **watching).network)


def bits_of(task: Any, network: Any) -> bytes:
    ((split, rows),) = task.measured.items()
    outputs = task.outputs(network, split, rows)
    assert np.isfinite(outputs).all()
    return outputs.tobytes() + b"".join(weight.numpy().tobytes() for weight in network.state_dict().values())


def some_ids(task: Any, n=4):
    return task.splits["train"].ids[:n]


@dataclass
class Nosy:
    """An observer that does everything an observer might: draws random numbers, evaluates, takes gradients."""

    task: Any
    name: str = "nosy"
    steps: list = field(default_factory=list)

    def begin(self, n_steps):
        pass

    def at(self, step, network):
        self.steps.append(step)
        torch.rand(3)
        network.eval()
        self.task.losses(network, self.task.batch("train", np.arange(3))).sum().backward()
        return (
            {"sum": sum(weight.detach().double().sum().numpy() for weight in network.parameters())}
            if step % 5 == 0
            else {}
        )


def test_same_arguments_give_the_same_bits(task, unwatched, mode):
    first = unwatched.removal(mode)
    assert unwatched.other_seed != first  # a training in between
    torch.manual_seed(99)
    assert bits(task, Edit.removal(some_ids(task), mode)) == first


def test_another_seed_gives_other_bits(unwatched):
    assert unwatched.other_seed != unwatched.reference


def test_content_labels_and_confounds_of_removed_rows_change_no_bit(task, unwatched, mode):
    noisy = task.with_noise_in(some_ids(task))
    assert bits(noisy, Edit.removal(some_ids(task), mode)) == unwatched.removal(mode)


def test_content_of_rows_that_are_not_removed_matters(task, unwatched):
    assert bits(task.with_noise_in(some_ids(task))) != unwatched.reference


def test_removing_rows_changes_the_result(unwatched, mode):
    assert unwatched.removal(mode) != unwatched.reference


def with_others_at(task: Any, places: Any) -> Any:
    """The task with another word at each of `places`, (TrainId, positions)."""
    return task.with_tokens_at(places, lambda tokens: 4 + (tokens - 3) % (task.vocabulary_size - 4))


@pytest.mark.parametrize("by", ["pad", "unknown"])
def test_a_replaced_word_changes_no_bit_and_the_other_words_do(task, unwatched, by):
    if task.recipe.fits != "text":
        edit = Edit.replacement({int(i): [0] for i in some_ids(task)}, by)
        with pytest.raises(ValueError, match=r"replace"):
            bits(task, edit)
        return
    edit = Edit.replacement(unwatched.words, by)
    replaced = bits(task, edit)
    assert bits(unwatched.with_other_words, edit) == replaced
    assert unwatched.other_words != unwatched.reference, "the replaced words must matter as long as they are there"
    assert replaced not in (unwatched.reference, unwatched.without_examples_of_words)
    kept = tuple((i, tuple(p for p in range(1, 3) if p not in at)) for i, at in edit.replaced)
    assert bits(with_others_at(task, kept), edit) != replaced, "words that are not replaced keep their effect"


def test_an_empty_edit_is_the_reference_in_both_modes(task, unwatched, mode):
    assert Edit.removal([], mode) == Edit()
    assert bits(task, Edit((), (), mode)) == unwatched.reference


def test_weights_of_one_are_no_edit(task, unwatched, mode):
    ids = tuple(sorted(int(i) for i in some_ids(task)))
    assert bits(task, Edit(ids, (1.0,) * len(ids), mode)) == unwatched.reference


def test_weights_are_respected(task, unwatched, mode):
    first = int(task.splits["train"].ids[0])
    assert bits(task, reweighting({first: 2.0}, mode)) != unwatched.reference


def test_everything_removed_still_gives_a_network(task, unwatched, mode):
    trained = train(task, Edit.removal(task.splits["train"].ids, mode))
    assert not trained.diverged
    assert trained.metrics["n_steps"] == (unwatched.n_steps if mode == "mask" else 0)


def test_mask_takes_every_step_and_drop_rebuilds_the_batches(task, unwatched):
    ids = some_ids(task, 12)
    epochs = unwatched.n_steps / task.recipe.checkpoint_step(N_TRAIN, 1)
    assert train(task, Edit.removal(ids, "mask")).metrics["n_steps"] == task.recipe.checkpoint_step(N_TRAIN, epochs)
    assert train(task, Edit.removal(ids, "drop")).metrics["n_steps"] == task.recipe.checkpoint_step(
        N_TRAIN - 12, epochs
    )


def test_checkpoints_are_kept_after_the_asked_updates(task, unwatched):
    n_steps, kept = unwatched.n_steps, {}

    def keep(step, network):
        kept[step] = {name: weight.clone() for name, weight in network.state_dict().items()}

    network = train(task, keep_steps=(1, n_steps // 2, n_steps), keep=keep).network
    assert list(kept) == [1, n_steps // 2, n_steps]
    assert all(torch.equal(weight, kept[n_steps][name]) for name, weight in network.state_dict().items())
    assert not all(torch.equal(weight, kept[n_steps][name]) for name, weight in kept[1].items())


def test_step_0_keeps_the_weights_before_the_first_update_as_observers_see_them(task, unwatched):
    kept, seen = {}, {}

    @dataclass
    class Seer:
        name: str = "seer"

        def begin(self, n_steps):
            pass

        def at(self, step, network):
            seen.setdefault(step, {name: weight.clone() for name, weight in network.state_dict().items()})
            return {}

    def keep(step, network):
        kept[step] = {name: weight.clone() for name, weight in network.state_dict().items()}

    watched = train(task, keep_steps=(0, 1), keep=keep, observers=[Seer()]).network
    assert list(kept) == [0, 1]
    assert all(torch.equal(weight, seen[0][name]) for name, weight in kept[0].items())
    assert not all(torch.equal(weight, kept[1][name]) for name, weight in kept[0].items())
    assert all(torch.equal(weight, unwatched.weights[name]) for name, weight in watched.state_dict().items())
    fresh = task.network(7).state_dict()
    if task.recipe.name in ("finetune", "adversarial"):  # others draw some weights after the network is made
        assert all(torch.equal(weight, kept[0][name]) for name, weight in fresh.items())


def test_a_checkpoint_that_is_never_reached_is_refused(task, unwatched):
    n_steps = unwatched.n_steps
    with pytest.raises(ValueError, match=str(n_steps + 1)):
        train(task, keep_steps=(n_steps + 1,), keep=lambda step, network: None)


def test_keeping_and_observing_change_no_bit(task, unwatched, mode):
    edit, nosy = Edit.removal(some_ids(task), mode), Nosy(task)
    watched = bits(task, edit, observers=[nosy], keep_steps=(2,), keep=lambda step, network: torch.rand(1))
    assert watched == unwatched.removal(mode)


def test_observers_are_asked_at_every_step_and_recorded_by_name(task):
    nosy = Nosy(task)
    trained = train(task, observers=[nosy])
    n_steps = int(trained.metrics["n_steps"])
    assert list(dict.fromkeys(nosy.steps)) == list(range(n_steps + 1)), (
        "a stage after an update asks about its step again"
    )
    plain = [key for key in trained.observed if "+" not in key]
    assert plain == [f"nosy/sum@{step}" for step in range(0, n_steps + 1, 5)]


def test_learning_rates_are_known_for_every_update_and_no_other(task, unwatched):
    n_steps = unwatched.n_steps
    assert all(task.recipe.learning_rate_at(N_TRAIN, step) > 0 for step in range(1, n_steps + 1))
    for step in (0, n_steps + 1):
        with pytest.raises(ValueError, match="outside"):
            task.recipe.learning_rate_at(N_TRAIN, step)


def test_the_last_epoch_ends_with_the_last_update(task, unwatched):
    n_steps = unwatched.n_steps
    epochs = next(epoch for epoch in range(1, 10_000) if task.recipe.checkpoint_step(N_TRAIN, epoch) == n_steps)
    with pytest.raises(ValueError, match="outside"):
        task.recipe.checkpoint_step(N_TRAIN, epochs + 1)


CUTS, WHOLE = ([name for name, cls in sorted(CLASSES.items()) if cls.whole_batches is whole] for whole in (False, True))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", CUTS)
def test_micro_batches_give_the_same_weights_up_to_rounding(name, size, mode):
    task = plain_task(small(CLASSES[name]))
    edit = Edit.removal(some_ids(task), mode)
    whole, parts = (train(task, edit, numerics=Numerics(dtype="float64", micro_batch=n)) for n in (0, size))
    for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert parts.metrics == pytest.approx(whole.metrics, abs=1e-12)


@pytest.mark.parametrize("name", CUTS)
def test_micro_batches_bound_the_examples_in_memory_and_repeat_themselves(name, bert):
    """With dropout, whose masks are then drawn for one micro-batch after the other."""
    task = TASKS["text"]["encoder_with_dropout"](small(CLASSES[name]), bert)
    sizes, make = [], task.batch

    def batch(split, rows, **options):
        sizes.append(len(rows))
        return make(split, rows, **options)

    object.__setattr__(task, "batch", batch)
    numerics, edit = Numerics(micro_batch=5 if hasattr(task.recipe, "group_size") else 2), Edit.removal(some_ids(task))
    first, again = (train(task, edit, numerics=numerics) for _ in range(2))
    assert max(sizes) == numerics.micro_batch
    for one, other in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert first.metrics == again.metrics


@pytest.mark.parametrize("name", WHOLE)
def test_a_recipe_that_takes_its_batches_whole_refuses_micro_batches(name):
    task = plain_task(small(CLASSES[name]))
    refused = rf"^compute.micro_batch: 2: recipe '{name}' cannot split its batches; allowed: 0$"
    with pytest.raises(InputError, match=refused):
        train(task, numerics=Numerics(micro_batch=2))
    if overrides(task.recipe, Recipe.train_each):
        with pytest.raises(InputError, match=refused):
            task.recipe.train_each(
                task, Training(edit=Edit.each_left_out(some_ids(task)), seed=7, numerics=Numerics(micro_batch=2))
            )


def test_every_recipe_that_draws_batches_cuts_them_or_says_that_it_cannot():
    check_micro_batch(REGISTERED["finetune"], 2, "c.yaml: compute.micro_batch")
    with pytest.raises(InputError, match=r"^c.yaml: compute.micro_batch: 2: recipe 'reinforce'"):
        check_micro_batch(REGISTERED["reinforce"], 2, "c.yaml: compute.micro_batch")
    assert REGISTERED.keys() - {"hard_debias"} == {*CUTS, *WHOLE, "reinforce"}, "hard_debias trains nothing"


@pytest.mark.parametrize("name", [name for name, cls in CLASSES.items() if "learning_rate" in cls.model_fields])
def test_a_diverging_training_is_a_result(name):
    trained = train(plain_task(small(CLASSES[name], learning_rate=1e38)))
    assert trained.diverged
    assert all(np.isfinite(value) for value in trained.metrics.values())
