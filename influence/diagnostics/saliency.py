"""The saliency of every token of every query: how strongly it supports the prediction, by gradient x word embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from influence.base import Method
from influence.diagnostic import Diagnostic, ScoredModels, Table, columns_of
from influence.diagnostics.query_tokens import QueryToken, tokens_of
from influence.methods.requirements import require_model, require_task
from tasks.errors import InputError
from tasks.model import Model
from tasks.task import Task

if TYPE_CHECKING:
    from torch import nn


class Saliency(Diagnostic):
    """Saliency of the tokens of the queries: minus the gradient of the loss times the word embedding, summed over dimensions.

    saliency_t = -sum_j (d l / d e_tj) e_tj with l = -log p(label), so that a positive value supports the label; the mean
    over the last checkpoints of the scoring models. `of_label`: predicted, the class with the highest probability (mean over
    the scoring models), or query, the label whose loss the scores explain. `normalise`: divide by the L1 norm over all
    tokens of the query, special tokens included. Han et al. 2020, section 2.1; Shrikumar et al. 2017.
    """

    name: ClassVar[str] = "saliency"
    uses_queries: ClassVar[bool] = True
    labels: ClassVar[tuple[str, ...]] = ("query_id",)
    explained: ClassVar[str] = (
        "Saliency is minus the gradient of the loss with respect to the word embedding of a token, times this embedding: "
        "a token with a positive value supports the label in the table, and a token with a negative value speaks against it."
    )
    marked_table: ClassVar[str] = "tokens"
    marked_column: ClassVar[str] = "saliency"

    of_label: Literal["predicted", "query"] = "predicted"
    normalise: bool = True
    batch_size: int = Field(64, ge=1)

    def check(self, task: Task, base_dir: Path, methods: Mapping[str, Method], n_checkpoints: int, where: str) -> None:
        """Raise InputError if the model has no word embedding, or the task no tokens."""
        require_tokens(task, where, "saliency")

    def check_network(self, task: Task, network: nn.Module, where: str) -> None:
        """Raise InputError if the network has no word embedding."""
        require_embedding(task, network, where)

    def compute(self, models: ScoredModels) -> Mapping[str, Table]:
        """Return a row per query with its most and least salient token, and the table `tokens` with a row per token."""
        from influence.saliency import class_probabilities, normalised, token_saliency

        task, queries = models.task, models.queries
        labels = np.asarray(queries.labels, np.int64)
        if self.of_label == "predicted":
            labels = class_probabilities(task, models.last, queries.split, queries.rows, models.device).argmax(axis=1)
        found = token_saliency(task, models.last, queries.split, queries.rows, labels, self.batch_size, models.device)
        classes, whole, each = task.splits[queries.split].classes, [], []
        for query_id, row, label, values in zip(queries.ids.tolist(), queries.rows, labels, found, strict=True):
            tokens = tokens_of(task, queries.split, int(row))
            saliency = values[: len(tokens)]
            saliency = normalised(saliency) if self.normalise else saliency
            whole.append({"query_id": query_id, "label": classes[int(label)], **_extremes(tokens, saliency)})
            each += [{"query_id": query_id, **_row(token, saliency)} for token in tokens]
        return {"": columns_of(whole), "tokens": columns_of(each)}


def require_tokens(task: Task, where: str, name: str) -> None:
    """Raise InputError unless the model has a word embedding and the task tells the tokens of its texts apart."""
    require_model(task, Model.embedding_module, where, f"{name} needs a word embedding")
    for hook in (Task.token_spans, Task.token_text, Task.special_ids):
        require_task(task, hook, where, f"{name} needs the tokens of the queries")


def require_embedding(task: Task, network: nn.Module, where: str) -> None:
    """Raise InputError if the network has no word embedding."""
    if task.model.embedding_module(network) is None:
        raise InputError(where, f"saliency needs a word embedding; the model {task.model.name} has none")


def _extremes(tokens: Sequence[QueryToken], saliency: np.ndarray) -> dict[str, Any]:
    """Return the tokens of the highest and the lowest saliency, special tokens included, and the number of tokens."""
    high, low = int(saliency.argmax()), int(saliency.argmin())
    return {
        "highest_token": tokens[high].text,
        "highest_saliency": float(saliency[high]),
        "lowest_token": tokens[low].text,
        "lowest_saliency": float(saliency[low]),
        "n_tokens": len(tokens),
    }


def _row(token: QueryToken, saliency: np.ndarray) -> dict[str, Any]:
    return {
        "position": token.position,
        "token": token.text,
        "saliency": float(saliency[token.position]),
        "begins_word": token.begins_word,
        "start": token.start,
        "end": token.end,
    }
