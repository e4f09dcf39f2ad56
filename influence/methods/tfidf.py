"""TF-IDF similarity in place of the last layer's similarity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence.checkpoint import QueryBlock
from influence.methods.checkpointed import CheckpointSum
from influence.methods.requirements import require_last_layer, require_task
from tasks.task import Task

if TYPE_CHECKING:
    from influence.gradients import CheckpointGradients, GradientShard


@dataclass(frozen=True)
class Similarity:
    """Cosine of TF-IDF vectors: float32 [n_queries, n_train]; columns are rows of the train split."""

    query_ids: np.ndarray
    values: np.ndarray


class TfIdf(CheckpointSum):
    """TF-IDF similarity times the inner product of the loss gradients at the logits.

    score(q, i) = tfidf_q . tfidf_i sum_c weight_c <d_i, d_q>, d = dl/dlogits. Yeh et al. 2022, equation 7. The vectors
    are counts times ln((1 + n) / (1 + df)) + 1 with df from all n training texts (removals never change it), scaled to
    length one; start, end, padding and the separator of pairs are
    not counted as words. `sublinear` replaces a count by 1 + ln(count).
    """

    name: ClassVar[str] = "tfidf"
    needs: ClassVar[frozenset[str]] = frozenset({"last"})

    sublinear: bool = False

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Raise InputError if the task has no tokens to count or the model no logits layer."""
        require_task(task, Task.token_counts, where, "tfidf needs a task with text")
        require_last_layer(task, base_dir, where, "tfidf needs a last layer onto the logits")

    def prepare(self, task: Any, base_dir: Path, queries: QueryBlock) -> Similarity:
        """Fit on the whole train split and compare the queries with it."""
        similarity = word_similarity(task, queries.split, queries.rows, sublinear=self.sublinear)
        return Similarity(np.asarray(queries.ids, np.int64), similarity)

    def score(self, queries: GradientShard, train: GradientShard, prepared: Similarity) -> np.ndarray:
        """Return scores float32 [n_queries, n_train]."""
        order = np.argsort(prepared.query_ids)
        rows = order[np.searchsorted(prepared.query_ids, queries.ids, sorter=order)]
        return super().score(queries, train, None) * prepared.values[np.ix_(rows, train.rows)]

    def term(self, queries: CheckpointGradients, train: CheckpointGradients, context: Any) -> np.ndarray:
        """Return <d_i, d_q>."""
        assert queries.last is not None
        assert train.last is not None
        return (queries.last.logit_gradients @ train.last.logit_gradients.T).double().cpu().numpy()


def word_similarity(task: Any, split: str, rows: np.ndarray, *, sublinear: bool = False) -> np.ndarray:
    """Return the cosine of the TF-IDF vectors of `rows` of a split and of all training texts: float32 [len(rows), n_train].

    The vectors are those that TfIdf describes, fitted on the whole train split of the prepared `task`.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = _words(task, "train")
    transformer = TfidfTransformer(sublinear_tf=sublinear).fit(counts)
    train: Any = transformer.transform(counts)
    asked: Any = transformer.transform(_words(task, split)[rows])
    return (asked @ train.T).toarray().astype(np.float32)


def _words(task: Any, split: str) -> Any:
    """Return counts of the tokens that are words: CSR float64 [n, vocabulary]."""
    counts = task.token_counts(split).tocsr().astype(np.float64)
    kept = np.ones(counts.shape[1])
    kept[sorted(task.special_ids)] = 0
    words = counts.multiply(kept).tocsr()
    words.eliminate_zeros()
    return words
