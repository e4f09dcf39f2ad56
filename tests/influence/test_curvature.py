"""Hessian-vector products, blocks and solvers against dense autograd and against each other."""

import numpy as np
import pytest
import torch
from convex_tasks import Logistic, Ridge, Words, autograd_hessian, curvature_of, point
from small_task import SmallBert, SmallCNN, SmallTask, checkpoint
from torch.nn.attention import SDPBackend, sdpa_kernel

from influence.methods.influence_function import InfluenceFunction
from influence.parameters import Selection
from influence.solvers import ConjugateGradients, Exact, LiSSA
from tasks.components import parse_component
from tasks.errors import InputError
from tasks.models.text_cnn import TextCNN


def assert_equal(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def vectors(curvature, n=3, seed=5):
    return torch.randn(n, len(curvature.theta), generator=torch.Generator().manual_seed(seed)).to(curvature.theta)


class RealCNN(SmallCNN):
    """The product's own convolutional model."""

    name = "text_cnn"

    def build(self, vocabulary):
        return TextCNN(embedding_dim=6, filters=4, kernel=3).build(3, vocabulary, 0)

    def forward(self, network, batch):
        return TextCNN().forward(network, batch)


class EagerBert(SmallBert):
    """As the product's encoder computes attention."""

    name = "eager_bert"

    def build(self, vocabulary):
        network = super().build(vocabulary)
        network.set_attn_implementation("eager")
        return network


NETWORKS = [SmallCNN(), RealCNN(), SmallBert(), EagerBert()]


def twice_backward(task, vectors):
    """Hessian of the mean loss times each vector, reverse over reverse with plain attention."""
    network, batch = task.network(0), task.batch("train", np.arange(len(task.splits["train"])))
    values = list(network.eval().parameters())
    with sdpa_kernel(SDPBackend.MATH):
        gradients = torch.autograd.grad(task.losses(network, batch).mean(), values, create_graph=True)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        rows = [torch.autograd.grad(flat @ v, values, retain_graph=True, materialize_grads=True) for v in vectors]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@pytest.mark.parametrize("task", [Ridge(), Logistic(), Words()], ids=lambda t: type(t).__name__)
def test_products_equal_the_rows_of_the_autograd_hessian(task):
    curvature, hessian = curvature_of(task, batch_size=7, pass_size=20), autograd_hessian(task)
    assert_equal(curvature.dense(), hessian)
    found = vectors(curvature)
    assert_equal(curvature.products(found), found @ hessian)


def test_rows_that_are_read_by_length_give_the_same_products_and_derivatives():
    task = SmallTask(SmallCNN(), dtype=torch.float64, vocabulary=8)
    whole, grouped = (
        curvature_of(one, state=checkpoint(task), batch_size=7) for one in (task, task.with_length_groups(4))
    )
    some, rows = vectors(whole), np.array([3, 20, 7, 7, 11, 0, 29, 15, 2])
    assert_equal(grouped.products(some), whole.products(some))
    assert_equal(grouped.products(some, rows), whole.products(some, rows))
    assert_equal(grouped.derivatives(rows, some), whole.derivatives(rows, some))


@pytest.mark.parametrize("model", NETWORKS, ids=lambda m: m.name)
def test_products_on_networks_equal_autograd_whatever_the_batch(model):
    task = SmallTask(model, n_train=11, dtype=torch.float64, vocabulary=8)
    whole, parts = (
        curvature_of(task, state=checkpoint(task), batch_size=n, pass_size=p) for n, p in ((64, 4096), (3, 9))
    )
    found = vectors(whole, 4)
    expected = twice_backward(task, found)
    assert_equal(whole.products(found), expected, 1e-8)
    assert_equal(parts.products(found), expected, 1e-8)


@pytest.mark.parametrize("model", NETWORKS, ids=lambda m: m.name)
def test_forward_derivatives_equal_reverse_gradients(model):
    task = SmallTask(model, n_train=11, dtype=torch.float64)
    curvature = curvature_of(task, state=checkpoint(task))
    found, rows = vectors(curvature, 4), np.array([5, 2, 9])
    batch = task.batch("train", rows)
    gradients = curvature.gradients(lambda network: task.losses(network, batch))
    assert_equal(curvature.derivatives(rows, found), found @ gradients.T, 1e-8)


def test_products_of_a_batch_are_those_of_its_mean_loss():
    task, rows = Logistic(), np.array([3, 8, 1, 30])
    whole, parts = curvature_of(task), [curvature_of(task) for _ in rows]
    found = vectors(whole)
    mean = sum(part.products(found, np.array([row])) for part, row in zip(parts, rows, strict=True)) / 4
    assert_equal(whole.products(found, rows), mean)
    everything = np.random.default_rng(0).permutation(60)
    assert_equal(whole.products(found, everything), whole.products(found))


def test_chosen_rows_give_the_block_of_the_dense_hessian():
    task, rows = Logistic(), np.array([2, 0])
    curvature, hessian = curvature_of(task, {"weight": rows}), autograd_hessian(task)
    inside = np.concatenate([np.arange(4) + 4 * row for row in rows])
    assert_equal(curvature.dense(), hessian[np.ix_(inside, inside)])


def test_values_substituted_are_values_flattened():
    network = SmallTask(SmallCNN()).network(0)
    chosen = Selection(network, {"linear.bias": None, "embedding.weight": np.array([4, 1]), "conv1.weight": None})
    assert [piece.name for piece in chosen.pieces] == ["embedding.weight", "conv1.weight", "linear.bias"]
    assert len(chosen) == 2 * 6 + 6 * 5 * 3 + 3
    theta = torch.arange(float(len(chosen)))
    named = chosen.parameters(theta)
    torch.testing.assert_close(chosen.flatten(named), theta)
    torch.testing.assert_close(named["embedding.weight"][[0, 2, 3]], network["embedding"].weight[[0, 2, 3]])
    torch.testing.assert_close(chosen.values[:12].view(2, 6), network["embedding"].weight[[4, 1]])


@pytest.mark.parametrize(("rows", "message"), [([1, 1], "repeat"), ([3], "outside 0..2"), ([-1], "outside")])
def test_rows_that_are_not_there_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        curvature_of(Logistic(), {"weight": np.array(rows)})
    with pytest.raises(ValueError, match=r"\['other'\] are not in the network"):
        curvature_of(Logistic(), {"other": None})


def test_blocks_of_independent_rows_equal_the_dense_hessian():
    task, rows = Words(), np.array([4, 0, 1, 7])
    curvature = curvature_of(task, {"words.weight": rows})
    assert curvature.independent
    assert 0 < curvature.touching.sum() < len(task.splits["train"])
    dense = autograd_hessian(task)[: 9 * 3, : 9 * 3]
    inside = (rows[:, None] * 3 + np.arange(3)).ravel()
    assert_equal(torch.block_diag(*curvature.blocks()[0]), dense[np.ix_(inside, inside)])
    with pytest.raises(ValueError, match="does not say that the rows"):
        curvature_of(task).blocks()


def test_the_exact_solver_uses_blocks_where_it_may_and_agrees_with_the_dense_one():
    task, rows = Words(), np.array([4, 0, 1, 7])
    curvature = curvature_of(task, {"words.weight": rows})
    found = vectors(curvature)
    solution = Exact(damping=0.1).solve(curvature, found)
    damped = curvature.dense() + 0.1 * torch.eye(12).double()
    assert_equal(solution.x, torch.linalg.solve(damped, found.T).T)
    assert solution.diagnostics["blocks"] == 4
    assert max(solution.diagnostics["residual"]) < 1e-12


def test_blocks_in_closed_form_are_taken_from_the_task():
    class Closed(Words):
        def row_hessians(self, network, name, rows):
            """sum over the targets c of a word w of sigma'(w.c) c c^T / 4 / n, four targets an example."""
            words, contexts = network["words"].weight, network["contexts"].weight
            found = torch.zeros(len(rows), self.width, self.width).double()
            for word, context in zip(self.words.ravel(), self.contexts.ravel(), strict=True):
                for position in np.flatnonzero(rows == word):
                    slope = torch.sigmoid(words[word] @ contexts[context])
                    found[position] += slope * (1 - slope) * torch.outer(contexts[context], contexts[context])
            return found / self.words.size

    for chosen in (np.array([4, 0, 1]), None):
        closed, products = (curvature_of(task, {"words.weight": chosen}) for task in (Closed(), Words()))
        assert_equal(closed.blocks()[0], products.blocks()[0])


def test_a_mixed_selection_is_not_independent():
    curvature = curvature_of(Words(), {"words.weight": np.array([1]), "contexts.weight": None})
    assert not curvature.independent
    assert curvature.touching.all()


def test_exact_cg_and_lissa_agree_on_a_convex_problem():
    task = Logistic()
    curvature = curvature_of(task, state=point(task, task.fitted()))
    found = vectors(curvature)
    damping, scale = 0.04, 1.5
    exact = Exact(damping=damping * scale).solve(curvature, found)
    cg = ConjugateGradients(damping=damping * scale, tolerance=1e-12).solve(curvature, found)
    lissa = LiSSA(damping=damping, scale=scale, depth=250, batch_size=60).solve(curvature, found)
    expected = torch.linalg.solve(
        autograd_hessian(task, point(task, task.fitted())) + 0.06 * torch.eye(12).double(), found.T
    ).T
    for solution, tolerance in ((exact, 1e-10), (cg, 1e-9), (lissa, 1e-7)):
        assert_equal(solution.x, expected, tolerance)
        assert solution.diagnostics["effective_damping"] == pytest.approx(0.06)
        assert not solution.diverged.any()
        assert max(solution.diagnostics["residual"]) < 1e-6
    assert all(cg.diagnostics["converged"])


def test_lissa_on_batches_is_near_and_its_repeats_are_averaged():
    task = Logistic()
    curvature, options = curvature_of(task), {"damping": 0.1, "scale": 5.0, "depth": 80, "batch_size": 20}
    found = vectors(curvature)
    expected = Exact(damping=0.5).solve(curvature, found).x
    one, many = (LiSSA(**options, repeats=n).solve(curvature, found) for n in (1, 4))
    errors = [float((s.x - expected).norm() / expected.norm()) for s in (one, many)]
    assert errors[1] < errors[0] < 0.2
    assert torch.equal(LiSSA(**options).solve(curvature, found).x, one.x)
    assert not torch.equal(LiSSA(**options, seed=1).solve(curvature, found).x, one.x)


def test_lissa_without_the_last_division_is_scale_times_as_long():
    curvature = curvature_of(Logistic())
    found = vectors(curvature)
    plain, published = (LiSSA(scale=8.0, depth=50, rescale=r).solve(curvature, found) for r in (True, False))
    assert_equal(published.x, 8 * plain.x)
    assert published.diagnostics["residual"] == plain.diagnostics["residual"]


def test_lissa_in_the_given_order_is_the_published_recursion():
    task = Logistic()
    curvature = curvature_of(task)
    v = vectors(curvature, 1)
    h = v.clone()
    for row in [*range(60), *range(10)]:
        h = v + (1 - 0.01) * h - curvature.products(h, np.array([row])) / 25
    solver = LiSSA(depth=70, batch_size=1, order="given", rescale=False, max_residual=100.0)
    assert_equal(solver.solve(curvature, v).x, h)


@pytest.mark.parametrize("depth", [15, 120])
def test_lissa_that_diverges_is_told_for_each_vector(depth):
    """Where scale is below half of the largest eigenvalue; a vector without that direction is solved all the same."""
    task = Ridge()
    curvature = curvature_of(task)
    values, directions = torch.linalg.eigh(curvature.dense())
    found = torch.stack([directions[:, -1], directions[:, 0], vectors(curvature, 1)[0]])
    safe = LiSSA(damping=0.0, scale=float(values[-1]) * 0.55, depth=depth, batch_size=60).solve(curvature, found)
    wild = LiSSA(damping=0.0, scale=float(values[-1]) * 0.45, depth=depth, batch_size=60).solve(curvature, found)
    assert safe.diverged.tolist() == [False, False, False]
    assert wild.diverged[[0, 2]].all()
    assert not wild.x[0].any()
    assert torch.isfinite(wild.x).all()


def test_negative_curvature_is_refused_by_exact_with_the_damping_that_would_do_and_told_by_cg():
    task = SmallTask(SmallCNN(), dtype=torch.float64)
    curvature = curvature_of(task, state=checkpoint(task))
    smallest = float(torch.linalg.eigvalsh(curvature.dense())[0])
    assert smallest < -1e-4
    with pytest.raises(
        InputError, match=rf"smallest eigenvalue of the Hessian is {smallest:.3g}; a damping above {-smallest:.3g}"
    ):
        Exact().solve(curvature, vectors(curvature))
    assert not Exact(damping=-1.01 * smallest).solve(curvature, vectors(curvature)).diverged.any()
    solution = ConjugateGradients(damping=0.0).solve(
        curvature, torch.cat([vectors(curvature), 0 * vectors(curvature, 1)])
    )
    assert solution.diverged.tolist() == [True, True, True, False]
    assert solution.diagnostics["negative_curvature"] == [True, True, True, False]
    assert not solution.x.any()


def test_cg_that_does_not_converge_keeps_its_x_and_says_so():
    curvature = curvature_of(Logistic())
    solution = ConjugateGradients(max_iterations=2, tolerance=1e-9).solve(curvature, vectors(curvature))
    assert not any(solution.diagnostics["converged"])
    assert solution.diagnostics["iterations"] == [2, 2, 2]
    assert not solution.diverged.any()
    assert all(solution.x.any(1))


def test_a_zero_vector_has_a_zero_solution():
    curvature = curvature_of(Logistic())
    for solver in (Exact(), ConjugateGradients(), LiSSA(depth=5)):
        solution = solver.solve(curvature, torch.zeros(1, 12).double())
        assert not solution.x.any()
        assert solution.diagnostics["residual"] == [0.0]


def test_the_residual_check_can_be_off_and_is_counted_apart_from_the_steps_of_the_solver():
    found, told = vectors(curvature_of(Logistic()), 3), []
    for solver in (LiSSA(scale=10.0, depth=6, batch_size=20), ConjugateGradients(damping=0.1, tolerance=1e-3)):
        with_check, without = (
            s.solve(curvature_of(Logistic(), batch_size=20), found)
            for s in (solver, solver.model_copy(update={"check_residual": False}))
        )
        assert torch.equal(with_check.x, without.x)
        assert without.diagnostics["residual"] == [None] * 3
        assert with_check.diagnostics["batch_products"]["check"] == 3 * 3
        assert without.diagnostics["batch_products"]["check"] == 0
        told += [d.diagnostics["batch_products"]["solver"] for d in (with_check, without)]
    assert told[:2] == [3 * 6] * 2
    assert told[2:] == [3 * sum(with_check.diagnostics["iterations"])] * 2
    assert without.diagnostics["converged"] == [True] * 3
    short = ConjugateGradients(damping=0.1, max_iterations=1, check_residual=False).solve(
        curvature_of(Logistic()), found
    )
    assert short.diagnostics["converged"] == [False] * 3
    off = InfluenceFunction(solver=LiSSA(check_residual=False)).identity()["solver"]
    assert off.pop("check_residual") is False
    assert off == InfluenceFunction(solver=LiSSA()).identity()["solver"]


def test_more_parameters_than_the_exact_solver_takes_are_refused():
    with pytest.raises(InputError, match="12 parameters are more than max_parameters 11"):
        Exact(max_parameters=11).solve(curvature_of(Logistic()), torch.zeros(1, 12).double())
    words = curvature_of(Words(), {"words.weight": np.arange(9)})
    Exact(max_parameters=3, damping=0.01).solve(words, vectors(words))


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (
            {"name": "exact", "depth": 3},
            "unknown key 'depth' of the solver exact; allowed: damping, indefinite, max_parameters, name",
        ),
        ({"name": "newton"}, "'exact', 'cg', 'lissa'"),
        ({"damping": 0.1}, "name"),
        ({"name": "cg", "damping": -1}, "greater than or equal to 0"),
        ({"name": "lissa", "order": "given", "repeats": 2}, "repeats must be 1"),
        ({"name": "lissa", "depth": "9"}, "valid integer"),
    ],
)
def test_solver_options_are_checked(solver, message):
    with pytest.raises(InputError, match=message) as error:
        parse_component(InfluenceFunction, {"solver": solver}, "config.yaml", "methods.0")
    assert "methods.0.solver" in error.value.where


def test_absolute_takes_the_size_of_negative_curvature_and_agrees_where_there_is_none():
    class Bowl:
        """A Hessian with the eigenvalues asked for, along the axes."""

        independent = False

        def __init__(self, eigenvalues):
            self.diagonal = torch.tensor(eigenvalues, dtype=torch.float64)
            self.theta = self.diagonal
            self.selection = type("Selection", (), {"pieces": []})()

        def dense(self):
            return torch.diag(self.diagonal)

    vectors = torch.tensor([[1.0, 2.0, -3.0]], dtype=torch.float64)
    saddle = Exact(damping=0.5, indefinite="absolute").solve(Bowl([2.0, -4.0, 0.5]), vectors)
    torch.testing.assert_close(saddle.x, vectors / torch.tensor([2.5, 4.5, 1.0], dtype=torch.float64))
    with pytest.raises(InputError, match="-4"):
        Exact(damping=0.5).solve(Bowl([2.0, -4.0, 0.5]), vectors)
    same = [
        Exact(damping=0.5, indefinite=how).solve(Bowl([2.0, 4.0, 0.5]), vectors).x for how in ("refuse", "absolute")
    ]
    torch.testing.assert_close(*same)
