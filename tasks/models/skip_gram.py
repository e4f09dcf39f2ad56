"""Skip-gram with negative sampling (Mikolov et al. 2013): two vectors per word, and the loss of a word and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from tasks.model import Model
from tasks.seeds import torch_generator

if TYPE_CHECKING:
    from torch import Tensor, nn

LossName = Literal["word2vec", "code", "paper"]


@dataclass(frozen=True)
class PairLoss:
    """The loss of a pair: centre vector u, context v, negatives n_1 .. n_K; s is the logistic function.

    word2vec: -log s(u.v) - sum_k log s(-u.n_k) (Mikolov et al. 2013, Eq. 4)
    code:     -[log s(u.v) + mean_k log s(-u.n_k)] / 2 (the code that Silva et al. 2022 released)
    paper:    mean_k s(u.n_k) - s(u.v) (Silva et al. 2022, Eq. 8)
    Each is a sum over the targets: a factor (`factors`) times a term of the score (`terms`, `term_tensor`).
    """

    name: LossName

    def factors(self, negatives: int) -> tuple[float, float]:
        """Return the factor of the context word's term and that of each negative's term."""
        return {"word2vec": (1.0, 1.0), "code": (0.5, 0.5 / negatives), "paper": (1.0, 1 / negatives)}[self.name]

    def terms(
        self, scores: np.ndarray, positive: np.ndarray, with_terms: bool = True
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the terms [n] of the scores u.t [n] (None unless `with_terms`), and their derivatives [n]."""
        sign = np.where(positive, 1, -1).astype(scores.dtype)
        signed = sign * scores
        with np.errstate(over="ignore"):  # exp(large) = inf gives the logistic function 0, which is right
            s = 1 / (1 + np.exp(-signed))
        if self.name == "paper":  # terms -sign s(score): -s(score) for a context word, 1 - s(-score) for a negative
            return np.where(positive, -s, 1 - s) if with_terms else None, -sign * s * (1 - s)
        terms = np.log1p(np.exp(-np.abs(signed))) - np.minimum(signed, 0) if with_terms else None
        return terms, sign * (s - 1)

    def term_tensor(self, scores: Tensor, positive: Tensor) -> Tensor:
        """Return the terms [n] of the scores u.t [n], twice differentiable."""
        from torch.nn.functional import logsigmoid

        sign = positive.to(scores.dtype) * 2 - 1
        return -sign * scores.sigmoid() if self.name == "paper" else -logsigmoid(sign * scores)


class SkipGram(Model):
    """Input and output vectors of length `dim`; the input vectors are what is measured.

    Input vectors start uniform in +-0.5 / dim (word2vec) or, with `uniform_published`, in +-1 / sqrt(n_words + dim)
    (Silva et al.'s code); output vectors start at zero. `l2` adds l2 / 2 * the sum of all squared weights to the train
    objective, which is the mean over sentences of the sum over pairs.
    """

    name: ClassVar[str] = "skip_gram"
    version: ClassVar[int] = 1
    fits: ClassVar[str] = "word_vectors"

    dim: int = Field(100, ge=1, le=4096)
    init: Literal["word2vec", "uniform_published"] = "word2vec"
    l2: float = Field(0.0, ge=0, allow_inf_nan=False)

    def parameter_names(self, base_dir: Path = Path()) -> list[str]:
        """Return the names of the network's parameters, without torch."""
        return ["input.weight", "output.weight"]

    def build(self, n_words: int, seed: int, watched: np.ndarray) -> nn.Module:
        """Return `input.weight` and `output.weight` [n_words, dim], drawn from the generator (seed, 'init').

        The buffer `initial` [n_watched, dim] keeps the initial input vectors of the words `watched` (word numbers).
        """
        import torch
        from torch import nn

        # torch.nn.utils.skip_init would import PyTorch's compiler, which takes a second.
        fresh = nn.Embedding.from_pretrained
        network = nn.ModuleDict(
            {name: fresh(torch.empty(n_words, self.dim), freeze=False) for name in ("input", "output")}
        )
        bound = 0.5 / self.dim if self.init == "word2vec" else (n_words + self.dim) ** -0.5
        inner = network.get_parameter("input.weight")
        nn.init.uniform_(inner, -bound, bound, generator=torch_generator(seed, "init"))
        nn.init.zeros_(network.get_parameter("output.weight"))
        network.register_buffer("initial", inner.detach()[torch.from_numpy(np.asarray(watched, np.int64))].clone())
        return network
