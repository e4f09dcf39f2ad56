"""The cancellation of training influence: how much larger the gradients are than the change of the weights, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from influence.base import Method
from influence.diagnostic import Diagnostic, Panels, ScoredModels, Table
from tasks.errors import InputError
from tasks.hooks import overrides
from tasks.model import Model
from tasks.seeds import generator
from tasks.suggestions import did_you_mean, listed
from tasks.task import Task

if TYPE_CHECKING:
    from torch import nn


class Cancellation(Diagnostic):
    """Cancellation ratio and gradient cosine of the weights and the biases of every layer.

    C(W) = sum_c G(W)_c / sum_c dW_c with G(W)_c = eta_c sum_i |dl_i/dW_c| and dW_c = |W_(c+1) - W_c|, over the
    checkpoints c that another one follows. Yeh et al. 2022, section 3.1. `rows`: the number of train examples from
    which the sums are estimated, drawn with `seed`, or `all`. `cosine_split`: train, or the measured split whose
    examples are compared in E cos(dl_a/dW, dl_b/dW), a != b (section 3.3); the paper takes test examples.
    """

    name: ClassVar[str] = "cancellation"
    labels: ClassVar[tuple[str, ...]] = ("model", "layer", "part")
    explained: ClassVar[str] = (
        "Cancellation is the summed size of the examples' gradients, times the learning rate, divided by the distance "
        "that the weights moved. Where it is high, the gradients of different examples cancel each other out. Cosine is "
        "the mean cosine of the gradients of two different examples. Compare layers and parts within one campaign: the "
        "ratio also depends on the optimiser, the batch size and the distance between the checkpoints."
    )
    figure: ClassVar[Panels | None] = Panels("layer", ("cancellation", "cosine"), "part", frozenset({"cancellation"}))

    rows: Annotated[int, Field(ge=2)] | Literal["all"] = 1000
    cosine_split: str = "train"
    batch_size: int = Field(64, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)

    def check(self, task: Task, base_dir: Path, methods: Mapping[str, Method], n_checkpoints: int, where: str) -> None:
        """Raise InputError if the model names no layers, a split is unknown, or there is only one checkpoint per model."""
        hooks = (Model.embedding_module, Model.last_module, Model.layer_modules)
        if not any(overrides(task.model, hook) for hook in hooks):
            raise InputError(where, f"cancellation needs layers with weights; the model {task.model.name} has none")
        allowed = dict.fromkeys(("train", *task.measured))
        if self.cosine_split not in allowed:
            problem = f"{self.cosine_split!r} is neither train nor a measured split; allowed: {listed(allowed)}"
            raise InputError(f"{where}.cosine_split", problem + did_you_mean(self.cosine_split, allowed))
        if n_checkpoints < 2:
            problem = "cancellation needs the change of the weights between two checkpoints of a model, and scores.checkpoints"
            raise InputError(where, f"{problem} keeps one; give at least two epochs, such as [0, 1]")

    def check_network(self, task: Task, network: nn.Module, where: str) -> None:
        """Raise InputError if the per-example gradients of a trained layer cannot be computed."""
        from influence.diagnostics.layer_sums import check_layers

        check_layers(task, network, where)

    def compute(self, models: ScoredModels) -> Mapping[str, Table]:
        """Return the table of whole trainings, and `checkpoints`: the same quantities at each checkpoint."""
        from influence.diagnostics.cancellation_tables import tables

        rows, compared = self.sample(np.arange(len(models.task.splits["train"]))), None
        if self.cosine_split != "train":
            compared = self.sample(models.task.measured[self.cosine_split])
        return tables(models, rows, self.cosine_split, compared, self.batch_size)

    def sample(self, rows: np.ndarray) -> np.ndarray:
        """Return the sampled ones of `rows`, in increasing order."""
        if self.rows == "all" or self.rows >= len(rows):
            return np.sort(rows)
        return np.sort(generator(self.seed, "diagnosed rows").permutation(rows)[: self.rows])
