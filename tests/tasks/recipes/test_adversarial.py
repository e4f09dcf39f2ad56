from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.models.encoder import Encoder
from tasks.models.text_cnn import TextCNN
from tasks.recipe import Training
from tasks.recipes.adversarial import Adversarial, reverse_gradient
from tasks.recipes.finetune import Finetune
from tasks.seeds import torch_generator
from tasks.training import Watch
from tests.edits import reweighting
from tests.fakes import tiny_bert, token_task

SEED, N_TRAIN = 3, 24
DOUBLE = Numerics(dtype="float64")
QUIET = Watch(frozenset(), None, ())


def make(recipe=Adversarial, **options):
    return token_task(
        TextCNN(embedding_dim=8, filters=4), recipe(**{"epochs": 2, "batch_size": 5, **options}), n_train=N_TRAIN
    )


def train(task, edit=None, numerics=DOUBLE):
    return task.recipe.train(task, Training(edit=edit or Edit(), seed=SEED, numerics=numerics))


def begin(task, edit=None, numerics=DOUBLE):
    return task.recipe.start(task, Training(edit or Edit(), SEED, numerics))


def with_confounds(task, confounds, names=("first", "second")):
    train_split = replace(task.splits["train"], confounds=confounds, confound_names=names)
    return replace(task, splits={**task.splits, "train": train_split})


def same_bits(one, other):
    states = (one.state_dict().values(), other.state_dict().values())
    return all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(*states, strict=True))


def two_losses(task, network, head, rows):
    """Label and confound losses [n], written out: the features are the maximum over positions of the last convolution."""
    batch = task.batch("train", rows)
    real, hidden = batch["attention_mask"].to(torch.float64), network["embedding"](batch["input_ids"])
    hidden = (hidden * real.unsqueeze(2)).transpose(1, 2)
    for layer in ("conv1", "conv2", "conv3"):
        hidden = torch.relu(network[layer](hidden)) * real.unsqueeze(1)
    features = hidden.amax(2)
    confounds = torch.as_tensor(task.splits["train"].confounds[rows])
    label = cross_entropy(network["linear"](features), batch["labels"], reduction="none")
    return label, cross_entropy(features @ head.weight.T + head.bias, confounds, reduction="none")


def test_the_network_descends_label_minus_lambda_confound_and_the_adversary_confound():
    task = make(reversal=0.7)
    run = begin(task, reweighting({int(task.splits["train"].ids[2]): 2.5}))
    torch.nn.init.normal_(
        run.adversary.weight, generator=torch.Generator().manual_seed(1)
    )  # not small, so that it counts
    rows = np.arange(7)
    weights = run.train_set.weights[rows]
    run.gradient(rows, weights)

    label, confound = two_losses(task, run.network, run.adversary, rows)
    share = torch.as_tensor(weights.astype(np.float64) / weights.sum(dtype=np.float64))
    parameters, head = list(run.network.parameters()), list(run.adversary.parameters())
    wanted = torch.autograd.grad(
        ((label - 0.7 * confound) * share).sum(), parameters, retain_graph=True, materialize_grads=True
    )
    for parameter, gradient in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-12)
    for parameter, gradient in zip(head, torch.autograd.grad((confound * share).sum(), head), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-12)
        assert gradient.abs().max() > 1e-3


def test_losses_are_the_sum_of_both():
    run = begin(make(reversal=0.7))
    batch, rows = run.task.batch("train", np.arange(6)), np.arange(6)
    label, confound = two_losses(run.task, run.network, run.adversary, rows)
    torch.testing.assert_close(run.losses(run.network, batch, rows), label + confound, rtol=0, atol=1e-12)


def test_reversal_keeps_values_and_turns_gradients_round():
    features = torch.randn(3, 4, requires_grad=True)
    reversed_ = reverse_gradient(features, 0.5)
    assert torch.equal(reversed_, features)
    (reversed_ * torch.arange(4.0)).sum().backward()
    torch.testing.assert_close(features.grad, -0.5 * torch.arange(4.0).expand(3, 4))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "bert_adam", "sgd"])
def test_without_reversal_the_network_is_that_of_finetune_bit_for_bit(optimizer):
    options = {"optimizer": optimizer, "learning_rate": 0.01, "weight_decay": 0.1}
    edit = Edit.removal(make().splits["train"].ids[:3])
    free = train(make(reversal=0.0, **options), edit, Numerics()).network
    fine = train(make(Finetune, **options), edit, Numerics()).network
    assert same_bits(free, fine)
    assert not same_bits(train(make(reversal=0.5, **options), edit, Numerics()).network, fine)


def test_without_reversal_an_encoder_sees_the_dropout_masks_of_finetune(tmp_path):
    model = Encoder(pretrained=str(tiny_bert(tmp_path)), max_length=64, num_layers=1, dropout=0.3)
    state = model.base_state(tmp_path)
    networks = [
        train(token_task(model, recipe, n_train=12, base_state=state), numerics=Numerics()).network
        for recipe in (Adversarial(epochs=1, batch_size=5, reversal=0.0), Finetune(epochs=1, batch_size=5))
    ]
    assert same_bits(*networks)


def test_confounds_of_removed_rows_change_no_bit_and_others_do():
    task = make(reversal=1.0)
    removed = np.arange(8)
    edit = Edit.removal(task.splits["train"].ids[removed])
    confounds = task.splits["train"].confounds.copy()
    confounds[removed] = 1 - confounds[removed]
    other = with_confounds(task, confounds)
    one, two = train(task, edit), train(other, edit)
    assert same_bits(one.network, two.network)
    assert one.metrics == two.metrics
    assert not same_bits(train(task).network, train(other).network)


def test_a_batch_of_removed_rows_leaves_no_trace_of_their_confounds_in_the_gradient():
    """Not even the sign of a zero."""
    task = make()
    run = begin(task, Edit.removal(task.splits["train"].ids))
    other = begin(with_confounds(task, 1 - task.splits["train"].confounds), Edit.removal(task.splits["train"].ids))
    for each in (run, other):
        each.gradient(np.arange(5), np.zeros(5, np.float32))
    for one, two in zip(run.trained_modules().parameters(), other.trained_modules().parameters(), strict=True):
        assert one.grad.numpy().tobytes() == two.grad.numpy().tobytes()


def test_the_adversary_starts_from_a_generator_of_its_own():
    run = begin(make())
    wanted = torch.empty(2, 4).normal_(std=0.02, generator=torch_generator(SEED, "init-adversary"))
    assert torch.equal(run.adversary.weight.detach(), wanted.double())
    assert (run.adversary.bias == 0).all()


def test_weight_decay_spares_the_adversarys_bias():
    run = begin(make(weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in run.optimizer.param_groups for p in group["params"]}
    assert (decay[id(run.adversary.weight)], decay[id(run.adversary.bias)]) == (0.1, 0.0)
    assert len(decay) == len(list(run.network.parameters())) + 2


def test_confound_accuracy_is_the_weighted_share_that_the_adversary_reads_in_the_last_epoch():
    task = make(optimizer="sgd", learning_rate=1e-12)
    ids, weights = task.splits["train"].ids, np.r_[0, 0, 3.0, np.ones(N_TRAIN - 3)]
    edit = reweighting(dict(zip(ids.tolist(), weights, strict=True)))
    run = begin(task, edit)
    features = []
    run.network["linear"].register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    task.logits(run.network, task.batch("train", np.arange(N_TRAIN)))
    read = run.adversary(features[0]).argmax(1).numpy() == task.splits["train"].confounds
    assert 0 < read[weights > 0].mean() < 1
    metrics = train(task, edit).metrics
    assert metrics["confound_accuracy"] == pytest.approx(np.average(read, weights=weights), abs=1e-6)


def test_a_confound_that_equals_the_label_can_be_read_unless_it_is_unlearned():
    """The adversary is trained on what it may read: without reversal it succeeds, with it it does not."""
    task = make(reversal=0.0, epochs=60, learning_rate=0.02)
    known = with_confounds(task, (task.splits["train"].labels == 0).astype(np.int64))
    assert train(known).metrics["confound_accuracy"] > 0.9
    unlearned = replace(known, recipe=Adversarial(reversal=3.0, epochs=60, batch_size=5, learning_rate=0.02))
    assert train(unlearned).metrics["confound_accuracy"] < 0.8


def test_a_frozen_network_still_trains_its_heads():
    layers = ("embedding", "conv1", "conv2", "conv3")
    task = token_task(TextCNN(embedding_dim=8, filters=4, freeze=layers), Adversarial(epochs=1, batch_size=5))
    run = begin(task)
    before = run.adversary.weight.detach().clone()
    run.epoch(1, QUIET)
    assert not torch.equal(run.adversary.weight, before)
    assert torch.equal(run.network["conv1"].weight, task.network(SEED)["conv1"].weight.double())


@pytest.mark.parametrize(
    ("confounds", "complaint"),
    [(None, "the task has none"), (np.zeros(N_TRAIN, np.int64), "at least two confounds")],
)
def test_a_task_without_confounds_is_refused_before_and_at_the_training(confounds, complaint):
    task = with_confounds(make(), confounds)
    with pytest.raises(InputError, match=f"^c.yaml: task.recipe: 'adversarial' needs.*{complaint}"):
        task.recipe.check_task(task, "c.yaml: task.recipe")
    with pytest.raises(InputError, match=f"^task.recipe.*{complaint}"):
        train(task)


def test_a_task_with_confounds_passes_the_check():
    assert make().recipe.check_task(make(), "c.yaml: task.recipe") is None
