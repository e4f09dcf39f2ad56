import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tasks.base import Numerics
from tasks.components import parse_component
from tasks.data.edits import Edit
from tasks.models.encoder import Encoder
from tasks.models.text_cnn import TextCNN
from tasks.recipe import Training
from tasks.recipes.finetune import Finetune
from tasks.seeds import generator
from tests.edits import reweighting
from tests.fakes import tiny_bert, token_task

SEED, N_TRAIN = 3, 24
DOUBLE = Numerics(dtype="float64")


def make(**options):
    return token_task(
        TextCNN(embedding_dim=8, filters=4), Finetune(**{"epochs": 2, "batch_size": 5, **options}), n_train=N_TRAIN
    )


def train(task, edit=None, numerics=DOUBLE, **watching):
    return task.recipe.train(task, Training(edit=edit or Edit(), seed=SEED, numerics=numerics, **watching))


def gradients(task, network, row):
    """Gradient of one example's loss, for every parameter."""
    loss = task.losses(network, task.batch("train", np.array([row])))[0]
    return torch.autograd.grad(loss, list(network.parameters()))


def batches(task, kept=None):
    """The slots of every batch, from the promise: a permutation keyed (seed, 'order', epoch)."""
    kept = np.ones(N_TRAIN, bool) if kept is None else kept
    for epoch in range(1, task.recipe.epochs + 1):
        order = [row for row in generator(SEED, "order", epoch).permutation(N_TRAIN) if kept[row]]
        yield from (
            order[start : start + task.recipe.batch_size] for start in range(0, len(order), task.recipe.batch_size)
        )


def reference(task, weights, kept=None, optimizer=torch.optim.SGD, clip=None, **options):
    """Weights after training example by example with plain torch: batch gradient = sum(w g) / max(sum w, 1)."""
    network = task.network(SEED).double()
    plain = optimizer(network.parameters(), lr=1.0, foreach=False, **options)
    n_train = N_TRAIN if kept is None else int(kept.sum())
    for step, rows in enumerate(batches(task, kept), 1):
        parts = [[weights[row] * g for g in gradients(task, network, row)] for row in rows]
        for parameter, *terms in zip(network.parameters(), *parts, strict=True):
            parameter.grad = sum(terms) / max(sum(weights[row] for row in rows), 1)
        if clip is not None:
            norm = torch.sqrt(sum((p.grad**2).sum() for p in network.parameters()))
            for parameter in network.parameters():
                parameter.grad *= min(1, clip / norm)
        plain.param_groups[0]["lr"] = task.recipe.learning_rate_at(n_train, step)
        plain.step()
    return network


class PlainBertAdam(torch.optim.Optimizer):
    """BERT's Adam with weight decay 0.1 on matrices, parameter by parameter."""

    def __init__(self, params, lr, foreach):
        super().__init__(params, {"lr": lr})

    def step(self):
        (group,) = self.param_groups
        for p in group["params"]:
            state, g = self.state[p], p.grad * min(1, 1 / (p.grad.norm() + 1e-6))
            state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
            state["v"] = 0.999 * state.get("v", 0) + 0.001 * g**2
            decay = 0.1 * p.data if p.ndim > 1 else 0
            p.data = p.data - group["lr"] * (state["m"] / (state["v"].sqrt() + 1e-6) + decay)


def assert_same_weights(one, other, atol=1e-9):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def test_one_step_with_a_weight_of_two_is_the_closed_form():
    task = make(optimizer="sgd", learning_rate=0.5, batch_size=N_TRAIN, epochs=1)
    heavy = 4
    trained = train(task, reweighting({int(task.splits["train"].ids[heavy]): 2.0}))
    start = task.network(SEED).double()
    total = [torch.zeros_like(parameter) for parameter in start.parameters()]
    for row in range(N_TRAIN):
        for position, gradient in enumerate(gradients(task, start, row)):
            total[position] += (2.0 if row == heavy else 1.0) * gradient
    for before, after, gradient in zip(start.parameters(), trained.network.parameters(), total, strict=True):
        torch.testing.assert_close(after, before - 0.5 * gradient / (N_TRAIN + 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["mask", "drop"])
def test_training_under_an_edit_is_the_sum_over_examples(mode):
    task = make(optimizer="sgd", learning_rate=0.3, momentum=0.9, schedule="linear", warmup_frac=0.25)
    ids, weights = task.splits["train"].ids, np.ones(N_TRAIN)
    weights[:7], weights[7] = 0, 2.5
    edit = reweighting({int(ids[row]): weights[row] for row in range(8)}, mode)
    kept = weights != 0 if mode == "drop" else None
    assert_same_weights(train(task, edit).network, reference(task, weights, kept, momentum=0.9))


@pytest.mark.parametrize(("name", "plain"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_warm_up_and_decay_reach_the_optimiser(name, plain):
    task = make(optimizer=name, learning_rate=0.02, schedule="linear", warmup_frac=0.3, betas=(0.8, 0.99), eps=1e-6)
    expected = reference(task, np.ones(N_TRAIN), optimizer=plain, betas=(0.8, 0.99), eps=1e-6, weight_decay=0)
    assert_same_weights(train(task).network, expected, atol=1e-7)


def test_the_gradient_is_clipped():
    task = make(optimizer="sgd", learning_rate=0.5, max_grad_norm=0.01)
    assert_same_weights(train(task).network, reference(task, np.ones(N_TRAIN), clip=0.01), atol=1e-6)
    assert not torch.equal(
        train(task).network["linear"].bias, train(make(optimizer="sgd", learning_rate=0.5)).network["linear"].bias
    )


def test_a_batch_without_weight_moves_nothing_and_still_counts():
    task = make(optimizer="sgd", learning_rate=0.5)
    trained = train(task, Edit.removal(task.splits["train"].ids))
    assert_same_weights(trained.network, task.network(SEED).double(), atol=0)
    assert trained.metrics == {"n_steps": 10.0, "train_loss": 0.0}


def test_train_loss_is_the_weighted_mean_over_the_last_epoch():
    task = make(optimizer="sgd", learning_rate=1e-12)
    ids = task.splits["train"].ids
    network = task.network(SEED).double()
    losses = task.losses(network, task.batch("train", np.arange(N_TRAIN))).detach().numpy()
    weights = np.r_[0, 0, 3, np.ones(N_TRAIN - 3)]
    trained = train(task, reweighting(dict(zip(ids.tolist(), weights, strict=True))))
    assert trained.metrics["train_loss"] == pytest.approx(np.average(losses, weights=weights), abs=1e-9)


def test_the_identity_of_default_options_is_what_ledgers_hold():
    """It is in every spec id: a new option may not enter it, nor may a default move."""
    assert Finetune().identity() == {
        "name": "finetune",
        "version": 1,
        "epochs": 5,
        "batch_size": 64,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "betas": [0.9, 0.999],
        "eps": 1e-08,
        "warmup_frac": 0.0,
        "schedule": "constant",
        "max_grad_norm": None,
    }


@pytest.mark.parametrize(
    ("options", "eps"),
    [
        ({"optimizer": "adam"}, 1e-8),
        ({"optimizer": "adamw"}, 1e-8),
        ({"optimizer": "sgd"}, 1e-8),
        ({"optimizer": "bert_adam"}, 1e-6),
        ({"optimizer": "bert_adam", "eps": 1e-8}, 1e-8),
        ({"optimizer": "adam", "eps": 1e-6}, 1e-6),
    ],
)
def test_an_eps_that_is_not_given_is_that_of_the_optimiser(options, eps):
    assert Finetune(**options).eps == eps
    parsed = parse_component(
        Finetune, {**options, **({} if options["optimizer"] == "sgd" else {"betas": [0.8, 0.9]})}, "c"
    )
    assert parsed.identity()["eps"] == eps


def test_bert_adam_trains_at_the_rates_of_its_schedule():
    task = make(optimizer="bert_adam", learning_rate=0.02, schedule="one_minus", warmup_frac=0.3, weight_decay=0.1)
    rates = [task.recipe.learning_rate_at(N_TRAIN, step) for step in range(1, 11)]
    assert rates == pytest.approx([0.02 * factor for factor in (0, 1 / 3, 2 / 3, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)])
    assert_same_weights(train(task).network, reference(task, np.ones(N_TRAIN), optimizer=PlainBertAdam), atol=1e-9)


def test_training_learns_the_task():
    task = make(epochs=40, learning_rate=0.01)
    trained = train(task, numerics=Numerics())
    labels = task.splits["train"].labels
    assert (task.outputs(trained.network, "train", np.arange(N_TRAIN)).argmax(1) == labels).mean() > 0.95


def test_frozen_layers_stay_as_they_started():
    task = token_task(
        TextCNN(embedding_dim=8, filters=4, freeze=("embedding",)), Finetune(epochs=2, batch_size=5, weight_decay=0.1)
    )
    trained, start = train(task).network, task.network(SEED).double()
    assert torch.equal(trained["embedding"].weight, start["embedding"].weight)
    assert not torch.equal(trained["linear"].weight, start["linear"].weight)


def test_divergence_ends_the_training_at_once():
    trained = train(make(optimizer="sgd", learning_rate=1e200, epochs=50))
    assert trained.diverged
    assert trained.metrics["n_steps"] < 10


def test_weights_that_overflow_in_the_last_update_are_divergence():
    trained = train(
        make(optimizer="sgd", learning_rate=1e308, momentum=0.0, batch_size=N_TRAIN, epochs=1, weight_decay=1e3)
    )
    assert trained.metrics["n_steps"] == 1
    assert trained.diverged


@pytest.mark.parametrize(
    ("n_train", "epoch", "step"),
    [(24, 1, 5), (24, 2, 10), (25, 1, 5), (26, 1, 6), (24, 0.5, 2), (24, 1.4, 7), (3, 0.1, 1)],
)
def test_checkpoints_fall_on_the_ends_of_epochs(n_train, epoch, step):
    assert Finetune(epochs=2, batch_size=5).checkpoint_step(n_train, epoch) == step


@pytest.mark.parametrize("epoch", [0, -1, 2.01])
def test_epochs_that_are_never_trained_have_no_checkpoint(epoch):
    with pytest.raises(ValueError, match="outside"):
        Finetune(epochs=2).checkpoint_step(24, epoch)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"learning_rate": float("inf")}, "finite"),
        ({"optimizer": "lion"}, "'adam', 'adamw', 'bert_adam' or 'sgd'"),
        ({"schedule": "cosine"}, "'constant', 'linear' or 'one_minus'"),
        ({"warmup_frac": 1.5}, "less than or equal to 1"),
        ({"momentum": 0.9}, "momentum 0.9 needs optimizer sgd, not adam"),
        ({"betas": (0.9, 1.0)}, "must be at least 0 and below 1"),
        ({"optimizer": "sgd", "eps": 1e-6}, "betas and eps need optimizer adam, adamw or bert_adam"),
        ({"max_grad_norm": 0}, "greater than 0"),
        ({"weight_decay": -1}, "greater than or equal to 0"),
        ({"learning_rates": 1}, "Extra inputs"),
    ],
)
def test_options_that_make_no_recipe_are_refused(options, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Finetune(**options)


@pytest.mark.parametrize(
    ("numerics", "complaint"), [(Numerics(dtype="float8"), "float8"), (Numerics(compile=True), "compile")]
)
def test_numerics_that_are_not_offered_are_refused(numerics, complaint):
    with pytest.raises(ValueError, match=complaint):
        train(make(), numerics=numerics)


def weights_after_each_step(task, edit):
    kept = []
    train(
        task,
        edit,
        Numerics(),
        keep_steps=range(1, 6),
        keep=lambda step, network: kept.append(
            b"".join(weight.numpy().tobytes() for weight in network.state_dict().values())
        ),
    )
    return kept


@pytest.mark.parametrize("mode", ["mask", "drop"])
@pytest.mark.parametrize("model", ["text_cnn", "encoder_with_dropout"])
def test_paired_retrains_agree_until_the_removed_rows_are_met(model, mode, tmp_path):
    """The removed rows are those of the first epoch's last batch: the updates before it have the reference's bits."""
    task = make()
    if model == "encoder_with_dropout":
        encoder = Encoder(pretrained=str(tiny_bert(tmp_path)), max_length=64, dropout=0.1)
        task = token_task(encoder, task.recipe, n_train=N_TRAIN, base_state=encoder.base_state(tmp_path))
    last = list(batches(task))[4]
    reference_, removed = (
        weights_after_each_step(task, edit) for edit in (Edit(), Edit.removal(task.splits["train"].ids[last], mode))
    )
    assert reference_[:4] == removed[:4]
    assert reference_[4] != removed[4]
