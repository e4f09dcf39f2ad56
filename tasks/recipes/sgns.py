"""Skip-gram with negative sampling: closed-form gradients of a batch of pairs, and updates of the rows that they change."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import (
    _sparsetools,
)  # called directly, because building a csr_array takes as long as a product
from torch import Tensor, nn

from tasks.data.pairs import Pairs
from tasks.models.skip_gram import PairLoss
from tasks.recipes.pair_options import PairOptions

BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class BatchGradient:
    """The gradient of a batch loss L with respect to input vectors u and output vectors v.

    With scores s_ct = u_c . v_t and slopes a_ct = dL / ds_ct as a sparse matrix A [n_centres, n_words]: dL/du_c = (A
    V)_c, dL/dv_t = (A^T U)_t. `loss` is sum(w l) over the pairs (NaN unless requested), `weight` is sum(w). `size` is
    sum(|w|), by which a mean divides, so that undoing a sentence is exactly minus reinforcing it.
    """

    pairs: Pairs
    slopes: np.ndarray  # A, [n_targets]
    uses: np.ndarray  # |w| times the number of pairs that share the target, [n_targets]
    centres: np.ndarray  # U, [n_centres, dim], a copy
    by_centre: np.ndarray  # A V
    loss: float
    weight: float
    size: float

    def damped(self, max_uses: float, n_words: int) -> tuple[BatchGradient, list[np.ndarray] | None]:
        """Scale the rows used more than `max_uses` times to max_uses / uses; return the gradient and the factors of all rows.

        A word is used once by every pair of which it is the centre, the context or a negative. If no row is used so
        often, the gradient is returned unchanged, without factors.
        """
        positive = self.pairs.positive
        centres = np.repeat(self.pairs.centres, np.diff(self.pairs.starts))[positive]
        inner = np.bincount(centres, self.uses[positive], n_words)
        outer = np.bincount(self.pairs.targets, self.uses, n_words)
        if max(inner.max(), outer.max()) <= max_uses:
            return self, None
        inner, outer = ((max_uses / np.maximum(uses, max_uses)).astype(self.slopes.dtype) for uses in (inner, outer))
        by_centre = self.by_centre * inner[self.pairs.centres][:, None]
        return replace(self, slopes=self.slopes * outer[self.pairs.targets], by_centre=by_centre), [inner, outer]

    def add_to(self, inner: np.ndarray, outer: np.ndarray, factor: float) -> None:
        """Add factor dL/du to `inner` and factor dL/dv to `outer`, in the rows where the gradient is not zero."""
        self._add_inner(inner, self.pairs.centres, factor)
        self._add_outer(outer, self.pairs.targets, factor)

    def by_row(self, n_words: int) -> list[tuple[Tensor, Tensor]]:
        """Return, for u and for v, the rows where the gradient is not zero (int64, ascending) and the gradient in them."""
        found = []
        for words, add in ((self.pairs.centres, self._add_inner), (self.pairs.targets, self._add_outer)):
            rows, positions = _once(words, n_words)
            values = np.zeros((len(rows), self.centres.shape[1]), self.centres.dtype)
            add(values, positions, 1.0)
            found.append((torch.from_numpy(rows), torch.from_numpy(values)))
        return found

    def _add_inner(self, out: np.ndarray, rows: np.ndarray, factor: float) -> None:
        factors = np.full(len(rows), factor, out.dtype)
        _add_transposed(out, np.arange(len(rows) + 1, dtype=np.int32), rows, factors, self.by_centre)

    def _add_outer(self, out: np.ndarray, rows: np.ndarray, factor: float) -> None:
        _add_transposed(out, self.pairs.starts, rows, self.slopes * factor, self.centres)


class Skipgrams:
    """Computes gradients of the loss of pairs at a network's vectors, of which `inner` and `outer` are views."""

    def __init__(self, network: nn.Module, loss: PairLoss, negatives: int):
        self._outer_tensor = network.get_parameter("output.weight").detach()
        self.inner: np.ndarray = network.get_parameter("input.weight").detach().numpy()
        self.outer: np.ndarray = self._outer_tensor.numpy()
        self.loss, self.factors = loss, loss.factors(negatives)
        with warnings.catch_warnings():  # torch warns once per process that support of CSR tensors is in beta state
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            torch.sparse_csr_tensor([0], [], torch.zeros(0), (0, 1), check_invariants=False)

    def gradient(self, pairs: Pairs, sentence_weights: np.ndarray, *, mean: bool, with_loss: bool) -> BatchGradient:
        """Return the gradient of L = sum(w l) over the pairs, or of L / max(sum(|w|), 1) with `mean`.

        w is `sentence_weights` at the owner of the pair.
        """
        centre_weights = sentence_weights[pairs.owners].astype(self.inner.dtype)
        weights = np.repeat(centre_weights, np.diff(pairs.starts)) * pairs.copies
        of_pairs = weights[pairs.positive]
        weight, size = float(of_pairs.sum(dtype=np.float64)), float(np.abs(of_pairs).sum(dtype=np.float64))
        centres = self.inner[pairs.centres]
        terms, slopes = self.loss.terms(self._scores(pairs, centres), pairs.positive, with_loss)
        factors = weights * np.where(pairs.positive, *self.factors).astype(weights.dtype)
        loss = float((terms * factors).sum(dtype=np.float64)) if terms is not None else math.nan
        slopes *= factors / max(size, 1.0) if mean else factors
        by_centre = np.zeros_like(centres)
        _sparsetools.csr_matvecs(
            len(centres),
            len(self.outer),
            centres.shape[1],
            pairs.starts,
            pairs.targets,
            slopes,
            self.outer.ravel(),
            by_centre.ravel(),
        )
        return BatchGradient(pairs, slopes, np.abs(weights), centres, by_centre, loss, weight, size)

    def _scores(self, pairs: Pairs, centres: np.ndarray) -> np.ndarray:
        """Return u_c . v_t of every target, [n_targets]; scores of all words are computed if there are more targets than that."""
        if len(pairs.targets) > len(centres) * len(self.outer):  # too many for torch's sparse product
            return (centres @ self.outer.T)[np.repeat(np.arange(len(centres)), np.diff(pairs.starts)), pairs.targets]
        where = torch.sparse_csr_tensor(
            torch.from_numpy(pairs.starts),
            torch.from_numpy(pairs.targets),
            torch.zeros(len(pairs.targets), dtype=self._outer_tensor.dtype),
            (len(centres), len(self.outer)),
            check_invariants=False,
        )
        found = torch.sparse.sampled_addmm(where, torch.from_numpy(centres), self._outer_tensor.t(), beta=0)
        return found.values().numpy()


def _add_transposed(
    out: np.ndarray, starts: np.ndarray, rows: np.ndarray, factors: np.ndarray, vectors: np.ndarray
) -> None:
    """Add factors[j] * vectors[i] to out[rows[j]] for every i and for j in starts[i] <= j < starts[i + 1], in this order."""
    _sparsetools.csc_matvecs(len(out), len(vectors), out.shape[1], starts, rows, factors, vectors.ravel(), out.ravel())


def _once(words: np.ndarray, n_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the words that occur (int64, ascending) and the position of each of `words` among them (int32)."""
    position = np.zeros(n_words, np.int32)
    position[words] = 1
    rows = np.flatnonzero(position)
    position[rows] = np.arange(len(rows), dtype=np.int32)
    return rows, position[words]


class Sgd:
    """w <- w - rate min(1, max_uses / uses of the row) g; without the factor, frequent words would diverge in large batches.

    A row's factor changes how fast the row moves, not where it converges. `max_uses` inf gives plain steps.
    """

    def __init__(self, inner: np.ndarray, outer: np.ndarray, max_uses: float = math.inf):
        self.matrices, self.max_uses, self.n_updates = (inner, outer), max_uses, 0

    def tensors(self) -> dict[str, Tensor]:
        """Return its state except `n_updates`; there is none."""
        return {}

    def update(self, gradient: BatchGradient, rate: float, decay: float) -> None:
        """Make a step with g = gradient + decay w."""
        self.n_updates += 1
        gradient, factors = gradient.damped(self.max_uses, len(self.matrices[0]))
        if decay:
            for matrix, factor in zip(self.matrices, factors or (np.ones(1), np.ones(1)), strict=True):
                matrix *= (1 - rate * decay * factor[:, None]).astype(matrix.dtype)
        gradient.add_to(*self.matrices, factor=-rate)


class RowAdam:
    """Adam that moves only the rows of a gradient and their moments; the bias correction counts all updates.

    It equals torch.optim.SparseAdam. With decay it moves all rows, as torch.optim.Adam does. Kingma and Ba 2015, betas
    0.9 and 0.999, eps 1e-8 (which SparseAdam adds before the bias correction).
    """

    def __init__(self, inner: np.ndarray, outer: np.ndarray):
        self.matrices = [torch.from_numpy(matrix) for matrix in (inner, outer)]
        self.moments = [(torch.zeros_like(matrix), torch.zeros_like(matrix)) for matrix in self.matrices]
        self.n_updates = 0

    def tensors(self) -> dict[str, Tensor]:
        """Return its state except `n_updates`: two moments of each matrix."""
        return {f"moment.{i}.{j}": moment for i, both in enumerate(self.moments) for j, moment in enumerate(both)}

    def update(self, gradient: BatchGradient, rate: float, decay: float) -> None:
        """Make a step with g = gradient + decay w."""
        self.n_updates += 1
        corrections = [1 - beta**self.n_updates for beta in BETAS]
        step = rate * math.sqrt(corrections[1]) / corrections[0]
        for matrix, moments, (rows, g) in zip(
            self.matrices, self.moments, gradient.by_row(len(self.matrices[0])), strict=True
        ):
            if decay:
                rows, g = torch.arange(len(matrix)), (matrix * decay).index_add_(0, rows, g)
            first, second = (moment[rows] for moment in moments)
            first += (g - first) * (1 - BETAS[0])
            second += (g * g - second) * (1 - BETAS[1])
            moments[0][rows], moments[1][rows] = first, second
            matrix.index_add_(0, rows, first / (second.sqrt() + EPS), alpha=-step)


class Updates:
    """Updates a network's vectors by the gradient of batches of pairs, plus that of the penalty l2 / 2 |w|^2.

    The objective adds the penalty to the mean over sentences. A batch of sentences of total weight W therefore adds W
    times the gradient of the penalty to that of a sum over pairs, or W / max(sum of pair weights, 1) times to that of
    their mean.
    """

    def __init__(self, network: nn.Module, options: PairOptions, optimizer: str, l2: float):
        self.skipgrams = Skipgrams(network, PairLoss(options.loss), options.negatives)
        self.mean, self.l2 = options.reduction == "mean", l2
        matrices = self.skipgrams.inner, self.skipgrams.outer
        max_uses = math.inf if self.mean else options.max_uses  # steps along a mean are short
        self.optimizer = RowAdam(*matrices) if optimizer == "adam" else Sgd(*matrices, max_uses)

    def update(
        self, pairs: Pairs, sentence_weights: np.ndarray, total: float, rate: float, with_loss: bool
    ) -> tuple[float, float]:
        """Make one update; `total` is the weight of the batch's sentences.

        Returns sum(w l) and sum(w) of its pairs, or zeros unless `with_loss`.
        """
        found = self.skipgrams.gradient(pairs, sentence_weights, mean=self.mean, with_loss=with_loss)
        decay = self.l2 * total / (max(found.size, 1.0) if self.mean else 1.0)
        self.optimizer.update(found, rate, decay)
        return (found.loss, found.weight) if with_loss else (0.0, 0.0)
