"""TracIn over chosen layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import field_validator

from influence.layers import Layers, check_selection
from influence.methods.checkpointed import CheckpointSum
from influence.methods.requirements import require_model
from tasks.hooks import overrides
from tasks.model import Model
from tasks.task import Task

if TYPE_CHECKING:
    from influence.gradients import CheckpointGradients, GradientShard


class TracIn(CheckpointSum):
    """Gradient dot product over chosen layers, summed over checkpoints.

    score(q, i) = sum_c weight_c sum_layers <dl_i/dW, dl_q/dW>. `layers`: all (that are trained), first (the word
    embedding), second ... tenth, last, or a list of name patterns. Biases are left out unless `bias`, because their
    influences cancel most (Yeh et al. 2022, section 3.2). The sign is that of Pruthi et al. 2020, equation 1, positive
    = helpful; equation 2 of Yeh et al. has the opposite sign.
    """

    name: ClassVar[str] = "tracin"
    needs: ClassVar[frozenset[str]] = frozenset({"layers"})
    selects: ClassVar[dict[str, str]] = {"layers": "layers"}
    is_inner_product: ClassVar[bool] = True

    layers: str | tuple[str, ...] = "all"
    bias: bool = False

    @field_validator("layers")
    @classmethod
    def _known(cls, layers: str | tuple[str, ...]) -> str | tuple[str, ...]:
        check_selection(layers)
        return layers

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Raise InputError if the model names no layers."""
        if not any(overrides(task.model, hook) for hook in (Model.embedding_module, Model.last_module)):
            require_model(task, Model.layer_modules, where, f"{self.name} needs layers with weights")

    def chosen_layers(self, layers: Layers) -> list[str]:
        """Return the names of the modules whose weight gradients it needs. Raises InputError."""
        return layers.choose(self.layers)

    def context(self, train: GradientShard, prepared: Any) -> list[str]:
        """Return the names of the chosen modules."""
        return self.chosen_layers(train.layers)

    def term(self, queries: CheckpointGradients, train: CheckpointGradients, context: list[str]) -> np.ndarray:
        """Return the sum over the chosen modules of the inner products of their gradients."""
        products = [queries.layers[name].dot(train.layers[name], self.bias) for name in context]  # pyright: ignore[reportArgumentType]
        return np.sum(products, axis=0)
