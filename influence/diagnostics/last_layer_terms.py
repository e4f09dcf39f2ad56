"""Which of the two terms of TracIn on the last layer decides a ranking, and how often one proponent recurs over queries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from influence.base import Method
from influence.diagnostic import Diagnostic, Panels, ScoredModels, Table, columns_of, require_labels
from influence.matrix import ScoreMatrix
from influence.methods.checkpointed import checkpoint_terms
from influence.methods.requirements import require_last_layer
from influence.methods.tracin_last import TracInLast
from influence.ranking import ranked
from tasks.base import Split
from tasks.errors import InputError
from tasks.task import Task


class LastLayerTerms(Diagnostic):
    """Overlap of a method's top examples with the saliency and the similarity term of tracin_last, and their recurrence.

    tracin_last = sum_c weight_c (d_i . d_q) (a_i . a_q). `k`: the overlap is the number of examples that the k highest
    scores of a query have in common with the k highest values of a term. `top`: a proponent recurs in a query if it is
    among the `top` proponents or the `top` opponents there. `methods`: labels of the methods to diagnose; by default all
    that have scores. All train examples are ranked, also if a campaign allows fewer of them to be removed. Yeh et al. 2022, appendix G (k = 100, top = 20).
    """

    name: ClassVar[str] = "last_layer_terms"
    uses_queries: ClassVar[bool] = True
    labels: ClassVar[tuple[str, ...]] = ("method",)
    explained: ClassVar[str] = (
        "Overlap: how many of a query's top examples by the method are also top examples by the saliency term, by the "
        "size of the loss gradient of the example alone, or by the similarity of the last activations; by chance there "
        "would be as many as the column expected says. Recurrence: the share of the other queries that have the query's "
        "first proponent among their top proponents or opponents."
    )
    figure: ClassVar[Panels | None] = Panels("method", ("overlap_saliency", "overlap_similarity", "recurrence"))

    k: int = Field(100, ge=1)
    top: int = Field(20, ge=1)
    methods: tuple[str, ...] | None = None
    batch_size: int = Field(64, ge=1)

    def check(self, task: Task, base_dir: Path, methods: Mapping[str, Method], n_checkpoints: int, where: str) -> None:
        """Raise InputError if the model has no last layer, a label has no scores, or `k` or `top` are not below the train set's size."""
        require_last_layer(task, base_dir, where, "last_layer_terms needs a last layer onto the logits")
        require_labels(self.methods, methods, where)
        n_train = len(task.splits["train"])
        for name, size in (("k", self.k), ("top", self.top)):
            if size >= n_train:
                raise InputError(f"{where}.{name}", f"{size}: must be below the number of train examples, {n_train}")

    def reads_scores_of(self, methods: Mapping[str, Method]) -> list[str]:
        """Return the labels of the methods to diagnose."""
        return [label for label in methods if self.methods is None or label in self.methods]

    def compute(self, models: ScoredModels) -> Mapping[str, Table]:
        """Return a row per method, the mean over queries, and the table `queries` with a row per method and query."""
        train = models.task.splits["train"]
        best = {
            name: ranked(values, train.ids, "proponents")[:, : self.k]
            for name, values in last_layer_products(models, self.batch_size).items()
        }
        by_method = {label: self._of_queries(label, matrix, best) for label, matrix in models.scores.items()}
        whole = [self._mean(label, rows, len(train)) for label, rows in by_method.items()]
        each = [row for rows in by_method.values() for row in rows]
        return {
            "": columns_of(whole),
            "queries": columns_of(each if train.given_ids is None else _with_given_ids(each, train)),
        }

    def _of_queries(self, label: str, matrix: ScoreMatrix, best: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """Return a row per query; `best` holds the ids of the k highest values of each term, int64 [n_queries, k]."""
        orders = [
            None if np.isnan(scores).any() else ranked(scores, matrix.train_ids, "proponents")
            for scores in matrix.scores
        ]
        ends = [
            None if order is None else {*order[: self.top].tolist(), *order[-self.top :].tolist()} for order in orders
        ]
        rows = []
        for position, order in enumerate(orders):
            overlaps = {
                f"overlap_{name}": None if order is None else len(np.intersect1d(order[: self.k], ids[position]))
                for name, ids in best.items()
            }
            others = [end for other, end in enumerate(ends) if other != position and end is not None]
            first = None if order is None else int(order[0])
            rows.append(
                {
                    "method": label,
                    "query_id": int(matrix.query_ids[position]),
                    **overlaps,
                    "first_proponent_id": first,
                    "recurrence": sum(first in end for end in others) / len(others)
                    if order is not None and others
                    else None,
                }
            )
        return rows

    def _mean(self, label: str, rows: list[dict[str, Any]], n_train: int) -> dict[str, Any]:
        """Return the means over the queries that have scores; `expected` is k^2 / n, the overlap of two random sets."""
        names = [name for name in rows[0] if name.startswith("overlap_")]
        found = [row for row in rows if row["first_proponent_id"] is not None]
        recurring = [row["recurrence"] for row in found if row["recurrence"] is not None]
        means = {name: float(np.mean([row[name] for row in found])) if found else None for name in names}
        return {
            "method": label,
            "k": self.k,
            **means,
            "expected": self.k**2 / n_train,
            "recurrence": float(np.mean(recurring)) if recurring else None,
            "most_recurrent": max(recurring, default=None),
            "n_queries": len(found),
        }


def last_layer_products(models: ScoredModels, batch_size: int) -> dict[str, np.ndarray]:
    """Return the terms of tracin_last for every pair, summed over checkpoints with its weights: float64 [n_queries, n_train].

    saliency = sum_c w_c d_i . d_q; loss_saliency = sum_c w_c |d_i| (the same for every query); similarity =
    sum_c w_c a_i . a_q, with d the gradient of the loss at the logits and a the input of the last layer.
    """
    from influence.gradients import GradientSource

    task, queries, train = models.task, models.queries, models.task.splits["train"]
    terms = checkpoint_terms(TracInLast(), models.checkpoints)
    found = {name: np.zeros((len(queries.ids), len(train))) for name in ("saliency", "loss_saliency", "similarity")}
    network = task.network(0)
    for position, weight in terms:
        checkpoint = models.checkpoints[position]
        source = GradientSource(task, network, [checkpoint], frozenset({"last"}), device=models.device)
        ours = source.shard(queries.split, queries.rows, queries.labels, batch_size).checkpoints[0].last
        for start in range(0, len(train), batch_size):
            rows = np.arange(start, min(start + batch_size, len(train)))
            theirs = source.shard("train", rows, train.labels[rows], batch_size).checkpoints[0].last
            assert ours is not None
            assert theirs is not None
            products = {
                "saliency": ours.logit_gradients @ theirs.logit_gradients.T,
                "loss_saliency": theirs.logit_gradients.norm(dim=1)[None],
                "similarity": ours.activations @ theirs.activations.T,
            }
            for name, product in products.items():
                found[name][:, rows] += weight * product.double().cpu().numpy()
    return found


def _with_given_ids(rows: list[dict[str, Any]], train: Split) -> list[dict[str, Any]]:
    """Return the rows with the first proponent's id as the data gives it, too."""
    firsts = [row["first_proponent_id"] for row in rows]
    shown = [None if first is None else train.shown_id(first) for first in firsts]
    return [{**row, "given_first_proponent_id": name} for row, name in zip(rows, shown, strict=True)]
