"""Per-example weight gradients in the form that is cheapest to keep, and their inner products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 1 << 22  # numbers per temporary array: 16 MB in float32
CACHE = 1 << 16  # numbers per temporary array that should stay in a core's cache


@dataclass(frozen=True, eq=False)
class TokenGradients:
    """Gradients of the rows of an embedding, kept sparse instead of as [vocabulary, dim].

    Entry e is d loss(example rows[e]) / d (embedding output) at one position, which held tokens[e]: rows, tokens int64
    [E] and vectors [E, dim], over `n` examples. The gradient of token w for an example is the sum of its entries (Yeh
    et al. 2022, section 4.1).
    """

    n: int
    rows: Tensor
    tokens: Tensor
    vectors: Tensor

    @staticmethod
    def of_positions(ids: Tensor, gradients: Tensor, padding_id: int | None = None) -> TokenGradients:
        """Build from token ids [n, T] and output gradients [n, T, dim].

        Positions without gradient are dropped, and so is the padding row, which is never trained.
        """
        keep = (gradients != 0).any(-1)
        if padding_id is not None:
            keep &= ids != padding_id
        rows, positions = keep.nonzero(as_tuple=True)
        entries = rows * ids.shape[1] + positions
        vectors = gradients.reshape(-1, gradients.shape[-1]).index_select(0, entries)
        return TokenGradients(len(ids), rows, ids.reshape(-1)[entries], vectors)

    @staticmethod
    def cat(parts: Sequence[TokenGradients]) -> TokenGradients:
        """Concatenate the examples of all parts."""
        starts = np.cumsum([0, *(part.n for part in parts)])
        rows = torch.cat([part.rows + int(start) for part, start in zip(parts, starts, strict=False)])
        tokens, vectors = (torch.cat([getattr(part, name) for part in parts]) for name in ("tokens", "vectors"))
        return TokenGradients(int(starts[-1]), rows, tokens, vectors)

    def kept(self, keep: Tensor) -> TokenGradients:
        """Return the entries selected by `keep`, bool [E]."""
        entries = keep.nonzero().squeeze(1)
        return TokenGradients(self.n, self.rows[entries], self.tokens[entries], self.vectors.index_select(0, entries))

    def of_tokens(self, ids: Sequence[int], *, inside: bool) -> TokenGradients:
        """Return the entries whose token is in `ids`, or with `inside` false all others."""
        listed = torch.isin(self.tokens, torch.tensor(list(ids), dtype=torch.int64, device=self.tokens.device))
        return self.kept(listed if inside else ~listed)

    def top(self, k: int) -> TokenGradients:
        """Return the k positions of each example with the largest gradient norm; ties go to the earlier position.

        Yeh et al. 2022, equation 5.
        """
        by_norm = torch.argsort(self.vectors.norm(dim=1), descending=True, stable=True)
        order = by_norm[torch.argsort(self.rows[by_norm], stable=True)]
        rows = self.rows[order]
        rank = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)
        keep = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        keep[order] = rank < k
        return self.kept(keep)

    @cached_property
    def summed(self) -> TokenGradients:
        """Return one entry per (token, example), the sum over its positions, sorted by token and then example."""
        keys, inverse = torch.unique(self.tokens * self.n + self.rows, return_inverse=True)
        vectors = self.vectors.new_zeros(len(keys), self.vectors.shape[1]).index_add_(0, inverse, self.vectors)
        return TokenGradients(self.n, keys % max(self.n, 1), keys // max(self.n, 1), vectors)

    def dot(self, train: TokenGradients, bias: bool = False) -> np.ndarray:
        """Return the sum over shared tokens of the inner products of their gradients: float64 [n_queries, n_train].

        Yeh et al. 2022, equation 4.
        """
        rows, columns, _, products = self._matches(train)
        scores = np.bincount(rows * train.n + columns, weights=products, minlength=self.n * train.n)
        return scores.reshape(self.n, train.n)

    def squared_norm(self, bias: bool = False) -> np.ndarray:
        """Return squared norms of the gradients, after summing each token over its positions: float64 [n]."""
        squares = _numpy(self.summed.vectors.double().square().sum(1))
        return np.bincount(_numpy(self.summed.rows), weights=squares, minlength=self.n)

    def add_to(self, total: Tensor, weights: Tensor) -> None:
        """Add sum_i weights[i] (gradient of example i) to `total`, which has the shape of the embedding: [vocabulary, dim]."""
        total.index_add_(0, self.tokens, self.vectors * weights[self.rows, None])

    @property
    def bias_gradients(self) -> None:
        """An embedding has no bias."""
        return None

    def words(self, train: TokenGradients, row: int, train_row: int) -> dict[int, float]:
        """Return the contribution of each shared token to the product of example `row` with `train_row`; they sum to `dot`."""
        _, _, tokens, products = self.kept(self.rows == row)._matches(train.kept(train.rows == train_row))
        shared, inverse = np.unique(tokens, return_inverse=True)
        sums = np.bincount(inverse, weights=products, minlength=len(shared))
        return dict(zip(shared.tolist(), sums.tolist(), strict=True))

    def by_word(self, train: TokenGradients) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return `dot` before it is summed: (query row, train row, token, inner product), [E] each, one for every position in train.

        The entries of one pair are in the order of the positions, whatever other examples there are.
        """
        rows, columns, tokens, products = self._matches(train)
        return rows, columns, tokens, products

    def _matches(self, train: TokenGradients) -> tuple[np.ndarray, ...]:
        """Return pairs of a (token, query) and a train entry of the token: query row, train row, token, inner product."""
        query = self.summed
        first = torch.searchsorted(query.tokens, train.tokens)
        n_matches = torch.searchsorted(query.tokens, train.tokens, right=True) - first
        theirs = torch.repeat_interleave(n_matches)
        offsets = first - (n_matches.cumsum(0) - n_matches)
        ours = torch.arange(len(theirs), device=first.device) + offsets.index_select(0, theirs)
        products = _row_products(query.vectors, ours, train.vectors, theirs)
        picked = [x.index_select(0, at) for x, at in ((query.rows, ours), (train.rows, theirs), (query.tokens, ours))]
        return tuple(_numpy(x) for x in (*picked, products.double()))


@dataclass(frozen=True, eq=False)
class PositionGradients:
    """Weight gradients of a Linear or Conv1d, kept as their two factors at every position.

    inputs [n, T, I] and output gradients deltas [n, T, O]; the weight gradient of an example is sum_t deltas[t]
    inputs[t]^T, [O, I], and that of the bias is sum_t deltas[t].
    """

    inputs: Tensor
    deltas: Tensor
    has_bias: bool

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.inputs)

    @staticmethod
    def cat(parts: Sequence[PositionGradients]) -> PositionGradients:
        """Concatenate the examples of all parts; shorter ones get positions with zero gradient."""
        length = max(part.inputs.shape[1] for part in parts)
        factors = [
            torch.cat([functional.pad(x, (0, 0, 0, length - x.shape[1])) for x in column])
            for column in ([part.inputs for part in parts], [part.deltas for part in parts])
        ]
        return PositionGradients(factors[0], factors[1], parts[0].has_bias)

    @cached_property
    def dense(self) -> Tensor:
        """Return the weight gradient of every example: [n, O * I]."""
        return torch.bmm(self.deltas.transpose(1, 2), self.inputs).flatten(1)

    def dot(self, train: PositionGradients, bias: bool = False) -> np.ndarray:
        """Return inner products of the weight gradients, plus those of the bias if `bias`: float64 [n_queries, n_train]."""
        per_position = self.inputs.shape[2] + self.deltas.shape[2]
        n_weights = self.inputs.shape[2] * self.deltas.shape[2]
        by_position = self.inputs.shape[1] * train.inputs.shape[1] * per_position
        by_weight = n_weights * (1 + train.inputs.shape[1] / max(self.n, 1))
        scores = self._dot_by_position(train) if by_position <= by_weight else self._dot_by_weight(train)
        if bias and self.has_bias:
            scores = scores + _numpy((self.deltas.sum(1) @ train.deltas.sum(1).T).double())
        return scores

    def squared_norm(self, bias: bool = False) -> np.ndarray:
        """Return squared norms of the weight gradients, plus those of the bias gradients if `bias`: float64 [n]."""
        squares = self._squared_weights
        return squares + _squares(self.deltas.sum(1)) if bias and self.has_bias else squares

    def add_to(self, total: Tensor, weights: Tensor) -> None:
        """Add sum_i weights[i] (weight gradient of example i) to `total`, which has the shape of the weight: [O, ...]."""
        deltas = (self.deltas * weights[:, None, None]).flatten(0, 1)
        total.view(len(total), -1).addmm_(deltas.T, self.inputs.flatten(0, 1))

    @property
    def bias_gradients(self) -> Tensor | None:
        """Return the gradient of the bias for every example: [n, O]; None without a bias."""
        return self.deltas.sum(1) if self.has_bias else None

    @cached_property
    def _squared_weights(self) -> np.ndarray:
        """Return ||G||^2 = sum_{s,t} (inputs[s] . inputs[t]) (deltas[s] . deltas[t]) by position if that is less work."""
        length, width = self.inputs.shape[1], self.inputs.shape[2] * self.deltas.shape[2]
        by_position = length * (self.inputs.shape[2] + self.deltas.shape[2]) <= width
        size = max(1, CHUNK // max(1, length * length if by_position else width))
        parts = zip(self.inputs.split(size), self.deltas.split(size), strict=True)
        if by_position:
            return np.concatenate([_numpy(((x @ x.mT) * (d @ d.mT)).sum((1, 2)).double()) for x, d in parts])
        return np.concatenate([_squares((d.mT @ x).flatten(1)) for x, d in parts])

    def _dot_by_weight(self, train: PositionGradients) -> np.ndarray:
        size = max(1, CHUNK // (self.inputs.shape[2] * self.deltas.shape[2]))
        parts = zip(train.deltas.split(size), train.inputs.split(size), strict=True)
        return np.concatenate(
            [_numpy((self.dense @ torch.bmm(d.transpose(1, 2), x).flatten(1).T).double()) for d, x in parts], axis=1
        )

    def _dot_by_position(self, train: PositionGradients) -> np.ndarray:
        """Return sum_{s,t} (inputs_q[s] . inputs_i[t]) (deltas_q[s] . deltas_i[t]), without forming a weight gradient."""
        length, theirs = self.inputs.shape[1], train.inputs.shape[1]
        size = max(1, CHUNK // max(1, length * theirs * train.n))
        inputs, deltas = train.inputs.flatten(0, 1).T, train.deltas.flatten(0, 1).T
        parts = zip(self.inputs.split(size), self.deltas.split(size), strict=True)
        products = [(x.flatten(0, 1) @ inputs) * (d.flatten(0, 1) @ deltas) for x, d in parts]
        return np.concatenate(
            [_numpy(p.view(len(p) // length, length, train.n, theirs).sum((1, 3)).double()) for p in products]
        )


@dataclass(frozen=True, eq=False)
class ElementGradients:
    """Gradients of a LayerNorm, which scales its input element by element: weight [n, P], bias [n, P] or None."""

    weight: Tensor
    bias: Tensor | None

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.weight)

    @staticmethod
    def cat(parts: Sequence[ElementGradients]) -> ElementGradients:
        """Concatenate the examples of all parts."""
        biases = [part.bias for part in parts if part.bias is not None]
        return ElementGradients(torch.cat([part.weight for part in parts]), torch.cat(biases) if biases else None)

    def dot(self, train: ElementGradients, bias: bool = False) -> np.ndarray:
        """Return inner products of the weight gradients, plus those of the bias if `bias`: float64 [n_queries, n_train]."""
        scores = self.weight @ train.weight.T
        if bias and self.bias is not None and train.bias is not None:
            scores = scores + self.bias @ train.bias.T
        return _numpy(scores.double())

    def squared_norm(self, bias: bool = False) -> np.ndarray:
        """Return squared norms of the weight gradients, plus those of the bias gradients if `bias`: float64 [n]."""
        squares = _squares(self.weight)
        return squares + _squares(self.bias) if bias and self.bias is not None else squares

    def add_to(self, total: Tensor, weights: Tensor) -> None:
        """Add sum_i weights[i] (weight gradient of example i) to `total`, which has the shape of the weight."""
        total.add_((weights @ self.weight).view_as(total))

    @property
    def bias_gradients(self) -> Tensor | None:
        """Return the gradient of the bias for every example: [n, P]; None without a bias."""
        return self.bias


def cosines(products: np.ndarray, squares: np.ndarray, train_squares: np.ndarray) -> np.ndarray:
    """Return cosines [n_queries, n_train] from inner products and squared norms; 0 if a gradient is exactly zero.

    Values that rounding puts outside [-1, 1] are clipped.
    """
    norms = np.sqrt(np.outer(squares, train_squares))
    return np.clip(products / np.where(norms == 0, 1.0, norms), -1.0, 1.0)


def _squares(vectors: Tensor) -> np.ndarray:
    return _numpy(vectors.square().sum(1).double())


def _row_products(a: Tensor, a_rows: Tensor, b: Tensor, b_rows: Tensor) -> Tensor:
    """Return a[a_rows[p]] . b[b_rows[p]] for every pair p, in chunks that stay in the cache: 10 times faster on a CPU."""
    size = max(1, (CACHE if a.device.type == "cpu" else CHUNK) // max(1, a.shape[1]))
    products = a.new_empty(len(a_rows))
    for start in range(0, len(a_rows), size):
        piece = slice(start, start + size)
        torch.sum(a.index_select(0, a_rows[piece]).mul_(b.index_select(0, b_rows[piece])), 1, out=products[piece])
    return products


LayerGradients = TokenGradients | PositionGradients | ElementGradients


def cat_layers(parts: Sequence[LayerGradients]) -> LayerGradients:
    """Join the gradients of one layer for consecutive batches of examples."""
    return parts[0] if len(parts) == 1 else type(parts[0]).cat(parts)  # pyright: ignore[reportArgumentType]


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
