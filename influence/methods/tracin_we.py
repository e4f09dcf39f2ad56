"""TracIn on the word embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from influence.checkpoint import QueryBlock
from influence.methods.checkpointed import CheckpointSum
from influence.methods.requirements import require_model, require_task
from tasks.model import Model
from tasks.task import Task

if TYPE_CHECKING:
    from influence.gradients import CheckpointGradients, GradientShard
    from influence.products import TokenGradients


class TracInWE(CheckpointSum):
    """Gradient dot product on the word embeddings, exact and word by word.

    score(q, i) = sum_c weight_c sum over words w in both of <dl_i/dE_w, dl_q/dE_w>. Yeh et al. 2022, equations 3 and 4
    (whose minus sign contradicts the paper's own definition of proponents). `tokens`: all; special = start, end and
    padding only (the paper's TR-common); content = all others. Gradients are taken even if the embedding is frozen (Yeh
    et al. 2022, section 5).
    """

    name: ClassVar[str] = "tracin_we"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    is_inner_product: ClassVar[bool] = True

    tokens: Literal["all", "special", "content"] = "all"

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Raise InputError if the model has no word embedding, or if `tokens` needs special tokens and the task has none."""
        require_model(task, Model.embedding_module, where, f"{self.name} needs a word embedding")
        if self.tokens != "all":
            require_task(task, Task.special_ids, where, f"tokens: {self.tokens} needs special tokens")

    def prepare(self, task: Task, base_dir: Path, queries: QueryBlock) -> tuple[int, ...]:
        """Return the ids of the special tokens."""
        return () if self.tokens == "all" else tuple(sorted(task.special_ids))

    def used(self, gradients: CheckpointGradients, special: tuple[int, ...]) -> TokenGradients:
        """Return the entries of the tokens that `tokens` selects."""
        assert gradients.embedding is not None
        if self.tokens == "all":
            return gradients.embedding
        return gradients.embedding.of_tokens(special, inside=self.tokens == "special")

    def term(self, queries: CheckpointGradients, train: CheckpointGradients, context: tuple[int, ...]) -> np.ndarray:
        """Return the sum over shared words of the inner products of their gradients."""
        return self.used(queries, context).dot(self.used(train, context))

    def words(
        self, queries: GradientShard, train: GradientShard, query_row: int, train_row: int, prepared: tuple[int, ...]
    ) -> list[tuple[int, float]]:
        """Return (token id, contribution), largest magnitude first; the contributions sum to the score.

        Yeh et al. 2022, section 4.3. `query_row` and `train_row` are positions in the shards.
        """
        total: dict[int, float] = {}
        for ours, theirs in zip(queries.checkpoints, train.checkpoints, strict=True):
            words = self.used(ours, prepared).words(self.used(theirs, prepared), query_row, train_row)
            for token, product in words.items():
                total[token] = total.get(token, 0.0) + theirs.weight * product
        return sorted(total.items(), key=lambda item: (-abs(item[1]), item[0]))
