"""A training that stopped after any update and went on elsewhere ends in the bits of one that never stopped."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from recipe_tasks import N_TRAIN, REGISTERED, TASKS, small, small_bert

from influence.registry import OBSERVERS
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.snapshots import StoredSnapshot
from tasks.base import Numerics
from tasks.errors import GivenBack
from tasks.recipe import SnapshotStore, Training
from tests.edits import reweighting

RESUMABLE = {name: cls for name, cls in REGISTERED.items() if cls.resumable}
# options beside those of `small` that keep other state; a recipe that is not here is tested as it comes
OPTIONS = {
    "finetune": (
        {"optimizer": "adamw", "warmup_frac": 0.4, "schedule": "linear", "weight_decay": 0.1, "max_grad_norm": 0.5},
        {},
        {"optimizer": "bert_adam", "warmup_frac": 0.2},
        {"optimizer": "sgd", "momentum": 0.9},
    ),
    "influence_tuning": ({"reset_moments": True, "eval_after_round": True},),
    "skip_gram": ({}, {"optimizer": "adam", "reduction": "mean", "batch_sentences": 1}),  # 1: an epoch is two groups
    "dec": ({}, {"optimizer": "sgd", "objective": "nll"}),
}
CASES = [
    # the first options on the task with dropout, where the recipe has one; the others on the quick one
    pytest.param(name, list(TASKS[cls.fits])[-1 if number == 0 else 0], options, id=f"{name}-{number}")
    for name, cls in sorted(RESUMABLE.items())
    for number, options in enumerate(OPTIONS.get(name, ({},)))
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return small_bert(tmp_path_factory.mktemp("bert"))


@dataclass
class Stops:
    """Goes on from what is in the store; stores after the update `at`, and stops there."""

    store: SnapshotStore
    at: int = 0
    steps: list = field(default_factory=list)

    def resume(self):
        return self.store.load()

    def passed(self, step, snapshot):
        self.steps.append(step)
        if step == self.at:
            self.store.save(snapshot())
            raise GivenBack("stop")


class Norms:
    """An observer with a little to say at every step, in double precision."""

    name = "norms"

    def begin(self, n_steps):
        pass

    def at(self, step, network):
        return {"weights": np.array([parameter.detach().double().norm().item() for parameter in network.parameters()])}


def observers_of(task, name):
    if RESUMABLE[name].fits != "text":
        return [Norms()]
    options = {"probes": 3, "every": 4, "show": 1}
    return [Norms(), *(OBSERVERS.load(each, "test")(**options).start(task) for each in OBSERVERS.entries())]


def bytes_of(arrays):
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


def run(name, kind, options, bert, keep_steps, kept, snapshots=None):
    """Train in a task of its own, as another process would; all that comes of it, as bytes."""
    task = TASKS[RESUMABLE[name].fits][kind](small(RESUMABLE[name], **options), bert)
    ids = task.splits["train"].ids

    def keep(step, network):
        kept[step] = bytes_of({key: weight.numpy() for key, weight in network.state_dict().items()})

    trained = task.recipe.train(
        task,
        Training(
            edit=reweighting({int(ids[0]): 0.0, int(ids[1]): 0.0, int(ids[2]): 0.3}),
            seed=11,
            numerics=Numerics(),
            keep_steps=keep_steps,
            keep=keep,
            observers=observers_of(task, name),
            snapshots=snapshots,
        ),
    )
    ((split, rows),) = task.measured.items()
    outputs = task.outputs(trained.network, split, rows)
    weights = {key: weight.numpy() for key, weight in trained.network.state_dict().items()}
    assert not trained.diverged
    return {key: value.hex() for key, value in trained.metrics.items()} | bytes_of(
        trained.observed | weights | {"outputs": outputs}
    )


def steps_of(name, options):
    """First, within an epoch, the end of one, right after a round, one before the last, last; and the number of updates."""
    recipe = small(RESUMABLE[name], **options)
    n_steps = recipe.checkpoint_step(N_TRAIN, recipe.last_epoch())
    epoch = recipe.checkpoint_step(N_TRAIN, 1) if recipe.last_epoch() < n_steps else 6
    return sorted({1, epoch - 1, epoch, 4, epoch + 2, n_steps - 1, n_steps}), n_steps


@pytest.mark.parametrize(("name", "kind", "options"), CASES)
def test_a_training_interrupted_again_and_again_ends_in_the_same_bits(name, kind, options, bert, tmp_path):
    steps, n_steps = steps_of(name, options)
    keep_steps, quiet_kept, kept = (1, 4, n_steps), {}, {}
    quiet = run(name, kind, options, bert, keep_steps, quiet_kept)
    store, before = StoredSnapshot(LocalBlobs(tmp_path), "0" * 32), 0
    for at in steps:
        attempt = Stops(store, at)
        with pytest.raises(GivenBack):
            run(name, kind, options, bert, keep_steps, kept, attempt)
        assert attempt.steps == list(range(before + 1, at + 1)), "what was done is not done again"
        assert sorted(kept) == [step for step in keep_steps if step <= at]
        before = at
    last = Stops(store)
    assert run(name, kind, options, bert, keep_steps, kept, last) == quiet
    assert not last.steps, "the last stop was after the last update"
    assert kept == quiet_kept


def test_offering_snapshots_that_nobody_takes_changes_no_bit(bert, tmp_path):
    for name in RESUMABLE:
        kind = next(iter(TASKS[RESUMABLE[name].fits]))
        snapshots = Stops(StoredSnapshot(LocalBlobs(tmp_path), name))
        assert run(name, kind, {}, bert, (), {}, snapshots) == run(name, kind, {}, bert, (), {})


def test_a_snapshot_of_another_model_is_as_good_as_none(bert, tmp_path):
    store = StoredSnapshot(LocalBlobs(tmp_path), "0" * 32)
    with pytest.raises(GivenBack):
        run("finetune", "text_cnn", {}, bert, (), {}, Stops(store, 3))
    for name, kind in (("finetune", "encoder_with_dropout"), ("adversarial", "text_cnn"), ("dec", "gaussians")):
        other = Stops(store)
        assert run(name, kind, {}, bert, (), {}, other) == run(name, kind, {}, bert, (), {})
        assert other.steps[0] == 1
