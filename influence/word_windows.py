"""A word embedding below a convolution, as matrix products over the distinct tokens of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad


class WordWindows:
    """The tokens at which the windows of a convolution look, for n texts of L positions, and what is summed over them.

    A text is embedding[ids] attention_mask, and the convolution has weight [C, D, K]. Neighbouring windows and repeated
    words share their products, so the embedded texts [n, D, L] of every vector are never formed; only the `tokens` [U]
    that occur in the batch cost anything. `deltas` [n, C, L] are the gradients at the output of the convolution.
    """

    def __init__(self, ids: Tensor, mask: Tensor, convolution: Any, deltas: Tensor):
        self.tokens, places = ids.unique(return_inverse=True)
        self.weight, (self.width,), (margin,) = convolution.weight, convolution.kernel_size, convolution.padding
        n_tokens = len(self.tokens)  # is also the place of everything that is masked or outside the text
        places = pad(places.where(mask, places.new_full((), n_tokens)), (margin, margin), value=n_tokens)
        self._windows = places.unfold(1, self.width, 1).flatten(0, 1)  # [n L, K]
        self._sums = self._summed(deltas)  # [U, K, C]
        self._matrix = self.weight.permute(1, 2, 0).flatten(1)  # [D, K C]

    def of(self, words: Tensor) -> Tensor:
        """Return the rows of the tokens from tangents of the embedding: [q, vocabulary, D] -> [q, U, D]."""
        found = words.new_empty(len(words), len(self.tokens), words.shape[2])
        for one, into in zip(
            words, found, strict=True
        ):  # each is contiguous, so that rows are copied without an iterator
            torch.index_select(one, 0, self.tokens, out=into)
        return found

    def convolved(self, words: Tensor, n: int) -> Tensor:
        """Return the tangents at the output of the convolution, from those of the tokens: [q, U, D] -> [n, q, C, L]."""
        (q, n_tokens, _), c = words.shape, len(self.weight)
        table = words.new_zeros(n_tokens + 1, self.width, q, c)
        table[:-1] = (words @ self._matrix).view(q, n_tokens, self.width, c).permute(1, 2, 0, 3)
        bags = self._windows * self.width + torch.arange(self.width, device=words.device)
        found = embedding_bag(bags, table.view(-1, q * c), mode="sum")
        return found.view(n, -1, q, c).permute(0, 2, 3, 1).contiguous()

    def of_kernel(self, words: Tensor) -> Tensor:
        """Return what the tangents of the tokens add to those of the kernel's gradient: [q, U, D] -> [q, C, D, K]."""
        found = words.transpose(1, 2) @ self._sums.flatten(1)
        return found.view(*found.shape[:2], self.width, -1).permute(0, 3, 1, 2)

    def of_words(self, tangents: Tensor, kernels: Tensor | None) -> Tensor:
        """Return the tangents of the embedding's gradient in the rows of the tokens: [U, q, D].

        `tangents` [n, q, C, L] are those of `deltas`; `kernels` [q, C, D, K] are those of the convolution's weight.
        """
        q, c = tangents.shape[1:3]
        sums = self._summed(tangents.flatten(1, 2)).view(-1, self.width, q, c).transpose(1, 2)
        found = sums.reshape(-1, self.width * c) @ self._matrix.T
        found = found.view(len(self.tokens), q, -1)
        if kernels is not None:
            matrix = kernels.permute(3, 1, 0, 2).reshape(self.width * c, -1)
            found.flatten(1).addmm_(self._sums.flatten(1), matrix)  # in place: a view of the same numbers
        return found

    def _summed(self, values: Tensor) -> Tensor:
        """Return the sums of values over the windows that have a token at each of their places: [n, X, L] -> [U, K, X]."""
        rows = values.transpose(1, 2).reshape(-1, values.shape[1])
        sums = rows.new_zeros(self.width, len(self.tokens) + 1, rows.shape[1])
        for place in range(self.width):
            sums[place].index_add_(0, self._windows[:, place], rows)
        return sums[:, :-1].transpose(0, 1)
