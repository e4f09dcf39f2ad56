"""Embedding tuning: influence tuning on the label's output row, where influences are cosines of the last hidden state."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from influence.recipes.rounds import Cosines, TuningRounds
from tasks.task import Task

if TYPE_CHECKING:
    from torch import nn


class EmbeddingTuning(TuningRounds):
    """First order: I(train, probe) = cos(h_train, h_probe), where h is the input of the layer onto the logits.

    The loss and its gradient are those of influence_tuning with parameters label_row, without a second derivative: the
    gradient of the label loss in the label's row is (p(y) - 1) h, and the factor cancels. Here the layer onto the
    logits has no gradient in a round; in influence_tuning it has rounding noise, which Adam scales up. Han and Tsvetkov
    2021, section 4.1.
    """

    name: ClassVar[str] = "embedding_tuning"
    version: ClassVar[int] = 1

    def cosines_of(self, task: Task, network: nn.Module) -> Cosines:
        """Return a function that computes cosines of the last hidden state."""
        from influence.influence_loss import hidden_cosines

        return lambda batch, n_probes: hidden_cosines(task, network, batch, n_probes)
