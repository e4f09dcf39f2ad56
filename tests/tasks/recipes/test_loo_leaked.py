import copy

import numpy as np
import pytest
import torch

from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.models.cluster_network import cluster_masses, objective_losses
from tasks.recipe import Training
from tasks.recipes.dec import DecTraining
from tasks.recipes.loo_leaked import LooLeaked
from tests.gaussian_fakes import every_one_left_out, mixture_task

SEED, N = 5, 12


def leaked_task(**options):
    return mixture_task(LooLeaked(dtype="float64", **options), n_train=N)


def train_each(task, edit=None):
    return task.recipe.train_each(task, Training(edit=edit or every_one_left_out(task), seed=SEED, numerics=Numerics()))


def assigned_labels(task):
    """The cluster of each point's mean under the base model."""
    base = task.recipe.train(task, Training(edit=Edit(), seed=SEED, numerics=Numerics())).network
    return task.outputs(base, "means", np.arange(3)).argmax(1)[task.splits["train"].labels]


def naive(task, labels):
    """As published: one torch Adam for all fits, weights loaded back before each; [n_removed, n_points, k] and last means."""
    objective, steps = task.recipe.objective, task.recipe.steps
    network = task.network(SEED).double()
    start, adam = copy.deepcopy(network.state_dict()), torch.optim.Adam(network.parameters(), lr=1e-3)
    points, means = (torch.tensor(task.splits[split].features).double() for split in ("train", "means"))
    order = np.argsort(task.splits["train"].ids)  # an edit's ids are sorted
    found, last = np.zeros((N, N, 3)), np.zeros((N, 3, 3))
    for point in range(N):
        for fit, removed in enumerate(order):
            kept = np.delete(np.arange(N), removed)
            network.load_state_dict(start)
            for _ in range(steps):
                adam.zero_grad()
                log_q = network(points[kept])
                losses = objective_losses(objective, log_q, torch.tensor(labels[kept]), cluster_masses(log_q))
                losses.mean().backward()
                adam.step()
            with torch.no_grad():
                found[fit, point], last[fit] = network(points[point : point + 1])[0], network(means)
    return found, last


@pytest.mark.parametrize(("objective", "steps"), [("nll", 2), ("dec", 2), ("nll", 1), ("dec", 3)])
def test_fits_are_those_of_one_adam_that_is_never_reset(objective, steps):
    task = leaked_task(objective=objective, steps=steps)
    found = train_each(task)
    expected, last = naive(task, assigned_labels(task))
    np.testing.assert_allclose(found.outputs["train"], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.outputs["means"], last, rtol=0, atol=1e-6)
    assert found.metrics == {"n_steps": steps, "n_diverged": 0}
    assert found.network is None


def test_fits_are_trained_on_the_labels_that_are_asked_for():
    assigned, components = (leaked_task(objective="nll", labels=labels) for labels in ("assigned", "components"))
    labels = assigned.splits["train"].labels
    assert (assigned_labels(assigned) != labels).any(), "numberings must differ for this test to mean anything"
    np.testing.assert_allclose(train_each(components).outputs["train"], naive(components, labels)[0], rtol=0, atol=1e-6)
    assert abs(train_each(assigned).outputs["train"] - train_each(components).outputs["train"]).max() > 1e-3


def test_the_tasks_losses_are_of_the_labels_that_the_fits_are_trained_on():
    assigned, components = (leaked_task(objective="nll", labels=labels) for labels in ("assigned", "components"))
    network = assigned.recipe.train(assigned, Training(edit=Edit(), seed=SEED, numerics=Numerics())).network
    for task, labels in ((assigned, assigned_labels(assigned)), (components, components.splits["train"].labels)):
        losses = task.losses(network, task.batch("train", np.arange(N)))
        expected = task.query_losses(network, "train", np.arange(N), labels)
        torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)


def test_the_first_fit_is_a_fresh_training_and_later_ones_are_not():
    task = leaked_task(objective="dec")
    outputs, first = train_each(task).outputs["train"], int(min(task.splits["train"].ids))
    network = task.recipe.train(task, Training(edit=Edit.removal([first]), seed=SEED, numerics=Numerics())).network
    fresh = task.outputs(network, "train", np.arange(N))
    np.testing.assert_allclose(outputs[0, 0], fresh[0], rtol=0, atol=1e-6)
    assert (abs(outputs[0] - fresh).max(1)[1:] > 1e-5).all()


@pytest.mark.parametrize("objective", ["dec", "nll"])
def test_the_base_training_is_that_of_recipe_dec_bit_for_bit(objective):
    weights = []
    for recipe in (DecTraining(objective=objective), LooLeaked(objective=objective)):
        task = mixture_task(recipe, n_train=N)
        network = recipe.train(task, Training(edit=Edit(), seed=SEED, numerics=Numerics())).network
        weights.append(b"".join(weight.numpy().tobytes() for weight in network.state_dict().values()))
    assert weights[0] == weights[1]


def test_some_points_can_be_left_out_and_the_same_bits_come_again():
    task = leaked_task(objective="nll")
    edit = Edit.each_left_out(task.splits["train"].ids[:4])
    first, again = (train_each(task, edit).outputs for _ in range(2))
    assert first["train"].shape == (4, N, 3)
    assert first["means"].shape == (4, 3, 3)
    assert all(first[split].tobytes() == again[split].tobytes() for split in first)


def test_test_points_must_be_measured():
    task = mixture_task(LooLeaked(), n_train=N, measured=("means",))
    with pytest.raises(ValueError, match="none is measured"):
        train_each(task)


def test_there_is_no_leak_to_speak_of_without_adam():
    with pytest.raises(ValueError, match="optimizer"):
        LooLeaked(optimizer="sgd")
