import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap

from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.gaussians import FIRST_TRAIN_ID, MixtureConfig
from tasks.recipes.dec import DecTraining
from tasks.registry import TASKS
from tasks.task import OpenRequest
from tests.gaussian_fakes import mixture_task

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch._decomp.decompositions_for_jvp  # forward mode would load them at its first use

ROOT = Path(__file__).parents[2]
CONFIG = {"name": "gaussians", "model": {"name": "dec"}, "recipe": {"name": "dec"}}
EVERY = np.arange(24)


def opened(**options):
    return parse_named(TASKS, {**CONFIG, **options}, "c.yaml", "task").open(OpenRequest(Path(), where="c.yaml"))


def task_of(objective):
    return mixture_task(DecTraining(objective=objective))


def assignments(network, points):
    """q [n, k] in numpy, from the formula."""
    weights = {name: weight.detach().numpy().astype(float) for name, weight in network.named_parameters()}
    hidden = np.maximum(points @ weights["encoder.0.weight"].T + weights["encoder.0.bias"], 0)
    encoded = hidden @ weights["encoder.2.weight"].T + weights["encoder.2.bias"]
    kernel = 1 / (1 + ((encoded[:, None] - weights["centroids"]) ** 2).sum(2))
    return kernel / kernel.sum(1, keepdims=True)


def targets(q):
    p = q**2 / q.sum(0)
    return p / p.sum(1, keepdims=True)


def test_the_mixture_is_that_of_the_paper():
    train, means = (opened().splits[split] for split in ("train", "means"))
    assert train.features.shape == (150, 2)
    assert train.features.dtype == np.float32
    np.testing.assert_array_equal(train.labels, np.repeat([0, 1, 2], 50))
    np.testing.assert_array_equal(train.ids, FIRST_TRAIN_ID + np.arange(150))
    np.testing.assert_array_equal(means.features, [[0, 0], [5, 5], [5, -5]])
    many = MixtureConfig(per_class=20_000).splits()["train"]
    residuals = many.features.astype(float) - means.features[many.labels]
    assert abs(residuals.mean()) < 0.02
    np.testing.assert_allclose(np.cov(residuals.T), 1.25**2 * np.eye(2), atol=0.05)


def test_the_data_seed_alone_decides_the_points():
    first, again, other = (MixtureConfig(seed=seed).splits()["train"].features for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_identities_tell_points_and_starts_apart():
    task = task_of("dec")
    noisy = task.with_noise_in(task.splits["train"].ids[:1])
    assert noisy.train_identity()["train"] != task.train_identity()["train"]
    assert noisy.train_identity()["start"] == task.train_identity()["start"]
    assert opened().train_identity() != opened(data={"seed": 1}).train_identity()
    assert opened(measure=[{"split": "means"}]).record_identity() != opened().record_identity()
    assert opened(data={"std": 2.0}).record_identity() != opened().record_identity()


def test_opening_and_identities_need_neither_torch_nor_sklearn():
    program = f"""
import sys
from pathlib import Path
from tasks.components import parse_named
from tasks.registry import TASKS
from tasks.task import OpenRequest
task = parse_named(TASKS, {CONFIG!r}, "c", "task").open(OpenRequest(Path()))
task.train_identity(), task.model_identity(), task.record_identity(), task.recipe.identity()
sys.exit(bool({{"torch", "sklearn"}} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": {"name": "text_cnn"}}, "task.model.name: 'text_cnn' fits tasks of text, not gaussians"),
        ({"recipe": {"name": "finetune"}}, "task.recipe.name: 'finetune' fits tasks of text, not gaussians"),
        ({"measure": [{"split": "test"}]}, "task.measure.0.split: no split 'test'; splits: train, means"),
        ({"data": {"means": [[0.0, 0.0], [1.0]]}}, "task.data: "),
        ({"data": {"std": 0.0}}, "task.data.std: 0.0"),
    ],
)
def test_wrong_options_are_refused_by_key(options, message):
    with pytest.raises(InputError, match=r"^c\.yaml: ") as caught:
        opened(**options)
    assert message in str(caught.value)


def test_outputs_are_log_assignments_and_depend_on_no_other_row():
    task = task_of("dec")
    network = task.network(1)
    outputs = task.outputs(network, "train", EVERY)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(np.exp(outputs), assignments(network, task.splits["train"].features), atol=1e-6)
    some = np.array([7, 2, 19])
    assert task.outputs(network, "train", some).tobytes() == outputs[some].tobytes()


def test_double_networks_give_the_same_outputs():
    task = task_of("dec")
    single = task.outputs(task.network(1), "means", np.arange(3))
    double = task.outputs(task.network(1).double(), "means", np.arange(3))
    np.testing.assert_allclose(double, single, atol=1e-6)


def test_blank_rows_are_neutral():
    task, blank = task_of("nll"), np.array([False, True, False])
    noisy = task.with_noise_in(task.splits["train"].ids[1:2])
    batch, other = (each.batch("train", np.arange(3), blank=blank) for each in (task, noisy))
    assert all(torch.equal(batch[name], other[name]) for name in batch)
    assert batch["labels"][1] == 0


def test_losses_of_the_supervised_twin_are_minus_log_assignments():
    task = task_of("nll")
    network, train = task.network(1).double(), task.splits["train"]
    expected = -np.log(assignments(network, train.features)[EVERY, train.labels])
    losses = task.losses(network, task.batch("train", EVERY)).detach().numpy()
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_losses_of_clustering_are_divergences_from_the_target_of_the_full_train_set():
    task, rows = task_of("dec"), np.array([3, 11])
    network = task.network(1).double()
    q = assignments(network, task.splits["train"].features)
    p = targets(q)
    losses = task.losses(network, task.batch("train", rows)).detach().numpy()
    np.testing.assert_allclose(losses, (p * np.log(p / q)).sum(1)[rows], rtol=1e-10)


def test_second_derivatives_see_the_target_fixed():
    task = task_of("dec")
    network, batch = task.network(1).double(), task.batch("train", EVERY)
    parameters = {name: weight.detach() for name, weight in network.named_parameters()}
    direction = {name: torch.randn(weight.shape, dtype=torch.float64) for name, weight in parameters.items()}
    p = torch.from_numpy(targets(assignments(network, task.splits["train"].features)))

    def cross_entropy(named):
        return -(p * functional_call(network, named, (batch["features"],))).sum(1).mean()

    def mean_loss(named):
        return called(Losses(task, network, batch), named).mean()

    found, expected = (jvp(grad(loss), (parameters,), (direction,))[1] for loss in (mean_loss, cross_entropy))
    for name in parameters:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12)


class Losses(torch.nn.Module):
    """A task's losses of a batch as a module, whose parameters functional_call can replace."""

    def __init__(self, task, network, batch):
        super().__init__()
        self.task, self.network, self.batch = task, network, batch

    def forward(self):
        return self.task.losses(self.network, self.batch)


def called(losses, named):
    return functional_call(losses, {f"network.{name}": weight for name, weight in named.items()}, ())


@pytest.mark.parametrize("objective", ["dec", "nll"])
def test_per_example_gradients_can_be_vectorised(objective):
    task = task_of(objective)
    network, whole = task.network(1).double(), task.batch("train", EVERY)
    parameters = {name: weight.detach() for name, weight in network.named_parameters()}

    def loss(named, example):
        batch = {name: values.unsqueeze(0) for name, values in example.items()}
        return called(Losses(task, network, batch), named).sum()

    found = vmap(grad(loss), (None, 0))(parameters, whole)
    losses = task.losses(network, whole)
    for name, weight in network.named_parameters():
        expected = torch.stack([torch.autograd.grad(each, weight, retain_graph=True)[0] for each in losses])
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)


def test_query_losses_are_those_of_the_given_labels_whatever_the_objective():
    task, rows, labels = task_of("dec"), np.array([4, 9]), np.array([2, 0])
    network = task.network(1).double()
    expected = -np.log(assignments(network, task.splits["train"].features)[rows, labels])
    np.testing.assert_allclose(task.query_losses(network, "train", rows, labels).detach().numpy(), expected, rtol=1e-12)


def test_labels_are_the_clusters_that_a_model_gives_the_means():
    task = task_of("dec")
    outputs = {"means": np.log(np.array([[0.1, 0.2, 0.7], [0.6, 0.2, 0.2], [0.5, 0.1, 0.4]], np.float32))}
    labels, components = task.query_labels("train", EVERY, outputs), task.splits["train"].labels
    np.testing.assert_array_equal(labels, np.array([2, 0, 0])[components])
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(task.query_labels("means", np.array([2, 0]), outputs), [0, 2])


def test_another_numbering_of_the_clusters_is_another_labelling():
    task, order = task_of("dec"), [1, 2, 0]
    network = task.network(1)
    before = task.query_labels("train", EVERY, {"means": task.outputs(network, "means", np.arange(3))})
    with torch.no_grad():
        network.centroids.copy_(network.centroids[order])
    after = task.query_labels("train", EVERY, {"means": task.outputs(network, "means", np.arange(3))})
    np.testing.assert_array_equal(np.array(order)[after], before)


@pytest.mark.parametrize("outputs", [{}, {"means": np.zeros((2, 3), np.float32)}])
def test_labels_need_the_output_at_every_mean(outputs):
    with pytest.raises(ValueError, match="measure the split means"):
        task_of("dec").query_labels("train", EVERY, outputs)


def test_tasks_survive_a_process_boundary():
    task = pickle.loads(pickle.dumps(opened()))
    assert task.train_identity() == opened().train_identity()
    one, other = (each.network(5).state_dict() for each in (task, opened()))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_edits_name_ids_and_not_positions():
    task = opened()
    with pytest.raises(KeyError, match="id 0 "):
        Edit.removal([0]).weights_of(task.splits["train"].ids)
