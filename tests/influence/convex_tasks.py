"""Tasks whose train objective is convex: ridge and logistic regression, and words that are trained with fixed contexts only."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from influence.checkpoint import Checkpoint, QueryBlock
from influence.curvature import Curvature
from influence.gradients import loaded
from influence.parameters import Selection
from tasks.base import Split
from tests.fakes import NamelessTask


class Linear(NamelessTask):
    """f(x) = W x on random float64 data; subclasses define the loss."""

    model = recipe = None
    penalty_weight = 0.05

    def __init__(self, n_train=60, n_inputs=5, n_outputs=1, n_test=7, seed=0):
        rng = np.random.default_rng(seed)
        self.shape = (n_outputs, n_inputs)
        truth = rng.normal(size=(n_inputs, max(n_outputs, 2)))
        self.splits, self.targets = {}, {}
        for split, n in (("train", n_train), ("test", n_test)):
            features = rng.normal(size=(n, n_inputs)) * np.linspace(0.5, 2, n_inputs)
            outputs = features @ truth + rng.normal(size=(n, truth.shape[1]))
            ids = rng.permutation(10 * n)[:n] + 100
            self.splits[split] = Split(ids, outputs.argmax(1), ("a", "b", "c")[: truth.shape[1]], features=features)
            self.targets[split] = outputs[:, 0]
        self.measured = {"test": np.arange(n_test)}

    def network(self, seed):
        torch.manual_seed(seed)
        return nn.Linear(self.shape[1], self.shape[0], bias=False).double()

    def batch(self, split, rows, *, blank=None, device="cpu"):
        found = self.splits[split]
        arrays = {"x": found.features[rows], "y": self.targets[split][rows], "labels": found.labels[rows]}
        return {name: torch.tensor(array, device=device) for name, array in arrays.items()}

    def logits(self, network, batch):
        return network(batch["x"])

    def penalty(self, network):
        return self.penalty_weight / 2 * network.weight.square().sum()


class Ridge(Linear):
    """l = (w.x - y)^2 / 2; the query loss is a different one: log cosh(x.w), whatever the label."""

    def losses(self, network, batch):
        return (self.logits(network, batch)[:, 0] - batch["y"]).square() / 2

    def query_losses(self, network, split, rows, labels):
        along = self.logits(network, self.batch(split, rows))[:, 0]
        return along.cosh().log()

    def fitted(self, without=None):
        """Return the weights that minimise (1/n) sum of the losses + penalty, in closed form: [n_inputs]."""
        x, y, n = self.splits["train"].features, self.targets["train"], len(self.targets["train"])
        kept = np.arange(n) != (-1 if without is None else without)
        x, y = x[kept], y[kept]
        return np.linalg.solve(x.T @ x / n + self.penalty_weight * np.eye(x.shape[1]), x.T @ y / n)


class Logistic(Linear):
    """l = -log p(label), three classes."""

    def __init__(self, n_inputs=4, **options):
        super().__init__(n_outputs=3, n_inputs=n_inputs, **options)
        rng = np.random.default_rng(1)
        for split, found in self.splits.items():
            labels = rng.integers(0, 3, len(found))
            self.splits[split] = Split(found.ids, labels, ("a", "b", "c"), features=found.features)

    def losses(self, network, batch):
        return nn.functional.cross_entropy(self.logits(network, batch), batch["labels"], reduction="none")

    def fitted(self, weights=None, start=None):
        """Return the minimum of sum w_i l_i / n + penalty by Newton's method, gradient norm below 1e-10: [3, n_inputs]."""
        batch, network = self.batch("train", np.arange(len(self.splits["train"]))), self.network(0)
        weights = torch.full_like(batch["y"], 1.0) if weights is None else torch.as_tensor(weights)

        def objective(theta):
            logits = batch["x"] @ theta.view(self.shape).T
            losses = nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
            return (weights * losses).sum() / len(weights) + self.penalty_weight / 2 * theta.square().sum()

        theta = torch.zeros_like(network.weight).flatten().detach() if start is None else start.flatten()
        for _ in range(30):
            gradient = torch.func.grad(objective)(theta)
            if gradient.norm() < 1e-10:
                return theta.view(self.shape)
            theta = theta - torch.linalg.solve(torch.func.hessian(objective)(theta), gradient)
        raise AssertionError("Newton's method did not converge")


class Words(NamelessTask):
    """Skip-gram in small: the words of each example are attracted to and repelled from fixed contexts; no two words interact."""

    model = recipe = None
    independent_rows = frozenset({"words.weight"})
    n_words, width = 9, 3

    def __init__(self, n_train=24, seed=0):
        rng = np.random.default_rng(seed)
        ids, labels = rng.permutation(500)[:n_train], np.zeros(n_train, np.int64)
        self.words = rng.integers(0, self.n_words, (n_train, 4))
        self.contexts, self.signs = rng.integers(0, 6, (n_train, 4)), rng.choice([-1.0, 1.0], (n_train, 4))
        self.splits = {"train": Split(ids, labels, ("none",), features=self.words)}
        self.splits["test"] = Split(np.array([3, 1]), np.zeros(2, np.int64), ("none",), features=np.zeros((2, 1)))
        self.asked = np.array([[0, 1], [4, 1]])

    def network(self, seed):
        torch.manual_seed(seed)
        sides = {"words": nn.Embedding(self.n_words, self.width), "contexts": nn.Embedding(6, self.width)}
        return nn.ModuleDict(sides).double()

    def batch(self, split, rows, *, blank=None, device="cpu"):
        arrays = {"words": self.words[rows], "contexts": self.contexts[rows], "signs": self.signs[rows]}
        return {
            n: torch.tensor(a, device=device) for n, a in (arrays | {"labels": self.splits[split].labels[rows]}).items()
        }

    def losses(self, network, batch):
        products = (network["words"](batch["words"]) * network["contexts"](batch["contexts"])).sum(2)
        return -nn.functional.logsigmoid(batch["signs"] * products).mean(1)

    def query_losses(self, network, split, rows, labels):
        return torch.stack(
            [torch.cosine_similarity(*network["words"].weight[list(self.asked[row])], dim=0) for row in rows]
        )

    def influence_parameters(self, split, rows):
        return {"words.weight": np.unique(self.asked[rows])}

    def rows_touching(self, name, rows):
        assert name == "words.weight"
        return np.flatnonzero(np.isin(self.words, rows).any(1))


def point(task, weights=None, spec_id="m0") -> Checkpoint:
    """Return the weights of a fresh network, or `weights` as those of its only parameter."""
    state = {name: tensor.numpy() for name, tensor in task.network(0).state_dict().items()}
    if weights is not None:
        state["weight"] = np.asarray(weights, np.float64).reshape(state["weight"].shape)
    return Checkpoint(spec_id, 1, 1.0, 1.0, state)


def queries_of(task, rows=None, split="test") -> QueryBlock:
    """Return rows of a split (default: all of them) as queries with their gold labels."""
    found = task.splits[split]
    rows = np.arange(len(found)) if rows is None else np.asarray(rows)
    return QueryBlock(split, found.ids[rows], rows, found.labels[rows])


def curvature_of(task, chosen=None, state=None, **options) -> Curvature:
    """Return the curvature at a checkpoint, on chosen parameters or all of them."""
    network = loaded(task.network(0), state or point(task))
    chosen = chosen or dict.fromkeys(dict(network.named_parameters()))
    return Curvature(task, Selection(network, chosen), **options)


def autograd_hessian(task, state=None) -> torch.Tensor:
    """Return the Hessian of the mean train loss + penalty on all parameters, by torch.autograd over the whole train set: [P, P]."""
    network = loaded(task.network(0), state or point(task))
    names, values = zip(*network.named_parameters(), strict=True)
    batch = task.batch("train", np.arange(len(task.splits["train"])))

    def objective(theta):
        parts = theta.split([value.numel() for value in values])
        named = {n: part.view(value.shape) for n, value, part in zip(names, values, parts, strict=True)}
        swap = torch.nn.utils.stateless._reparametrize_module(network, named)
        with swap:
            loss, penalty = task.losses(network, batch).mean(), task.penalty(network)
            return loss if penalty is None else loss + penalty

    with sdpa_kernel(SDPBackend.MATH):
        return torch.autograd.functional.hessian(objective, torch.cat([v.detach().flatten() for v in values]))
