"""TracIn on the word embeddings, with the strongest positions only."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from influence.methods.tracin_we import TracInWE

if TYPE_CHECKING:
    from influence.gradients import CheckpointGradients
    from influence.products import TokenGradients


class TracInWETopK(TracInWE):
    """tracin_we on the k positions with the largest gradient norm, of the query and of the training example.

    The choice is made anew at each checkpoint. Positions are chosen, not words: a word chosen at two positions
    contributes the sum of both. Yeh et al. 2022, equations 5 and 6, with k = 10 as there. `tokens` and `leave_out` are
    applied before the choice.
    """

    name: ClassVar[str] = "tracin_we_topk"

    k: int = Field(10, ge=1)

    def used(self, gradients: CheckpointGradients, listed: tuple[int, ...]) -> TokenGradients:
        """Return the k strongest entries of each example."""
        return super().used(gradients, listed).top(self.k)
