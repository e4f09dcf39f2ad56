"""The score stage of one worker: query gradients once, then score blocks for ranges of train rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from influence.base import Method
from influence.checkpoint import Checkpoint, QueryBlock
from influence.matrix import positions_of
from influence.methods.checkpointed import checkpoint_terms
from tasks.errors import InputError, RefitError
from tasks.length_groups import by_length
from tasks.task import Task

if TYPE_CHECKING:
    import torch

    from influence.gradients import GradientShard, GradientSource
    from influence.inverse_hessian import Stored
    from influence.methods.influence_function import InfluenceFunction


def needs_of(methods: Iterable[Method]) -> frozenset[str]:
    """Return everything that a gradient shard must hold for these methods."""
    return frozenset().union(*(method.needs for method in methods))


class Scorer:
    """Scores ranges of the train split by several methods; one forward and backward pass per checkpoint and batch.

    `methods` maps labels to methods and `prepared` maps labels to the results of Method.prepare; controls are left out.
    Train gradients are those of the gold labels; they are kept for one batch of `batch_size` rows and then dropped.
    Batches are cut from the rows of the range, in row order or by length (tasks.length_groups.by_length), so the same
    range gives the same bits, whatever else was computed. Methods that need curvature first solve for the queries;
    `diagnostics` maps their labels to the diagnostics, plain JSON values. `stored` maps labels of methods that share
    solving to the solutions that are known already. Raises InputError if a method's layers are not in the model or its
    solver refuses.
    """

    def __init__(
        self,
        task: Task,
        checkpoints: Sequence[Checkpoint],
        queries: QueryBlock,
        methods: Mapping[str, Method],
        prepared: Mapping[str, Any],
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        stored: Mapping[str, Stored] | None = None,
    ):
        self.task, self.prepared, self.batch_size = task, dict(prepared), batch_size
        self.methods = {label: method for label, method in methods.items() if not method.is_control}
        used, self.terms = _terms(self.methods, checkpoints)
        self._sources = _sources(task, used, self.methods, device)
        shards = [source.shard(queries.split, queries.rows, queries.labels, batch_size) for source, _ in self._sources]
        self._queries = {
            label: shard.weighted(self.terms[label])
            for shard, (_, group) in zip(shards, self._sources, strict=True)
            for label in group
        }
        self._n_queries, self._query_split = len(queries.rows), queries.split
        solved = {
            label: _solve(task, label, self.methods[label], checkpoints, queries, device, (stored or {}).get(label))
            for label in _curved(self.methods)
        }
        self.prepared |= solved
        self.diagnostics: dict[str, dict[str, Any]] = {
            label: self.methods[label].diagnostics(found) for label, found in solved.items()
        }

    def score_range(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return scores of the train rows [start, stop): label -> float32 [n_queries, stop - start], columns in row order.

        Raises RefitError naming the method whose scores have the wrong shape or are not finite (whole rows of NaN are
        allowed if the method may diverge).
        """
        blocks = {label: [np.zeros((self._n_queries, 0), np.float32)] for label in self.methods}
        labels = self.task.splits["train"].labels
        order = by_length(self.task, "train", np.arange(start, stop))
        for first in range(0, stop - start, self.batch_size):
            rows = start + order[first : first + self.batch_size]
            for source, group in self._sources:
                shard = source.shard("train", rows, labels[rows], self.batch_size)
                for label in group:
                    blocks[label].append(self._score(label, shard))
        columns = np.argsort(order)  # puts the scores back into row order
        return {label: np.take(np.concatenate(found, axis=1), columns, axis=1) for label, found in blocks.items()}

    def _score(self, label: str, train: GradientShard) -> np.ndarray:
        method, queries = self.methods[label], self._queries[label]
        scores = np.asarray(
            method.score(queries, train.weighted(self.terms[label]), self.prepared.get(label)), np.float32
        )
        if scores.shape != (self._n_queries, len(train)):
            expected = (self._n_queries, len(train))
            raise RefitError(f"method {label} returned scores of shape {scores.shape}, not {expected}")
        wrong = ~np.isfinite(scores)
        if method.may_diverge:
            wrong[np.isnan(scores).all(1)] = False
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            splits = self.task.splits
            query, example = (
                splits[self._query_split].shown_id(int(queries.ids[row])),
                splits["train"].shown_id(int(train.ids[column])),
            )
            pair = f"query {query} and train {example}"
            raise RefitError(f"method {label}: the score of {pair} is {scores[row, column]}")
        return scores


def scores_of_queries(
    task: Task,
    method: Method,
    checkpoints: Sequence[Checkpoint],
    queries: QueryBlock,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Return the scores of one method for all train examples: float32 [n_queries, n_train]; NaN for a query whose solver diverged.

    For queries that the campaign does not have, such as changed ones; methods that read a file are not meant.
    """
    prepared = {method.name: method.prepare(task, Path(), queries)}
    scorer = Scorer(task, checkpoints, queries, {method.name: method}, prepared, device)
    return scorer.score_range(0, len(task.splits["train"]))[method.name]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread while the body runs.

    The operations on single pairs are so small that several threads would mostly wait for each other.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def word_contributions(
    task: Task,
    method: Method,
    checkpoints: Sequence[Checkpoint],
    queries: QueryBlock,
    pairs: Sequence[tuple[int, int]],
    base_dir: Path = Path(),
    device: torch.device | str = "cpu",
) -> dict[tuple[int, int], list[tuple[int, int, float]]]:
    """Return what each pair of words adds to the score of each (query id, train id).

    The result holds lists of (token of the query, token of the train example, contribution), largest magnitude first;
    the contributions of a pair sum to its score. For methods that have words (`Method.has_words`), such as tracin_we
    (Yeh et al. 2022, section 4.3). Raises KeyError on an unknown id.
    """
    if not pairs:
        return {}
    asked = [dict.fromkeys(ids) for ids in zip(*pairs, strict=True)]
    train_split = task.splits["train"]
    train_rows = train_split.rows_of(list(asked[1]))
    at = {int(i): position for position, i in enumerate(queries.ids)}
    chosen = np.array([at[query_id] for query_id in asked[0]])
    source = _source(task, checkpoints, {method.name: method}, device)
    terms, prepared = checkpoint_terms(method, checkpoints), method.prepare(task, base_dir, queries)
    ours = source.shard(queries.split, queries.rows[chosen], queries.labels[chosen]).weighted(terms)
    theirs = source.shard("train", train_rows, train_split.labels[train_rows]).weighted(terms)
    query_at, train_at = ({i: position for position, i in enumerate(ids)} for ids in asked)
    return {(q, t): method.word_pairs(ours, theirs, query_at[q], train_at[t], prepared) for q, t in pairs}


def row_contributions(
    task: Task,
    method: InfluenceFunction,
    checkpoints: Sequence[Checkpoint],
    queries: QueryBlock,
    pairs: Sequence[tuple[int, int]],
    device: torch.device | str = "cpu",
) -> dict[tuple[int, int], list[tuple[int, float]]]:
    """Return what each row of the parameter adds to the score of each (query id, train id); a row may stand for a word.

    The result holds lists of (row of the parameter, contribution), largest magnitude first; rows that add nothing are
    left out. The contributions of a pair sum to its score; all are NaN if the solver diverged. For influence_function
    and cross_loss_influence on rows of one parameter. Raises ValueError on another selection, KeyError on an unknown
    id.
    """
    if not pairs:
        return {}
    asked = list(dict.fromkeys(query_id for query_id, _ in pairs))
    chosen = positions_of(asked, queries.ids, "query")
    asked_queries = QueryBlock(queries.split, queries.ids[chosen], queries.rows[chosen], queries.labels[chosen])
    terms = [(checkpoints[position], weight) for position, weight in checkpoint_terms(method, checkpoints)]
    solved = method.solve(task, terms, asked_queries, device)
    rows = task.splits["train"].rows_of([train_id for _, train_id in pairs])
    return {(q, t): solved.by_row(asked.index(q), int(row)) for (q, t), row in zip(pairs, rows, strict=True)}


def _solve(
    task: Task,
    label: str,
    method: Method,
    checkpoints: Sequence[Checkpoint],
    queries: QueryBlock,
    device: torch.device | str,
    stored: Stored | None,
) -> Any:
    terms = [(checkpoints[position], weight) for position, weight in checkpoint_terms(method, checkpoints)]
    with naming_method(label):
        if stored is None:
            return method.solve(task, terms, queries, device)
        from influence.inverse_hessian import solve_queries

        return solve_queries(method.solve_options(), task, terms, queries, device, stored)


@contextmanager
def naming_method(label: str) -> Iterator[None]:
    """Add the label of a method to an InputError that its solver raises in the body."""
    try:
        yield
    except InputError as error:
        raise InputError(f"method {label}: {error.where}", error.problem) from error


def _curved(methods: Mapping[str, Method]) -> list[str]:
    return [label for label, method in methods.items() if "curvature" in method.needs]


def _terms(
    methods: Mapping[str, Method], checkpoints: Sequence[Checkpoint]
) -> tuple[list[Checkpoint], dict[str, list[tuple[int, float]]]]:
    """Return the checkpoints over which any method sums, and label -> (position among those, weight)."""
    terms = {
        label: checkpoint_terms(method, checkpoints) if method.needs - {"curvature"} else []
        for label, method in methods.items()
    }
    used = sorted({position for found in terms.values() for position, _ in found})
    at = {position: new for new, position in enumerate(used)}
    kept = {label: [(at[position], weight) for position, weight in found] for label, found in terms.items()}
    return [checkpoints[position] for position in used], kept


def _sources(
    task: Task, checkpoints: Sequence[Checkpoint], methods: Mapping[str, Method], device: torch.device | str
) -> list[tuple[GradientSource, list[str]]]:
    """Return sources of gradients, each with the labels of the methods that it serves.

    If outputs of frozen layers are known, methods that differentiate a frozen layer have a source of their own, which
    computes the whole network. The bits of a score then do not depend on which other methods there are.
    """
    whole = _on_frozen_layers(task, methods) if task.with_whole_network() is not task else set()
    groups = [[label for label in methods if (label in whole) == of_whole] for of_whole in (False, True)]
    served = [group for group in groups if group] or [[]]
    return [(_source(task, checkpoints, {m: methods[m] for m in group}, device), group) for group in served]


def _on_frozen_layers(task: Task, methods: Mapping[str, Method]) -> set[str]:
    """Return the labels of the methods that differentiate a frozen layer."""
    from influence.gradients import captured_modules
    from influence.layers import Layers

    network = task.network(0)
    layers = Layers.of(task, network)
    needs = {label: method.needs - {"curvature"} for label, method in methods.items()}
    chosen = {label: methods[label].chosen_layers(layers) for label, needed in needs.items() if "layers" in needed}
    return {
        label
        for label, needed in needs.items()
        if layers.frozen.intersection(captured_modules(task, network, needed, chosen.get(label, [])))
    }


def _source(
    task: Task, checkpoints: Sequence[Checkpoint], methods: Mapping[str, Method], device: torch.device | str
) -> GradientSource:
    from influence.gradients import GradientSource
    from influence.layers import Layers

    needs = needs_of(methods.values()) - {"curvature"}
    network = task.network(0) if needs else None
    layers = Layers() if network is None else Layers.of(task, network)
    chosen = [method.chosen_layers(layers) for method in methods.values() if "layers" in method.needs]
    return GradientSource(task, network, checkpoints, needs, frozenset().union(*chosen), device)
