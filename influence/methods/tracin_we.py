"""TracIn on the word embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import field_validator, model_validator

from influence.checkpoint import QueryBlock
from influence.methods.checkpointed import CheckpointSum
from influence.methods.left_out import LeftOut, check_words, left_out_tokens
from influence.methods.requirements import require_model, require_task
from tasks.errors import InputError
from tasks.model import Model
from tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

    from influence.gradients import CheckpointGradients, GradientShard
    from influence.products import TokenGradients


class TracInWE(CheckpointSum):
    """Gradient dot product on the word embeddings, exact and word by word.

    score(q, i) = sum_c weight_c sum over words w in both of <dl_i/dE_w, dl_q/dE_w>. Yeh et al. 2022, equations 3 and 4
    (whose minus sign contradicts the paper's own definition of proponents). `tokens`: all; special = start, end,
    padding and separator only (the paper's TR-common); content = all others. `leave_out`: words that do not count, as a
    list, or `{most_frequent: N}` = the N most frequent tokens of the train split and the special ones (the paper's
    TR-WE-NoC). Gradients are taken even if the embedding is frozen (Yeh et al. 2022, section 5).
    """

    name: ClassVar[str] = "tracin_we"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    is_inner_product: ClassVar[bool] = True

    tokens: Literal["all", "special", "content"] = "all"
    leave_out: LeftOut | None = None

    @field_validator("leave_out")
    @classmethod
    def _not_empty(cls, leave_out: LeftOut | None) -> LeftOut | None:
        if leave_out == ():
            raise ValueError("an empty list leaves out no word")
        return leave_out

    @model_validator(mode="after")
    def _leaves_something(self) -> TracInWE:
        if self.leave_out is not None and self.tokens == "special":
            raise ValueError("leave_out leaves out words, and tokens: special takes none; choose one of both")
        return self

    def identity(self) -> dict[str, Any]:
        """Return name, version and options; without `leave_out` if it is not set, so that older score ids stay valid."""
        found = super().identity()
        if self.leave_out is None:
            return {name: value for name, value in found.items() if name != "leave_out"}
        return (
            found if isinstance(found["leave_out"], dict) else {**found, "leave_out": sorted(set(found["leave_out"]))}
        )

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Raise InputError if the model has no word embedding, or if `tokens` needs special tokens and the task has none."""
        require_model(task, Model.embedding_module, where, f"{self.name} needs a word embedding")
        if self.tokens != "all":
            require_task(task, Task.special_ids, where, f"tokens: {self.tokens} needs special tokens")
        if self.leave_out is not None:
            check_words(self.leave_out, task, self.name, f"{where}.leave_out")

    def check_network(self, task: Task, network: nn.Module, queries: QueryBlock | None, where: str) -> None:
        """Refuse a network without per-position gradients of its word embedding, and a `leave_out` that leaves no word."""
        super().check_network(task, network, queries, where)
        try:
            self.prepare(task, Path(), queries)
        except InputError as error:
            raise InputError(f"{where}.{error.where}", error.problem) from error

    def prepare(self, task: Task, base_dir: Path, queries: QueryBlock | None) -> tuple[int, ...]:
        """Return the ids of the tokens that count (`tokens: special`), or of those that do not count (otherwise)."""
        special = frozenset() if self.tokens == "all" else task.special_ids
        left_out = frozenset() if self.leave_out is None else left_out_tokens(self.leave_out, task)
        return tuple(sorted(special | left_out))

    def used(self, gradients: CheckpointGradients, listed: tuple[int, ...]) -> TokenGradients:
        """Return the entries of the tokens that `tokens` and `leave_out` select; `listed` is the result of `prepare`."""
        assert gradients.embedding is not None
        if self.tokens == "all" and not listed:
            return gradients.embedding
        return gradients.embedding.of_tokens(listed, inside=self.tokens == "special")

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
            words = self.word_terms(ours, theirs, query_row, train_row, prepared)
            for token, product in words.items():
                total[token] = total.get(token, 0.0) + theirs.weight * product
        return sorted(total.items(), key=lambda item: (-abs(item[1]), item[0]))

    def word_terms(
        self,
        queries: CheckpointGradients,
        train: CheckpointGradients,
        query_row: int,
        train_row: int,
        context: tuple[int, ...],
    ) -> dict[int, float]:
        """Return token -> its part of the term of one checkpoint, for one pair."""
        return self.used(queries, context).words(self.used(train, context), query_row, train_row)

    def by_word(
        self, queries: CheckpointGradients, train: CheckpointGradients, context: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return `term` before it is summed: (query row, train row, token of the training example, part), [E] each."""
        return self.used(queries, context).by_word(self.used(train, context))
