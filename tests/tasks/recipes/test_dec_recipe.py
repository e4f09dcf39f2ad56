import copy

import numpy as np
import pytest
import torch

from tasks import stacked
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.models.cluster_network import ClusterNetwork, cluster_masses, objective_losses
from tasks.recipe import Training
from tasks.recipes.dec import DecTraining, each_weights
from tasks.stacked import ClusterStack, StackedAdam, StackedSGD, finite_or_nan
from tests.edits import reweighting
from tests.gaussian_fakes import every_one_left_out, mixture_task

OBJECTIVES = ("dec", "nll")
DOUBLE = Numerics(dtype="float64")
PROTOCOLS = {
    "two_adam_steps": {"steps": 2},
    "two_sgd_steps": {"steps": 2, "optimizer": "sgd", "learning_rate": 0.1},
    "long_sgd": {"steps": 40, "optimizer": "sgd", "learning_rate": 0.1},
    "300_adam_steps_in_double": {"steps": 300, "dtype": "float64"},
}


def train(task, edit=None, numerics=None, **options):
    return task.recipe.train(task, Training(edit=edit or Edit(), seed=5, numerics=numerics or Numerics(), **options))


def train_each(task, edit, numerics=None):
    return task.recipe.train_each(task, Training(edit=edit, seed=5, numerics=numerics or Numerics()))


def singles(task, edits):
    """Measured split -> outputs [n_edits, n_rows, k] of as many trainings."""
    networks = [train(task, edit).network for edit in edits]
    return {
        split: np.stack([task.outputs(network, split, rows) for network in networks])
        for split, rows in task.measured.items()
    }


@pytest.fixture(params=OBJECTIVES)
def objective(request):
    return request.param


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_a_stack_equals_as_many_trainings(objective, protocol):
    task = mixture_task(DecTraining(objective=objective, **PROTOCOLS[protocol]))
    ids = np.sort(task.splits["train"].ids)[:: 1 if task.recipe.steps < 300 else 9]
    found = train_each(task, Edit.each_left_out(ids))
    expected = singles(task, [Edit.removal([i]) for i in ids])
    assert found.network is None
    assert found.metrics == {"n_steps": task.recipe.steps, "n_diverged": 0}
    assert found.outputs.keys() == expected.keys() == {"train", "means"}
    for split, outputs in found.outputs.items():
        assert outputs.dtype == np.float32
        np.testing.assert_allclose(outputs, expected[split], rtol=0, atol=1e-5)
        assert np.ptp(outputs, axis=0).max() > 1e-4, "members must differ for this test to mean anything"


def test_members_have_the_weights_of_the_edit(objective):
    task = mixture_task(DecTraining(objective=objective, optimizer="sgd", learning_rate=0.1))
    ids, weights = tuple(sorted(int(i) for i in task.splits["train"].ids[:3])), (0.5, 2.0, -1.0)
    found = train_each(task, Edit(ids, weights, "each")).outputs
    expected = singles(task, [reweighting({i: w}) for i, w in zip(ids, weights, strict=True)])
    for split in expected:
        np.testing.assert_allclose(found[split], expected[split], rtol=0, atol=1e-5)


def test_what_a_member_leaves_out_changes_none_of_its_bits(objective):
    task = mixture_task(DecTraining(objective=objective, steps=5), measured=("means",))
    edit, first = every_one_left_out(task), min(task.splits["train"].ids)
    noisy = task.with_noise_in(np.array([first]))
    one, other = (train_each(each, edit).outputs["means"] for each in (task, noisy))
    assert one[0].tobytes() == other[0].tobytes()
    assert (one[1:] != other[1:]).any(axis=(1, 2)).all()


def test_the_same_stack_gives_the_same_bits(objective):
    task = mixture_task(DecTraining(objective=objective, steps=5))
    first, again = (train_each(task, every_one_left_out(task)).outputs for _ in range(2))
    assert all(first[split].tobytes() == again[split].tobytes() for split in first)


def test_how_many_members_share_the_cache_moves_rounding_only(objective, monkeypatch):
    task = mixture_task(DecTraining(objective=objective))
    whole = train_each(task, every_one_left_out(task), DOUBLE).outputs
    monkeypatch.setattr(stacked, "CHUNK_ELEMENTS", 5 * 24 * 6)
    parts = train_each(task, every_one_left_out(task), DOUBLE).outputs
    for split in whole:
        np.testing.assert_allclose(parts[split], whole[split], rtol=1e-6)


@pytest.mark.parametrize("edit", [Edit(), Edit.removal([100]), Edit.removal([100], "drop")])
def test_only_stacks_are_trained_as_stacks(edit):
    with pytest.raises(ValueError, match="mode each"):
        train_each(mixture_task(DecTraining()), edit)


def test_a_stack_of_unknown_ids_is_refused():
    with pytest.raises(KeyError, match="id 99 "):
        train_each(mixture_task(DecTraining()), Edit.each_left_out([99, 100]))


def test_a_stack_in_which_every_member_diverges_has_diverged(objective):
    task = mixture_task(DecTraining(objective=objective, optimizer="sgd", learning_rate=1e30, steps=4))
    found = train_each(task, every_one_left_out(task))
    assert found.diverged
    assert found.metrics["n_diverged"] == 24
    assert np.isnan(found.outputs["means"]).all()


def test_members_that_are_not_finite_are_nan_and_others_stay():
    theta, outputs = torch.zeros(3, 2), torch.ones(3, 4, 2)
    theta[0, 1], outputs[1, 2, 0] = torch.inf, -torch.inf
    found = finite_or_nan(outputs, theta)
    assert np.isnan(found[:2]).all()
    assert (found[2] == 1).all()


@pytest.mark.parametrize(("n_features", "hidden", "n_clusters"), [(2, 12, 3), (3, 4, 5), (1, 1, 2)])
def test_closed_form_gradients_are_those_of_autograd(objective, n_features, hidden, n_clusters):
    random = torch.Generator().manual_seed(3)
    points = torch.randn(20, n_features, generator=random, dtype=torch.float64)
    labels = torch.randint(n_clusters, (20,), generator=random)
    weights = torch.rand(2, 20, generator=random, dtype=torch.float64)
    weights[1, :15] = 0  # its denominator is max(sum w, 1)
    weights[1] /= 2 * weights[1].sum()
    network = ClusterNetwork(n_features, hidden, n_clusters).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=random)
    stack = ClusterStack(network, objective, points, labels)
    found = stack.gradients_at(weights)(stack.start().repeat(2, 1))
    expected = torch.stack([autograd(network, objective, points, labels, weight) for weight in weights])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def autograd(network, objective, points, labels, weight):
    """The gradient of the weighted loss, in the order of a stack's rows."""
    log_q = network(points)
    losses = objective_losses(objective, log_q, labels, cluster_masses(log_q, weight))
    network.zero_grad()
    ((weight * losses).sum() / max(float(weight.sum()), 1.0)).backward()
    gradients = copy.deepcopy(network)
    with torch.no_grad():
        for parameter, original in zip(gradients.parameters(), network.parameters(), strict=True):
            parameter.copy_(original.grad)
    return ClusterStack(gradients, objective, points, labels).start()


def test_stacked_outputs_are_those_of_each_network():
    task = mixture_task(DecTraining())
    networks = [task.network(seed).double() for seed in (1, 2)]
    points = task.batch("train", np.arange(24))["features"]
    stacks = [ClusterStack(network, "dec", points, torch.zeros(24, dtype=torch.int64)) for network in networks]
    found = stacks[0].log_q(torch.stack([stack.start() for stack in stacks]), points)
    torch.testing.assert_close(found, torch.stack([network(points) for network in networks]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_stacked_optimisers_take_the_steps_of_torchs(kind):
    random = torch.Generator().manual_seed(0)
    theta = torch.randn(3, 7, generator=random, dtype=torch.float64)
    expected = [row.clone().requires_grad_() for row in theta]
    ours = StackedAdam(0.01) if kind == "adam" else StackedSGD(0.01)
    theirs = (torch.optim.Adam if kind == "adam" else torch.optim.SGD)(expected, lr=0.01)
    for scale in (1, 1e-3, 1e-9, 10, 0):
        gradient = scale * torch.randn(3, 7, generator=random, dtype=torch.float64)
        ours.step(theta, gradient)
        for row, part in zip(expected, gradient, strict=True):
            row.grad = part.clone()
        theirs.step()
    torch.testing.assert_close(theta, torch.stack([row.detach() for row in expected]), rtol=1e-12, atol=1e-14)


def test_one_sgd_step_follows_the_mean_of_the_tasks_losses(objective):
    task = mixture_task(DecTraining(objective=objective, optimizer="sgd", learning_rate=0.3, steps=1))
    start = task.network(5).double()
    loss = task.losses(start, task.batch("train", np.arange(24))).mean()
    gradients = torch.autograd.grad(loss, list(start.parameters()))
    trained = train(task, numerics=DOUBLE)
    for weight, before, gradient in zip(trained.network.parameters(), start.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight, before - 0.3 * gradient, rtol=1e-10, atol=1e-12)
    assert trained.metrics["train_loss"] == pytest.approx(loss.item())


def test_removed_points_have_no_part_in_the_target():
    task = mixture_task(DecTraining(objective="dec", steps=4))
    edit = [int(i) for i in task.splits["train"].ids[:9]]
    masked, dropped = (train(task, Edit.removal(edit, mode), DOUBLE).network for mode in ("mask", "drop"))
    for one, other in zip(masked.parameters(), dropped.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_double_recipe_is_double_under_single_numerics(objective):
    double = mixture_task(DecTraining(objective=objective, dtype="float64"))
    wide, numerics = train(double).network, train(mixture_task(DecTraining(objective=objective)), None, DOUBLE).network
    for one, other in zip(wide.parameters(), numerics.parameters(), strict=True):
        assert one.dtype == torch.float64
        assert torch.equal(one, other)


def test_training_goes_on_from_a_parent(objective):
    short, long = (
        mixture_task(DecTraining(objective=objective, optimizer="sgd", steps=steps, learning_rate=0.1))
        for steps in (3, 6)
    )
    parent = {name: weight.numpy() for name, weight in train(short).network.state_dict().items()}
    twice, once = train(short, parent=parent).network, train(long).network
    assert all(torch.equal(one, other) for one, other in zip(twice.parameters(), once.parameters(), strict=True))


def test_weights_of_a_stack_are_one_row_per_id():
    task = mixture_task(DecTraining())
    ids = task.splits["train"].ids
    weights = each_weights(task, Edit((int(ids[4]), int(ids[9])), (0.0, 3.0), "each"), torch.zeros(1))
    expected = np.ones((2, 24))
    expected[0, 4], expected[1, 9] = 0, 3
    np.testing.assert_array_equal(weights, expected)


def test_an_epoch_is_a_step():
    recipe = DecTraining(steps=7)
    assert [recipe.checkpoint_step(150, epoch) for epoch in (0.2, 1, 7)] == [1, 1, 7]
    assert recipe.checkpoint_step(150, recipe.last_epoch()) == recipe.steps
    assert recipe.learning_rate_at(150, 7) == 1e-3
