"""The confound influence difference against dense autograd gradients, and what watching must not change."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from large_bert import LargeBert
from pydantic import ValidationError
from small_task import SmallCNN, SmallTask, autograd_gradients, checkpoint

from influence.diagnostics.confound_influence_difference import ConfoundInfluenceDifference, moments
from influence.diagnostics.train_cosines import train_cosines
from influence.registry import OBSERVERS
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.recipe import Training
from tasks.recipes.finetune import Finetune

N_TRAIN = 40


def confounded(model=None, dtype=torch.float64, n_train=N_TRAIN):
    """Labels 0, 1, 2; the confound is the label's for about four in five; no example of label 2 has another one."""
    task, rng = SmallTask(model or SmallCNN(), n_train=n_train, dtype=dtype), np.random.default_rng(3)
    split = task.splits["train"]
    own = (rng.random(n_train) < 0.8) | (split.labels == 2)
    confounds = np.where(own, split.labels, (split.labels + 1) % 3)
    task.splits["train"] = replace(split, confounds=confounds, confound_names=("x", "y", "z"))
    return task


def observed(task, network, n_steps=1, **options):
    observer = ConfoundInfluenceDifference(**{"probes": 12, **options}).start(task)
    observer.begin(n_steps)
    return observer.at(n_steps, network)


def brute_force(task, probes, examples):
    """Cosines over every parameter the network has, one example at a time."""
    labels = task.splits["train"].labels
    gradients = autograd_gradients(task, checkpoint(task), "train", range(len(labels)), labels)
    flat = torch.stack([torch.cat([g.flatten() for g in one.values()]) for one in gradients])
    return torch.nn.functional.cosine_similarity(flat[probes][:, None], flat[examples][None], dim=2, eps=0).numpy()


@pytest.mark.parametrize("model", [SmallCNN(), LargeBert()], ids=lambda m: m.name)
@pytest.mark.parametrize("examples", [None, 3])
def test_moments_are_those_of_brute_force_cosines(model, examples):
    task, options = confounded(model), ConfoundInfluenceDifference(probes=12, examples=examples)
    probes, rows, split = options.probe_rows(task), options.example_rows(task), task.splits["train"]
    cosines, found = brute_force(task, probes, rows), observed(task, task.network(0), examples=examples)["moments"]
    assert cosines[split.labels[probes][:, None] == split.labels[rows]].std() > 0.1
    assert found.dtype == np.float32
    for probe, values, row in zip(probes, cosines, found, strict=True):
        for start, wanted in ((0, True), (3, False)):
            same = (split.confounds[rows] == split.confounds[probe]) == wanted
            group = values[(split.labels[rows] == split.labels[probe]) & same & (rows != probe)]
            expected = [
                len(group),
                group.mean() if len(group) else np.nan,
                np.std(group, ddof=1) if len(group) > 1 else np.nan,
            ]
            np.testing.assert_allclose(row[start : start + 3], expected, rtol=1e-5, atol=1e-6)


def test_a_label_without_another_confound_has_no_mean_there():
    task = confounded()
    found = observed(task, task.network(0), probes=N_TRAIN)["moments"]
    label = task.splits["train"].labels[ConfoundInfluenceDifference(probes=N_TRAIN).probe_rows(task)]
    assert (found[label == 2, 3] == 0).all()
    assert np.isnan(found[label == 2, 4:]).all()
    assert np.isfinite(found[label < 2][:, [1, 4]]).all()


def test_shown_influences_are_cosines_of_the_same_label_without_the_probe():
    task = confounded()
    options = ConfoundInfluenceDifference(probes=12, show=12)
    probes, split, found = options.probe_rows(task), task.splits["train"], observed(task, task.network(0), show=12)
    labels, confounds, rows = split.labels, split.confounds, options.example_rows(task)
    compared = np.equal.outer(labels[probes], labels[rows]) & np.not_equal.outer(probes, rows)
    np.testing.assert_array_equal(np.isnan(found["influences"]), ~compared)
    np.testing.assert_array_equal(np.isnan(found["same"]), ~compared)
    same = np.equal.outer(confounds[probes], confounds[rows])
    np.testing.assert_array_equal(found["same"][compared], same[compared])
    expected = brute_force(task, probes, rows)
    np.testing.assert_allclose(found["influences"][compared], expected[compared], atol=1e-6)


def test_moments_of_known_values():
    influences = np.array([[0.1, 0.3, -0.5, np.nan], [0.2, np.nan, np.nan, np.nan]])
    same = np.array([[1.0, 1.0, 0.0, np.nan], [0.0, np.nan, np.nan, np.nan]])
    expected = [[2, 0.2, np.sqrt(0.02), 1, -0.5, np.nan], [0, np.nan, np.nan, 1, 0.2, np.nan]]
    np.testing.assert_allclose(moments(influences, same), expected)


def test_batches_change_no_cosine(monkeypatch):
    task = confounded(LargeBert())
    rows, probes = np.arange(N_TRAIN), np.arange(5, 20)
    whole = train_cosines(task, task.network(0), probes, rows)
    monkeypatch.setattr("influence.diagnostics.train_cosines.BATCH_SIZE", 7)
    np.testing.assert_allclose(train_cosines(task, task.network(0), probes, rows), whole, atol=1e-12)
    assert train_cosines(task, task.network(0), probes, rows[:0]).shape == (15, 0)


def test_only_chosen_and_trained_layers_count():
    task = confounded()
    network, rows = task.network(0), np.arange(N_TRAIN)
    whole = train_cosines(task, network, rows[:4], rows)
    last = train_cosines(task, network, rows[:4], rows, layers="last")
    assert np.abs(whole - last).max() > 0.01
    for name in ("embedding", "conv1", "conv2"):
        network[name].requires_grad_(False)
    np.testing.assert_array_equal(train_cosines(task, network, rows[:4], rows), last)


def train(observers=(), model=None):
    task, recipe = (
        confounded(model or LargeBert(), torch.float32),
        Finetune(epochs=2, batch_size=16, learning_rate=0.01),
    )
    return recipe.train(task, Training(edit=Edit(), seed=5, numerics=Numerics(), observers=observers))


def test_training_is_the_same_to_the_bit_with_and_without_the_observer():
    observer = ConfoundInfluenceDifference(probes=6, every=1).start(confounded(LargeBert(), torch.float32))
    plain, watched = train(), train([observer])
    assert len(watched.observed) == 6 + 2
    for (name, a), b in zip(plain.network.state_dict().items(), watched.network.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
    first, last = (watched.observed[f"confound_influence_difference/moments@{step}"] for step in (1, 6))
    assert np.nanmax(np.abs(first - last)) > 1e-3


def test_the_network_is_left_as_it_was():
    task = confounded(LargeBert())
    network = task.network(0).train()
    network.bert.embeddings.eval()
    network.classifier.bias.requires_grad_(False)
    network.classifier.weight.grad = torch.ones_like(network.classifier.weight)
    modes = [module.training for module in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]
    stream = torch.get_rng_state()
    observed(task, network)
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == flags
    assert [name for name, p in network.named_parameters() if p.grad is not None] == ["classifier.weight"]
    assert (network.classifier.weight.grad == 1).all()
    assert torch.equal(torch.get_rng_state(), stream)
    assert not any(module._forward_hooks for module in network.modules())


def test_the_network_is_left_as_it_was_when_measuring_fails(monkeypatch):
    task = confounded(LargeBert())
    network = task.network(0).train()
    monkeypatch.setattr(task, "logits", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        observed(task, network)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_dropout_and_the_networks_mode_change_no_measurement():
    task = confounded(LargeBert())
    trained, evaluated = observed(task, task.network(0).train()), observed(task, task.network(0).eval())
    for key in trained:
        np.testing.assert_array_equal(trained[key], evaluated[key])


@pytest.mark.parametrize(("every", "steps"), [(0, [7]), (3, [3, 6, 7]), (7, [7]), (1, list(range(1, 8)))])
def test_it_measures_at_multiples_and_at_the_last_step(every, steps):
    task = confounded()
    observer = ConfoundInfluenceDifference(probes=2, every=every).start(task)
    observer.begin(7)
    found = {step: observer.at(step, task.network(0)) for step in range(8)}
    assert [step for step in found if found[step]] == steps
    assert all(set(found[step]) == {"moments"} for step in steps[:-1])
    assert set(found[7]) == {"moments", "influences", "same"}


def test_probes_and_examples_are_one_draw_of_the_seed():
    task, options = confounded(), ConfoundInfluenceDifference(probes=9, examples=2)
    split, rows = task.splits["train"], options.example_rows(task)
    cells, counts = np.unique(split.labels[rows] * 3 + split.confounds[rows], return_counts=True)
    everywhere = np.unique(split.labels * 3 + split.confounds)
    np.testing.assert_array_equal(cells, everywhere)
    assert counts.max() == 2
    assert len(np.unique(options.probe_rows(task))) == 9
    np.testing.assert_array_equal(rows, replace_seed(options, 0).example_rows(task))
    assert not np.array_equal(rows, replace_seed(options, 1).example_rows(task))
    assert not np.array_equal(options.probe_rows(task), replace_seed(options, 1).probe_rows(task))
    more = options.model_copy(update={"probes": 12, "examples": 3})
    np.testing.assert_array_equal(more.probe_rows(task)[:9], options.probe_rows(task))
    assert set(rows) < set(more.example_rows(task))


def replace_seed(options, seed):
    return options.model_copy(update={"probe_seed": seed})


def test_named_probes_keep_their_order():
    task = confounded()
    ids = tuple(int(i) for i in task.splits["train"].ids[[7, 3, 30]])
    options = ConfoundInfluenceDifference(probe_ids=ids)
    options.check_task(task, "c.yaml: observe[0]")
    np.testing.assert_array_equal(options.probe_rows(task), [7, 3, 30])


def test_shown_probes_have_the_commonest_confound_of_their_label_first():
    task, options = confounded(), ConfoundInfluenceDifference(probes=N_TRAIN, show=4)
    split, rows = task.splits["train"], options.probe_rows(task)
    common = split.confounds[rows] == split.labels[rows]
    assert not common.all()
    np.testing.assert_array_equal(options.shown(task), np.flatnonzero(common)[:4])
    minority = tuple(int(i) for i in split.ids[rows[~common]])
    few = ConfoundInfluenceDifference(probe_ids=(*minority, int(split.ids[rows[common][0]])), show=2)
    np.testing.assert_array_equal(few.shown(task), [0, len(minority)])
    assert len(ConfoundInfluenceDifference(probes=2, show=5).shown(task)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": N_TRAIN + 1}, r"c.yaml: observe\[0\].probes: 41 is more than the 40 train examples"),
        ({"probe_ids": (1,)}, r"c.yaml: observe\[0\].probe_ids: id 1 is not in this split"),
    ],
)
def test_probes_that_are_not_there_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ConfoundInfluenceDifference(**options).check_task(confounded(), "c.yaml: observe[0]")


def test_a_task_without_confounds_or_with_nothing_to_compare_is_refused():
    task, options = confounded(), ConfoundInfluenceDifference(probes=2)
    options.check_task(task, "observe")
    split = task.splits["train"]
    task.splits["train"] = replace(split, confounds=split.labels)
    with pytest.raises(InputError, match="every label has one confound only"):
        options.check_task(task, "observe")
    task.splits["train"] = replace(split, confounds=None)
    with pytest.raises(InputError, match="known confounds; SmallTask has none"):
        options.check_task(task, "observe")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"layers": "eleventh"}, "layers"),
        ({"probe_ids": (3, 3)}, "id 3 appears twice"),
        ({"probe_ids": ()}, "probe_ids"),
        ({"probes": 0}, "probes"),
        ({"every": -1}, "every"),
    ],
)
def test_options_out_of_range_are_refused(options, key):
    with pytest.raises(ValidationError, match=key):
        ConfoundInfluenceDifference(**options)


def test_weights_that_are_not_finite_give_nans_and_no_error():
    task = confounded()
    network = task.network(0)
    with torch.no_grad():
        network["linear"].weight.fill_(torch.nan)
    found = observed(task, network)["moments"]
    assert np.isnan(found[:, [1, 4]]).all()


def test_it_is_registered_under_its_name():
    assert OBSERVERS.load("confound_influence_difference", "test") is ConfoundInfluenceDifference
    with pytest.raises(InputError, match="unknown observer 'cid'"):
        OBSERVERS.load("cid", "test")
