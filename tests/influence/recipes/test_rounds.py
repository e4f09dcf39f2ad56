"""Rounds between label updates: when they come, what they change, what they may look at."""

import numpy as np
import pytest
import torch

from influence.influence_loss import influence_loss
from influence.recipes.embedding_tuning import EmbeddingTuning
from influence.recipes.influence_tuning import InfluenceTuning
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.models.text_cnn import TextCNN
from tasks.recipe import Training
from tasks.recipes.finetune import Finetune
from tests.fakes import token_task

N_TRAIN = 40
OPTIONS = {"epochs": 3, "batch_size": 5, "learning_rate": 0.01}  # 24 updates
ROUNDS = {"interval": 6, "round_epochs": 2, "round_batch_size": 4, "probes": 6, "group_size": 3}


def task_of(recipe):
    return token_task(TextCNN(embedding_dim=8, filters=4), recipe, n_train=N_TRAIN)


def tuning(kind=InfluenceTuning, **options):
    return kind(**{**OPTIONS, **ROUNDS, "round_learning_rate": 0.01, **options})


def train(recipe, edit=None, seed=7, **more):
    task = task_of(recipe)
    return recipe.train(task, Training(edit=edit or Edit(), seed=seed, numerics=Numerics(), **more))


def weights(trained):
    return torch.cat([p.detach().flatten() for p in trained.network.parameters()])


class Steps:
    """Records when it is asked, and the weights it sees."""

    name = "steps"

    def begin(self, n_steps):
        self.n_steps = n_steps

    def at(self, step, network):
        return {"weights": torch.cat([p.detach().flatten() for p in network.parameters()]).numpy()}


@pytest.fixture(params=[InfluenceTuning, EmbeddingTuning], ids=lambda kind: kind.name)
def kind(request):
    return request.param


def test_a_round_follows_every_interval_but_not_near_the_end(kind):
    assert [step for step in range(1, 241) if tuning(kind, interval=50).is_round(step, 240)] == [50, 100, 150, 200]
    assert [step for step in range(1, 238) if tuning(kind, interval=25).is_round(step, 237)] == list(range(25, 201, 25))
    assert not tuning(kind, interval=10).is_round(20, 25)


def test_a_round_is_seen_from_before_and_after(kind):
    observed = train(tuning(kind), observers=[Steps()]).observed
    rounds = {key for key in observed if key.endswith("+round")}
    assert rounds == {f"steps/weights@{step}+round" for step in (6, 12, 18)}
    for step in (6, 12, 18):
        assert (observed[f"steps/weights@{step}"] != observed[f"steps/weights@{step}+round"]).any()


def test_until_the_first_round_it_is_fine_tuning(kind):
    plain = train(Finetune(**OPTIONS), observers=[Steps()]).observed
    tuned = train(tuning(kind), observers=[Steps()]).observed
    for step in range(7):
        assert (plain[f"steps/weights@{step}"] == tuned[f"steps/weights@{step}"]).all()
    assert (plain["steps/weights@7"] != tuned["steps/weights@7"]).any()


def test_weights_kept_at_a_round_are_those_after_it(kind):
    kept = {}
    steps = Steps()
    found = train(
        tuning(kind), keep_steps=[6], keep=lambda step, network: kept.update(steps.at(step, network)), observers=[steps]
    )
    assert (kept["weights"] == found.observed["steps/weights@6+round"]).all()


def test_a_round_lowers_the_influence_loss_it_is_for(kind):
    recipe = tuning(kind, epochs=20, round_epochs=20, probes=20, round_batch_size=20, group_size=8, interval=100)
    task = task_of(recipe)
    run = recipe.start(task, Training(Edit(), 3, Numerics()))
    for epoch in range(1, 16):
        for rows in run.train_set.batches(3, epoch, 5):
            run.gradient(rows, run.train_set.weights[rows])
            run.update()

    def loss():
        tuples = run.accessible.tuples(30, 8, 99, 1)
        run.network.eval()
        cosines = run.cosines(run.groups(tuples.rows), len(tuples))
        return influence_loss(cosines, torch.as_tensor(tuples.weights, dtype=cosines.dtype)).mean().item()

    before = loss()
    run.round()
    assert loss() < 0.8 * before


def test_published_options_change_what_follows_a_round(kind):
    base = weights(train(tuning(kind)))
    assert (weights(train(tuning(kind, reset_moments=True))) != base).any()
    # the convolutional network of this task has no dropout: evaluation mode moves nothing
    assert (weights(train(tuning(kind, eval_after_round=True))) == base).all()


def test_evaluation_mode_after_a_round_turns_dropout_off(kind):
    recipe = tuning(kind, eval_after_round=True)
    run = recipe.start(task_of(recipe), Training(Edit(), 3, Numerics()))
    rows = np.arange(5)
    run.gradient(rows, np.ones(5, np.float32))
    assert run.network.training
    run.round()
    run.gradient(rows, np.ones(5, np.float32))
    assert not run.network.training


def test_metrics_tell_rounds_and_probes(kind):
    metrics = train(tuning(kind)).metrics
    assert metrics["n_rounds"] == 3
    assert metrics["n_probes"] == 6
    assert metrics["influence_loss"] >= 0


def test_confounds_out_of_reach_change_no_bit(kind):
    recipe = tuning(kind, access_rate=0.5)
    task = task_of(recipe)
    reach = recipe.start(task, Training(Edit(), 7, Numerics())).accessible.known
    base = weights(recipe.train(task, Training(edit=Edit(), seed=7, numerics=Numerics())))
    split = task.splits["train"]
    hidden = np.where(reach, split.confounds, 1 - split.confounds)
    assert (hidden != split.confounds).any()
    task.splits["train"] = type(split)(**{**vars(split), "confounds": hidden})
    assert (weights(recipe.train(task, Training(edit=Edit(), seed=7, numerics=Numerics()))) == base).all()


def test_without_counter_examples_in_reach_it_is_fine_tuning(kind):
    recipe = tuning(kind, access_rate=1 / N_TRAIN)
    task = task_of(recipe)
    trained = recipe.train(task, Training(edit=Edit(), seed=7, numerics=Numerics()))
    plain = train(Finetune(**OPTIONS))
    assert trained.metrics["n_probes"] == trained.metrics["n_rounds"] == 0
    assert (weights(trained) == weights(plain)).all()


def test_a_task_without_confounds_is_refused(kind):
    recipe = tuning(kind)
    task = task_of(recipe)
    task.splits["train"] = type(split := task.splits["train"])(**{**vars(split), "confounds": None})
    with pytest.raises(InputError, match="needs a task with a confound for every training example"):
        recipe.train(task, Training(edit=Edit(), seed=7, numerics=Numerics()))


def test_embedding_tuning_is_influence_tuning_on_the_labels_row():
    by_row, by_state = (
        weights(train(tuning(kind, optimizer="sgd", round_learning_rate=0.5, **more)))
        for kind, more in ((InfluenceTuning, {"parameters": "label_row"}), (EmbeddingTuning, {}))
    )
    plain = weights(train(Finetune(**OPTIONS, optimizer="sgd")))
    moved = (by_state - plain).norm()
    assert moved > 1e-4
    assert (by_row - by_state).norm() < 1e-3 * moved
