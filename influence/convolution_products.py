"""Hessian-vector products of a convolutional text classifier, layer by layer and for many vectors at once.

The R-operator (Pearlmutter 1994) gives the derivative of a gradient along a vector by one more forward and one more
backward pass. Here both passes are written out for one kind of network (tasks.model.Model.pooled_convolutions). The
vectors are then further output channels of the same convolutions, so that no tensor is copied, and what does not
depend on the vectors is computed once per batch. Automatic differentiation does the same arithmetic with more
operations on tensors of this size, and takes about twice the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from influence.parameters import Piece, Selection
from influence.pointwise import conv1d, conv1d_weight
from influence.word_windows import WordWindows


class ConvolutionProducts:
    """The Hessian of the sum of the cross-entropies of one batch, in the chosen parameters of a network.

    The shapes below use n rows of L positions, q vectors, and layers of C channels. A derivative along the vectors is
    called a tangent. At a maximum that several positions share, all have an equal part, as in torch.
    """

    @torch.no_grad()
    def __init__(self, layers: Sequence[str], selection: Selection, batch: Mapping[str, Tensor]):
        self.selection, network = selection, selection.network
        self.embedding, *self.convolutions, self.linear = layers
        self._modules: dict[str, Any] = {name: network.get_submodule(name) for name in layers}
        self._lowest = min(layers.index(piece.name.rpartition(".")[0]) for piece in selection.pieces)
        ids, mask = batch["input_ids"], batch["attention_mask"].unsqueeze(1) > 0
        words = self._modules[self.embedding].weight
        self.hidden = [(words[ids].transpose(1, 2) * mask).contiguous()]  # the input of every convolution
        self.gates = []  # [n, C, L]: 1 where a value passes the ReLU and the mask
        for name in self.convolutions:
            found = self._convolved(name, self.hidden[-1])
            self.gates.append(((found > 0) & mask).to(words.dtype))
            self.hidden.append(found * self.gates[-1])
        self.pooled = self.hidden[-1].amax(2)
        is_maximum = (self.hidden[-1] == self.pooled[:, :, None]).to(words.dtype)
        self.parts = is_maximum / is_maximum.sum(2, keepdim=True) * self.gates[-1]
        last = self._modules[self.linear]
        self.probabilities = nn.functional.linear(self.pooled, last.weight, last.bias).softmax(1)
        self.logit_gradients = self.probabilities - one_hot(batch["labels"], self.probabilities.shape[1])
        self.deltas = self._backward()
        first = self._modules[self.convolutions[0]]
        self.windows = WordWindows(ids, mask[:, 0], first, self.deltas[0]) if self._lowest == 0 else None

    @torch.no_grad()
    def add(self, vectors: Tensor, scale: float, total: Tensor) -> None:
        """Add scale times the Hessian times `vectors` [q, P] to `total` [q, P]."""
        parts = zip(self.selection.pieces, vectors.split(self.selection.sizes, 1), strict=True)
        along = {piece.name: self._whole(piece, part, len(vectors)) for piece, part in parts}
        words = None if self.windows is None else self.windows.of(along[f"{self.embedding}.weight"])
        tangents, pooled = self._forward_tangents(along, words, len(vectors))
        found = self._backward_tangents(along, words, tangents, pooled)
        places = zip(self.selection.pieces, total.split(self.selection.sizes, 1), strict=True)
        for piece, place in places:
            if piece.name == f"{self.embedding}.weight":
                self._add_words(piece, found[piece.name], scale, place.view(len(vectors), *piece.shape))
            else:
                value = found[piece.name]
                chosen = value if piece.rows is None else value.index_select(1, piece.rows)
                place.add_(chosen.reshape(len(vectors), -1), alpha=scale)

    def _backward(self) -> list[Tensor]:
        """Return the gradients of the loss at the outputs of the convolutions, before ReLU and mask: [n, C, L] each."""
        delta = self.parts * (self.logit_gradients @ self._modules[self.linear].weight)[:, :, None]
        deltas = [delta]
        for name, gate in zip(reversed(self.convolutions[1:]), reversed(self.gates[:-1]), strict=True):
            deltas.append(self._transposed(name, deltas[-1]) * gate)
        return deltas[::-1]

    def _forward_tangents(
        self, along: Mapping[str, Tensor], words: Tensor | None, q: int
    ) -> tuple[list[Tensor | None], Tensor]:
        """Return the tangents of the inputs of every convolution, [n, q, C, L] or None for zero, and of the maxima [n, q, C].

        The inputs of the first convolution have None; `words` [q, U, D] stand for their tangents.
        """
        n, _, length = self.hidden[0].shape
        tangents: list[Tensor | None] = [None]
        for layer, name in enumerate(self.convolutions):
            before, kernel, bias = tangents[-1], along.get(f"{name}.weight"), along.get(f"{name}.bias")
            found = self.hidden[0].new_zeros(()) if before is None else self._convolved(name, before, bias=False)
            if layer == 0 and self.windows is not None and words is not None:
                found = before = self.windows.convolved(words, n)
            if kernel is not None:
                module = self._modules[name]
                found = found + conv1d(
                    self.hidden[layer], kernel.flatten(0, 1), None, padding=module.padding
                ).view(n, q, -1, length)  # fmt: skip
            if bias is not None:
                found = found + bias[None, :, :, None]
            is_zero = before is None and kernel is None and bias is None
            tangents.append(None if is_zero else found * self.gates[layer][:, None])
        last = tangents.pop()
        if last is None:
            return tangents, self.pooled.new_zeros(n, q, self.pooled.shape[1])
        return tangents, (last * self.parts[:, None]).sum(3)

    def _backward_tangents(
        self, along: Mapping[str, Tensor], words: Tensor | None, tangents: Sequence[Tensor | None], pooled: Tensor
    ) -> dict[str, Tensor]:
        """Return the tangents of the gradients: parameter -> [q, ...]; of the embedding [U, q, D], by token."""
        weight, bias = along.get(f"{self.linear}.weight"), along.get(f"{self.linear}.bias")
        logits = pooled @ self._modules[self.linear].weight.T
        logits = logits if weight is None else logits + torch.einsum("nc,qkc->nqk", self.pooled, weight)
        logits = logits if bias is None else logits + bias
        p = self.probabilities[:, None]
        delta = p * (logits - (p * logits).sum(2, keepdim=True))
        found = {
            f"{self.linear}.weight": torch.einsum("nqk,nc->qkc", delta, self.pooled)
            + torch.einsum("nk,nqc->qkc", self.logit_gradients, pooled),
            f"{self.linear}.bias": delta.sum(0),
        }
        at_maxima = delta @ self._modules[self.linear].weight
        if weight is not None:
            at_maxima = at_maxima + torch.einsum("nk,qkc->nqc", self.logit_gradients, weight)
        above = self.parts[:, None] * at_maxima[:, :, :, None]
        for layer in range(len(self.convolutions) - 1, max(self._lowest - 2, -1), -1):
            name = self.convolutions[layer]
            found |= self._kernel_tangents(name, layer, above, tangents[layer])
            kernels = along.get(f"{name}.weight")
            if layer == 0 and self.windows is not None and words is not None:
                found[f"{name}.weight"] = found[f"{name}.weight"] + self.windows.of_kernel(words)
                found[f"{self.embedding}.weight"] = self.windows.of_words(above, kernels)
            elif layer + 1 > self._lowest:
                below = self._transposed(name, above)
                if kernels is not None:
                    below = below + self._transposed_along(kernels, self.deltas[layer], self._modules[name])
                above = below * self.gates[layer - 1][:, None]
        return found

    def _kernel_tangents(self, name: str, layer: int, above: Tensor, tangent: Tensor | None) -> dict[str, Tensor]:
        """Return the tangents of the gradients of a convolution's weight [q, C, C_in, kernel] and bias [q, C]."""
        (n, q, c, length), module = above.shape, self._modules[name]
        (c_in, size), padding = module.weight.shape[1:], module.padding
        kernel = conv1d_weight(
            self.hidden[layer], torch.Size([q * c, c_in, size]), above.reshape(n, q * c, length), padding=padding
        ).view(q, c, c_in, size)
        if tangent is not None:
            inputs = tangent.reshape(n, q * c_in, length)
            other = conv1d_weight(inputs, torch.Size([c, q * c_in, size]), self.deltas[layer], padding=padding)
            kernel = kernel + other.view(c, q, c_in, size).transpose(0, 1)
        return {f"{name}.weight": kernel, f"{name}.bias": above.sum((0, 3))}

    def _convolved(self, name: str, inputs: Tensor, bias: bool = True) -> Tensor:
        module, lead = self._modules[name], inputs.shape[:-2]
        found = conv1d(inputs.flatten(0, -3), module.weight, module.bias if bias else None, padding=module.padding)
        return found.view(*lead, *found.shape[-2:])

    def _transposed(self, name: str, deltas: Tensor) -> Tensor:
        """Return the gradient at the input of a convolution, from that at its output: [..., C, L] -> [..., C_in, L]."""
        module, lead = self._modules[name], deltas.shape[:-2]
        kernel = module.weight.flip(2).transpose(0, 1).contiguous()
        found = conv1d(deltas.flatten(0, -3), kernel, padding=module.padding)
        return found.view(*lead, *found.shape[-2:])

    @staticmethod
    def _transposed_along(kernels: Tensor, deltas: Tensor, module: Any) -> Tensor:
        """Return the same for one kernel per vector, [q, C, C_in, kernel]: [n, C, L] -> [n, q, C_in, L]."""
        q, _, c_in, _ = kernels.shape
        flipped = kernels.flip(3).transpose(1, 2).flatten(0, 1)
        return conv1d(deltas, flipped, padding=module.padding).view(len(deltas), q, c_in, -1)

    def _add_words(self, piece: Piece, by_token: Tensor, scale: float, total: Tensor) -> None:
        """Add the tangents of the rows of tokens [U, q, D] to `total` [q, n_rows, D]."""
        assert self.windows is not None
        tokens = self.windows.tokens
        if piece.rows is not None:
            numbers = tokens.new_full((len(self._modules[self.embedding].weight),), -1)
            numbers[piece.rows] = torch.arange(len(piece.rows), device=tokens.device)
            places = numbers[tokens]
            by_token, tokens = by_token[places >= 0], places[places >= 0]
        total.index_add_(1, tokens, by_token.transpose(0, 1), alpha=scale)

    def _whole(self, piece: Piece, part: Tensor, q: int) -> Tensor:
        """Return a part of the vectors in the shape of its parameter, zero in the rows that are not chosen: [q, ...]."""
        part = part.view(q, *piece.shape)
        if piece.rows is None:
            return part
        parameter = self.selection.network.get_parameter(piece.name)
        return part.new_zeros(q, *parameter.shape).index_copy_(1, piece.rows, part)
