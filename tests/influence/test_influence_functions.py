"""Influence functions against refits in closed form, and what they promise beside the contract of all methods."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from convex_tasks import Logistic, Ridge, Words, autograd_hessian, point, queries_of
from small_task import SmallBert, SmallCNN, SmallTask, checkpoint, query_block

from influence.methods.cross_loss_influence import CrossLossInfluence
from influence.methods.influence_function import InfluenceFunction
from influence.methods.influence_last import InfluenceLast
from influence.methods.representer import Representer
from influence.methods.tracin import TracIn
from influence.scoring import Scorer, row_contributions
from influence.solvers import ConjugateGradients, Exact, LiSSA
from tasks.errors import InputError, RefitError
from tests.fakes import NamelessTask


def scorer(task, method, points=None, queries=None, **options):
    points, queries = points or [point(task)], queries or queries_of(task)
    return Scorer(task, points, queries, {"m": method}, {"m": None}, **options)


def score(task, method, points=None, queries=None, **options):
    return scorer(task, method, points, queries, **options).score_range(0, len(task.splits["train"]))["m"]


def query_losses(task, weights):
    network = task.network(0)
    network.load_state_dict({"weight": torch.as_tensor(weights).view_as(network.weight)})
    found = queries_of(task)
    return task.query_losses(network, "test", found.rows, found.labels).detach().numpy()


def test_exact_cross_loss_influence_predicts_leave_one_out_refits_of_ridge_regression():
    """Trained on squared error, asked about log cosh: what each removal does, in the unit of the query loss."""
    task = Ridge(n_train=200)
    scores = score(task, CrossLossInfluence(solver=Exact()), [point(task, task.fitted())])
    before = query_losses(task, task.fitted())
    # ridge without i, with the penalty's weight kept relative to the loss as it was: Koh and Liang remove -1/n of weight
    x, y, n = task.splits["train"].features, task.targets["train"], 200
    hessian, right = x.T @ x / n + task.penalty_weight * np.eye(5), x.T @ y / n
    refits = [np.linalg.solve(hessian - np.outer(x[i], x[i]) / n, right - y[i] * x[i] / n) for i in range(n)]
    change = np.stack([query_losses(task, w) - before for w in refits], 1)
    for predicted, actual in zip(scores, change, strict=True):
        assert np.corrcoef(predicted, actual)[0, 1] >= 0.999
        assert 0.9 < np.polyfit(actual, predicted, 1)[0] < 1.05
    renormalised = np.stack([query_losses(task, task.fitted(without=i)) - before for i in range(n)], 1)
    assert all(np.corrcoef(p, a)[0, 1] >= 0.999 for p, a in zip(scores, renormalised, strict=True))


def test_scores_are_the_derivative_of_the_query_loss_in_the_weight_of_an_example():
    task, step, n = Logistic(), 1e-3, 60
    scores = score(task, InfluenceFunction(solver=Exact()), [point(task, task.fitted())])
    batch, targets = torch.tensor(task.splits["test"].features), torch.tensor(task.splits["test"].labels)

    def losses(weights):
        return torch.nn.functional.cross_entropy(batch @ weights.T, targets, reduction="none").numpy()

    for i in (0, 17, 42):
        bump = np.eye(n)[i] * step
        slope = (losses(task.fitted(1 + bump)) - losses(task.fitted(1 - bump))) / (2 * step)
        np.testing.assert_allclose(scores[:, i], -slope, rtol=1e-3, atol=1e-3 * np.abs(slope).max())


def test_scores_are_the_formula_in_dense_matrices():
    task = SmallTask(SmallCNN(), n_train=12, dtype=torch.float64)
    network, damping = task.network(0), 2.0
    values = list(network.parameters())

    def gradients(split, rows):
        batch = task.batch(split, rows)
        losses = task.losses(network, batch)
        flat = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, values, retain_graph=True)]) for loss in losses
        ]
        return torch.stack(flat)

    hessian = autograd_hessian(task, checkpoint(task)) + damping * torch.eye(sum(v.numel() for v in values)).double()
    queries = query_block(task)
    expected = gradients("test", queries.rows) @ torch.linalg.solve(hessian, gradients("train", np.arange(12)).T) / 12
    for solver in (Exact(damping=damping), ConjugateGradients(damping=damping, tolerance=1e-10)):
        found = score(task, InfluenceFunction(solver=solver), [checkpoint(task)], queries)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("model", [SmallCNN(), SmallBert()], ids=lambda m: m.name)
def test_matched_and_cross_loss_agree_on_a_classifier(model):
    task, solver = SmallTask(model), ConjugateGradients(damping=3.0, tolerance=1e-6)
    queries = query_block(task)
    asked = replace(queries, labels=(queries.labels + 1) % 3)  # labels that are not the gold ones
    one, other = (
        score(task, m(solver=solver), [checkpoint(task)], asked) for m in (InfluenceFunction, CrossLossInfluence)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * np.abs(one).max())


def test_a_large_damping_gives_the_plain_inner_product_of_gradients():
    task = SmallTask(SmallCNN())
    plain = score(task, TracIn(bias=True), [checkpoint(task)], query_block(task))
    found = score(task, InfluenceFunction(solver=Exact(damping=1e4)), [checkpoint(task)], query_block(task))
    np.testing.assert_allclose(found * 1e4 * 30, plain, rtol=1e-3, atol=1e-3 * np.abs(plain).max())


@pytest.mark.parametrize(
    "solver", [Exact(damping=2.0), ConjugateGradients(damping=2.0), LiSSA(scale=50.0, damping=0.1, depth=6)]
)
@pytest.mark.parametrize("size", [1, 7])
def test_shards_and_batches_change_no_score(solver, size):
    task, queries = SmallTask(SmallCNN()), query_block(SmallTask(SmallCNN()))
    method = CrossLossInfluence(solver=solver, batch_size=9, pass_size=300)
    whole = score(task, method, [checkpoint(task)], queries)
    parts = scorer(task, method, [checkpoint(task)], queries, batch_size=5)
    found = np.concatenate([parts.score_range(s, min(s + size, 30))["m"] for s in range(0, 30, size)], 1)
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())


def test_lissa_scores_do_not_depend_on_the_order_of_the_train_set():
    task, moved, order = Logistic(), Logistic(), np.random.default_rng(0).permutation(60)
    split = task.splits["train"]
    moved.splits["train"] = replace(
        split, ids=split.ids[order], labels=split.labels[order], features=split.features[order]
    )
    method = InfluenceFunction(solver=LiSSA(depth=9, batch_size=8))
    np.testing.assert_allclose(score(moved, method), score(task, method)[:, order], rtol=1e-5)


def test_scores_are_the_mean_over_scoring_models_at_their_last_checkpoint():
    task, method = Logistic(), InfluenceFunction(solver=Exact())
    one, two = (replace(point(task, np.full(12, 0.1 * k)), spec_id=f"m{k}", step=k) for k in (1, 2))
    early = replace(one, step=0, state={})
    mean = (score(task, method, [one]) + score(task, method, [two])) / 2
    np.testing.assert_allclose(score(task, method, [early, one, two]), mean, rtol=1e-5)


def test_a_query_that_diverges_has_no_scores_and_is_named(caplog):
    task = Ridge()
    directions = np.linalg.eigh(task.splits["train"].features.T @ task.splits["train"].features)[1]
    task.splits["test"] = replace(task.splits["test"], features=np.vstack([*directions.T, np.ones((2, 5))]))
    largest = np.linalg.eigvalsh(task.splits["train"].features.T @ task.splits["train"].features / 60)[-1] + 0.05
    method = CrossLossInfluence(solver=LiSSA(damping=0.0, scale=0.45 * largest, depth=60, batch_size=60))
    with caplog.at_level(logging.INFO, "refit"):
        found = scorer(task, method, [point(task, task.fitted())])
    scores, told = found.score_range(0, 60)["m"], found.diagnostics["m"]
    assert np.isnan(scores).all(1).tolist() == [False] * 4 + [True] * 3
    assert np.isfinite(scores[:4]).all()
    assert told["diverged"] == task.splits["test"].ids[4:].tolist()
    assert "diverged for 3 of 7 queries" in caplog.text
    assert str(told["diverged"][0]) in caplog.text


def test_diagnostics_are_plain_json_with_one_entry_per_query():
    task = Logistic()
    for solver in (Exact(damping=0.1), ConjugateGradients(damping=0.1), LiSSA(damping=0.01, scale=10.0, depth=30)):
        told = scorer(task, InfluenceFunction(solver=solver)).diagnostics["m"]
        assert json.loads(json.dumps(told)) == told
        assert told["query_ids"] == task.splits["test"].ids.tolist()
        (model,) = told["models"]
        assert (model["spec_id"], model["solver"], model["n_parameters"]) == ("m0", solver.name, 12)
        assert model["effective_damping"] == pytest.approx(0.1)
        assert len(model["residual"]) == 7


def test_a_refused_solver_is_an_input_error_that_names_the_method():
    task = SmallTask(SmallCNN())
    with pytest.raises(InputError, match=r"method m: solver\.damping: .* a damping above .* is needed"):
        score(task, InfluenceFunction(solver=Exact()), [checkpoint(task)], query_block(task))
    with pytest.raises(InputError, match=r"method m: parameters: 'conv9\*' matches no trained parameter; there are"):
        score(task, InfluenceFunction(parameters=("conv9*",)), [checkpoint(task)], query_block(task))


def test_a_query_loss_without_a_gradient_is_an_error_not_a_score():
    class Broken(Ridge):
        def query_losses(self, network, split, rows, labels):
            return super().query_losses(network, split, rows, labels) / (torch.as_tensor(rows) != 2)

    class Steep(Ridge):
        def query_losses(self, network, split, rows, labels):
            return super().query_losses(network, split, rows, labels) + (0 * network.weight).sum().sqrt()

    ids = Ridge().splits["test"].ids
    with pytest.raises(RefitError, match=f"the loss of query {ids[2]} is not finite"):
        scorer(Broken(), CrossLossInfluence(solver=Exact()))
    with pytest.raises(RefitError, match=f"the gradient of the loss of query {ids[0]} is not finite"):
        scorer(Steep(), CrossLossInfluence(solver=Exact()))


def test_parameters_that_are_frozen_or_padding_are_left_out():
    class Frozen(SmallCNN):
        def build(self, vocabulary):
            network = super().build(vocabulary)
            network["embedding"] = torch.nn.Embedding(vocabulary, 6, padding_idx=0)
            network["conv1"].requires_grad_(False)
            return network

    task = SmallTask(Frozen())
    method = InfluenceFunction(solver=Exact(damping=2.0))
    told = scorer(task, method, [checkpoint(task)], query_block(task)).diagnostics["m"]["models"][0]
    assert told["n_parameters"] == 19 * 6 + (5 * 4 * 2 + 4) + (4 * 3 + 3)
    some = InfluenceFunction(solver=Exact(damping=2.0), parameters=("linear*",))
    assert scorer(task, some, [checkpoint(task)], query_block(task)).diagnostics["m"]["models"][0]["n_parameters"] == 15


def test_rows_chosen_by_the_task_give_the_scores_of_the_whole_parameter():
    """Words that no query asks about have no gradient, and independent rows keep them out of the others' inverse."""
    task, solver = Words(), Exact(damping=0.1)
    found = scorer(task, CrossLossInfluence(solver=solver))
    named = scorer(task, CrossLossInfluence(solver=solver, parameters=("words.weight",)))
    scores = found.score_range(0, 24)["m"]
    np.testing.assert_allclose(scores, named.score_range(0, 24)["m"], rtol=1e-5, atol=1e-9)
    models = [s.diagnostics["m"]["models"][0] for s in (found, named)]
    assert [m["blocks"] for m in models] == [3, 9]
    assert models[0]["n_train_touching"] < models[1]["n_train_touching"] == 24
    untouched = np.setdiff1d(np.arange(24), task.rows_touching("words.weight", [0, 1, 4]))
    assert len(untouched)
    assert not scores[:, untouched].any()
    alone = score(task, CrossLossInfluence(solver=solver), queries=queries_of(task, [1]))
    np.testing.assert_allclose(alone[0], scores[1], rtol=1e-5, atol=1e-9)


def test_rows_that_differ_between_queries_are_refused_where_rows_meet():
    class Meeting(Words):
        independent_rows = frozenset()

    with pytest.raises(InputError, match="other parameters for other queries"):
        scorer(Meeting(), CrossLossInfluence(solver=Exact(damping=1.0)))
    assert score(Meeting(), CrossLossInfluence(solver=Exact(damping=1.0)), queries=queries_of(Words(), [1])).shape == (
        1,
        24,
    )


@pytest.mark.parametrize("solver", [Exact(damping=0.1), ConjugateGradients(damping=0.1)])
def test_row_contributions_sum_to_the_score_largest_first(solver):
    task, method = Words(), CrossLossInfluence(solver=solver)
    points = [replace(point(task), spec_id=name) for name in ("m0", "m1")]
    scores, train_ids, queries = score(task, method, points), task.splits["train"].ids, queries_of(task)
    pairs = [(int(queries.ids[q]), int(train_ids[i])) for q, i in ((1, 5), (0, 5), (0, 11), (1, 23))]
    found = row_contributions(task, method, points, queries, pairs)
    assert list(found) == pairs
    for q, i in pairs:
        query, train = list(queries.ids).index(q), list(train_ids).index(i)
        assert sum(part for _, part in found[q, i]) == pytest.approx(scores[query, train], rel=1e-5, abs=1e-9)
        assert {row for row, _ in found[q, i]} <= set(task.asked[query]) & set(task.words[train])
        sizes = [abs(part) for _, part in found[q, i]]
        assert sizes == sorted(sizes, reverse=True)
    assert any(found.values())
    assert row_contributions(task, method, points, queries, []) == {}
    with pytest.raises(KeyError, match="query id 77"):
        row_contributions(task, method, points, queries, [(77, int(train_ids[0]))])


def test_contributions_by_row_need_rows_of_one_parameter():
    task = Logistic()
    pair = [(int(task.splits["test"].ids[0]), int(task.splits["train"].ids[0]))]
    with pytest.raises(ValueError, match="need rows of one parameter"):
        row_contributions(task, InfluenceFunction(solver=Exact()), [point(task)], queries_of(task), pair)


def test_methods_with_and_without_curvature_are_scored_together():
    task, queries = SmallTask(SmallCNN()), query_block(SmallTask(SmallCNN()))
    methods = {"t": TracIn(), "i": InfluenceFunction(solver=Exact(damping=2.0))}
    points = [checkpoint(task, seed, step=seed, weight=0.1) for seed in (1, 2)]
    together = Scorer(task, points, queries, methods, {}).score_range(0, 30)
    for label, method in methods.items():
        alone = Scorer(task, points, queries, {label: method}, {}).score_range(0, 30)
        np.testing.assert_array_equal(alone[label], together[label])


class Lossless(NamelessTask):
    """A task that has no loss of an example."""

    def network(self, seed):
        raise NotImplementedError

    batch = network


def test_tasks_without_losses_are_refused_before_anything_starts():
    for method in (InfluenceFunction(), CrossLossInfluence()):
        with pytest.raises(InputError, match=f"methods.0: {method.name} needs the train loss of every example"):
            method.check(Lossless(), None, "methods.0")


def test_queries_solved_in_ranges_have_the_scores_and_diagnostics_of_all_together():
    task, methods = Logistic(), [InfluenceFunction(solver=ConjugateGradients(damping=0.1, tolerance=1e-9))]
    methods.append(methods[0].model_copy(update={"queries_at_once": 2}))
    assert len(queries_of(task).rows) % 2, "the last range is shorter"
    together, ranges = (scorer(task, method) for method in methods)
    np.testing.assert_allclose(ranges.score_range(0, 60)["m"], together.score_range(0, 60)["m"], rtol=1e-6, atol=1e-9)
    [expected], [found] = (one.diagnostics["m"].pop("models") for one in (together, ranges))
    assert ranges.diagnostics == together.diagnostics
    assert found.keys() == expected.keys()
    for name in ("iterations", "converged", "batch_products", "effective_damping", "n_parameters"):
        assert found[name] == expected[name], name
    np.testing.assert_allclose(found["residual"], expected["residual"], rtol=1e-3, atol=1e-12)


def test_a_row_of_the_parameter_has_the_same_contribution_if_its_query_is_solved_in_another_range():
    task, method = Words(), CrossLossInfluence(solver=Exact(damping=0.1))
    queries, ids = queries_of(task), task.splits["train"].ids
    pairs = [(int(q), int(ids[0])) for q in queries.ids]
    found = [
        row_contributions(task, m, [point(task)], queries, pairs)
        for m in (method, method.model_copy(update={"queries_at_once": 1}))
    ]
    together, alone = ({pair: dict(parts) for pair, parts in one.items()} for one in found)
    assert len(pairs) > 1
    assert all(together.values())
    for pair in pairs:
        assert alone[pair] == pytest.approx(together[pair], rel=1e-6)


class OwnSolve(InfluenceFunction):
    """A method that solves by itself, as methods of users did before `solve` had a default."""

    def solve(self, task, checkpoints, queries, device="cpu"):
        return super().solve(task, checkpoints, queries, device)


def test_a_method_that_overrides_solve_is_solved_by_every_worker():
    assert InfluenceFunction().shares_solving
    assert CrossLossInfluence().shares_solving
    assert not any(method.shares_solving for method in (OwnSolve(), TracIn(), InfluenceLast(), Representer()))
    options = {"solver": Exact(damping=0.1)}
    np.testing.assert_array_equal(
        score(Logistic(), OwnSolve(**options)), score(Logistic(), InfluenceFunction(**options))
    )
