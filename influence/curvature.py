"""Second derivatives of the train objective at the weights of one model: Hessian-vector products, the dense Hessian, its blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jacrev, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from influence.convolution_products import ConvolutionProducts
from influence.parameters import Piece, Selection
from influence.pooled_layers import pooled_layers, word_parameter
from tasks.length_groups import by_length
from tasks.seeds import seed_global
from tasks.task import Task

BATCH_SIZE, PASS_SIZE = 64, 1024


@cache
def _load_forward_rules() -> None:
    """Load torch's rules for forward-mode derivatives, which takes 0.2 s, before torch loads them at their first use.

    The rules use torch.jit, which torch itself has deprecated.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch._decomp.decompositions_for_jvp  # noqa: F401


class Curvature:
    """The objective F(theta) = (1/n) sum_i l_i(theta) + penalty(theta) over the n train examples, around some weights.

    l_i = task.losses in evaluation mode, penalty = task.penalty if there is one; theta [P] are the parameters in
    `selection`, and everything else is constant. `batch_size` rows are differentiated at once, along `pass_size` / rows
    vectors. All computations are in the network's dtype. Attention is computed by plain matrix products, because fused
    kernels have no forward-mode derivative. `independent`: no second derivative involves two rows of a parameter (the
    task declares this in `independent_rows`), so that the Hessian consists of one block per row. `n_batch_products`
    counts the vectors multiplied so far by the Hessian of a batch of rows. `layers`: the products are computed layer by
    layer (influence.pooled_layers states for which networks), otherwise by forward over reverse mode.

    `dropout`: products and derivatives of train losses are taken in training mode, with masks that are drawn from this
    seed and the train example (derivatives) or the first row of a batch and the `key` (products), so that they are the
    same along all vectors; None means evaluation mode.
    """

    def __init__(
        self,
        task: Task,
        selection: Selection,
        batch_size: int = BATCH_SIZE,
        pass_size: int = PASS_SIZE,
        dropout: int | None = None,
    ):
        self.task, self.selection, self.theta, self.dropout = task, selection, selection.values, dropout
        self.batch_size, self.pass_size = batch_size, pass_size
        self.ids = task.splits["train"].ids
        self.independent = {p.name for p in selection.pieces} <= task.independent_rows
        self.has_penalty = task.penalty(selection.network) is not None
        self.layers, self.n_batch_products = pooled_layers(task), 0
        words = word_parameter(task, selection.network)
        self.words = words if words in {piece.name for piece in selection.pieces} else None
        self.touching = _touching(task, selection)  # bool [n_train]; the gradients of all other rows are zero

    def gradients(self, losses: Callable[[Any], Tensor]) -> Tensor:
        """Return the gradients of losses(network) [q]: [q, P]."""
        with sdpa_kernel(SDPBackend.MATH):
            return jacrev(lambda theta: self.selection.evaluate(losses, theta))(self.theta)  # type: ignore[return-value]

    def derivatives(self, rows: np.ndarray, vectors: Tensor) -> Tensor:
        """Return <grad l_i, vector> of train rows along `vectors` [q, P], by forward mode: [q, len(rows)]."""
        rows, derivatives = np.asarray(rows, np.int64), self.theta.new_zeros(len(vectors), len(rows))
        if self.independent and (closed := self._closed_derivatives(rows, vectors)) is not None:
            return closed
        touching = np.flatnonzero(self.touching[rows])
        touching = touching[by_length(self.task, "train", rows[touching])]
        for part in _cuts(touching, self.batch_size if self.dropout is None else 1):
            with self._mode():
                found = self._along(self._losses(rows[part]), vectors, len(part))
            derivatives[:, torch.from_numpy(part).to(derivatives.device)] = found.to(derivatives)
        return derivatives

    def row_gradient(self, row: int) -> Tensor:
        """Return grad l_i of one train row, with the masks of `derivatives`: [P]."""
        with self._mode():
            return self.gradients(self._losses(np.array([row])))[0]

    def products(
        self,
        vectors: Tensor,
        rows: np.ndarray | None = None,
        key: tuple[int, ...] = (),
        out: Tensor | None = None,
    ) -> Tensor:
        """Return the Hessian of F times `vectors` [q, P]: [q, P]. With `rows`: of the mean loss of these train rows + penalty.

        `key`: the dropout masks of different keys, such as the steps of a solver, differ. The result is written to `out`
        if that is given: fresh memory for some million numbers takes as long as a product.
        """
        n = len(self.ids) if rows is None else len(rows)
        rows = np.flatnonzero(self.touching) if rows is None else rows[self.touching[rows]]
        rows = rows[by_length(self.task, "train", rows)]
        total = torch.zeros_like(vectors) if out is None else out.zero_()
        for part in _cuts(rows, self.batch_size):
            self.n_batch_products += len(vectors)
            if self.layers:
                self._add_by_layers(self._batch(part), vectors, 1 / n, total)
            else:
                self._add_by_modes(part, key, vectors, n, total)
        if self.has_penalty:
            total += self._twice(self._penalty, vectors, 1)
        return total

    def residuals(self, solutions: Tensor, vectors: Tensor, damping: float) -> Tensor:
        """Return |(H + damping I) x - v| / |v| of each pair of rows: [q]; zero where v is zero."""
        left = self.products(solutions) + damping * solutions - vectors
        sizes = vectors.norm(dim=1)
        return torch.where(sizes > 0, left.norm(dim=1) / sizes, torch.zeros_like(sizes))

    def dense(self) -> Tensor:
        """Return the Hessian of F: float64 [P, P], symmetric."""
        eye = torch.eye(len(self.theta), dtype=self.theta.dtype, device=self.theta.device)
        hessian = self.products(eye).double()
        return (hessian + hessian.T) / 2

    def blocks(self) -> list[Tensor]:
        """Return the blocks of an independent Hessian: float64 [n_rows, d, d] per parameter, of d numbers a row.

        They are the task's `row_hessians(network, name, rows)` if it has this closed form. Otherwise d products give
        the blocks of all rows, each with unit vector j in every row at once. Raises ValueError if the rows are not
        independent.
        """
        if not self.independent:
            raise ValueError("the task does not say that the rows of these parameters are independent")
        closed = [self.task.row_hessians(self.selection.network, p.name, _rows_of(p)) for p in self.selection.pieces]
        blocks = [block.double() for block in closed if block is not None]
        if len(blocks) == len(closed):
            return blocks
        ends = np.cumsum(self.selection.sizes)
        starts = zip(self.selection.pieces, ends - self.selection.sizes, ends, strict=True)
        return [self._blocks(piece, slice(start, end)) for piece, start, end in starts]

    def _add_by_layers(self, batch: dict[str, Tensor], vectors: Tensor, scale: float, total: Tensor) -> None:
        """Add scale times the Hessian of the sum of a batch's losses times `vectors` to `total`; what the vectors share is computed once."""
        products = ConvolutionProducts(self.layers, self.selection, batch)
        size = max(1, self.pass_size // len(batch["labels"]))
        for start in range(0, len(vectors), size):
            products.add(vectors[start : start + size], scale, total[start : start + size])

    def _add_by_modes(self, rows: np.ndarray, key: tuple[int, ...], vectors: Tensor, n: int, total: Tensor) -> None:
        """Add 1/n times the Hessian of the sum of a batch's losses times `vectors` to `total`, by forward over reverse mode.

        The rows of the word embedding that the batch does not touch have zero products and are left out.
        """
        batch = self._batch(rows)
        losses, touched = self._losses(rows, key, batch), self._touched(batch)

        def summed(network: Any) -> Tensor:
            return losses(network).sum()

        with self._mode():
            if touched is None:
                total += self._twice(summed, vectors, len(rows)) / n
            else:
                selection, inside = touched
                found = self._twice(summed, vectors[:, inside], len(rows), selection)
                total[:, inside] += found / n

    def _touched(self, batch: dict[str, Tensor]) -> tuple[Selection, Tensor] | None:
        """Return the selection without untouched rows of the word embedding, and its places in theta; None without an embedding."""
        if self.words is None:
            return None
        tokens, chosen, inside, start = batch["input_ids"].unique(), {}, [], 0
        for piece, size in zip(self.selection.pieces, self.selection.sizes, strict=True):
            places = torch.arange(start, start + size, device=tokens.device)
            chosen[piece.name] = None if piece.rows is None else piece.rows.cpu().numpy()
            if piece.name == self.words:
                numbers = torch.as_tensor(_rows_of(piece), device=tokens.device)
                kept = torch.isin(numbers, tokens)
                chosen[piece.name] = numbers[kept].cpu().numpy()
                places = places.view(piece.shape[0], -1)[kept].flatten()
            inside.append(places)
            start += size
        return Selection(self.selection.network, chosen), torch.cat(inside)

    def _penalty(self, network: Any) -> Tensor:
        found = self.task.penalty(network)
        assert found is not None
        return found

    def _closed_derivatives(self, train_rows: np.ndarray, vectors: Tensor) -> Tensor | None:
        """Return the task's `row_derivatives`, summed over the parameters; None if it has none."""
        parts = zip(self.selection.pieces, vectors.split(self.selection.sizes, 1), strict=True)
        found = [
            self.task.row_derivatives(
                self.selection.network,
                piece.name,
                _rows_of(piece),
                part.reshape(len(vectors), *piece.shape),
                train_rows,
            )
            for piece, part in parts
        ]
        closed = [part for part in found if part is not None]
        return torch.stack(closed).sum(0).to(self.theta.device) if len(closed) == len(found) else None

    def _blocks(self, piece: Piece, inside: slice) -> Tensor:
        n_rows, width = piece.shape[0], piece.shape[1:].numel()
        units = self.theta.new_zeros(width, len(self.theta))
        units[:, inside] = torch.eye(width, dtype=units.dtype, device=units.device).repeat(1, n_rows)
        blocks = self.products(units)[:, inside].view(width, n_rows, width).double().transpose(0, 1)
        return (blocks + blocks.transpose(1, 2)) / 2

    def _batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        return self.task.batch("train", rows, device=self.theta.device)

    def _losses(
        self, rows: np.ndarray, key: tuple[int, ...] = (), batch: dict[str, Tensor] | None = None
    ) -> Callable[[Any], Tensor]:
        """Return the losses of a batch as a function of the network, which draws its dropout masks anew from the same seed."""
        inputs, first = batch or self._batch(rows), int(self.ids[rows[0]]) % 2**63

        def losses(network: Any) -> Tensor:
            if self.dropout is not None:
                seed_global(self.dropout, "dropout", *key, first)
            return self.task.losses(network, inputs)

        return losses

    @contextmanager
    def _mode(self) -> Iterator[None]:
        """Set training mode if there is dropout; torch's generators and the mode are as before afterwards."""
        if self.dropout is None:
            yield
            return
        network, device = self.selection.network, self.theta.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            network.train()
            try:
                yield
            finally:
                network.eval()

    def _along(self, function: Callable[[Any], Tensor], vectors: Tensor, n_rows: int) -> Tensor:
        return self._mapped(lambda theta: self.selection.evaluate(function, theta), vectors, n_rows)

    def _twice(
        self, function: Callable[[Any], Tensor], vectors: Tensor, n_rows: int, selection: Selection | None = None
    ) -> Tensor:
        """Return Hessian-vector products of a scalar function of the network, by forward over reverse mode."""
        chosen = selection or self.selection
        return self._mapped(grad(lambda theta: chosen.evaluate(function, theta)), vectors, n_rows, chosen.values)

    def _mapped(
        self, function: Callable[[Tensor], Tensor], vectors: Tensor, n_rows: int, theta: Tensor | None = None
    ) -> Tensor:
        theta = self.theta if theta is None else theta

        def along(vector: Tensor) -> Tensor:
            return jvp(function, (theta,), (vector,))[1]

        if not len(vectors):
            return vectors.new_zeros(0, *function(theta).shape)
        _load_forward_rules()
        with sdpa_kernel(SDPBackend.MATH):
            return vmap(along, chunk_size=max(1, self.pass_size // n_rows), randomness="same")(vectors)


def _rows_of(piece: Piece) -> np.ndarray:
    """Return the numbers of the chosen rows of a parameter's first axis: int64."""
    return np.arange(piece.shape[0]) if piece.rows is None else piece.rows.cpu().numpy()


def _touching(task: Task, selection: Selection) -> np.ndarray:
    """Mark the train rows whose loss depends on the selection; all rows unless the task can say which depend on rows of a parameter."""
    n_train = len(task.splits["train"])
    touching = np.zeros(n_train, bool)
    for piece in selection.pieces:
        rows = None if piece.rows is None else task.rows_touching(piece.name, piece.rows.cpu().numpy())
        if rows is None:
            return np.ones(n_train, bool)
        touching[rows] = True
    return touching


def _cuts(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
