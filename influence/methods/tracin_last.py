"""TracIn on the last layer, in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence.methods.checkpointed import CheckpointSum
from influence.methods.requirements import require_last_layer
from tasks.task import Task

if TYPE_CHECKING:
    from influence.gradients import CheckpointGradients


class TracInLast(CheckpointSum):
    """TracIn on the weights of the last layer, without forming a gradient.

    score(q, i) = sum_c weight_c (a_i . a_q) (d_i . d_q), a = activation into the last layer, d = dl/dlogits; with
    `bias` plus d_i . d_q. Yeh et al. 2022, section 3.3.
    """

    name: ClassVar[str] = "tracin_last"
    needs: ClassVar[frozenset[str]] = frozenset({"last"})
    is_inner_product: ClassVar[bool] = True

    bias: bool = False

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Raise InputError if the model has no last layer, or if that layer gets every token."""
        require_last_layer(task, base_dir, where, "tracin_last needs a last layer onto the logits")

    def term(self, queries: CheckpointGradients, train: CheckpointGradients, context: Any) -> np.ndarray:
        """Return (a_i . a_q) (d_i . d_q), plus d_i . d_q with `bias`."""
        assert queries.last is not None
        assert train.last is not None
        similarity = queries.last.activations @ train.last.activations.T + float(self.bias)
        salience = queries.last.logit_gradients @ train.last.logit_gradients.T
        return (similarity * salience).double().cpu().numpy()
