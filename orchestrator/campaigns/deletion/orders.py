"""The orders in which training examples are removed for a query: by the scores of a method, or drawn by a control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from influence import ranking
from influence.checkpoint import QueryBlock
from influence.controls import Control
from orchestrator.campaigns.deletion.candidates import Candidates
from orchestrator.campaigns.scored import Scored, UnrankedError
from orchestrator.experiment.experiment import Experiment
from tasks.errors import InputError


@dataclass(frozen=True)
class Draws:
    """The removal orders of the controls of an experiment; `most` is the largest k, for which every order must suffice.

    `rows`: the candidates of every query as rows of the train split, int64 [n_queries, n_candidates]; None means all training examples.
    Queries with equal `keys` (int64 [n_queries]) share their orders. Without candidates the key is the label of the query loss. With
    candidates it is the position of the query.
    """

    experiment: Experiment
    queries: QueryBlock
    most: int
    rows: np.ndarray | None = None

    @staticmethod
    def of(experiment: Experiment, queries: QueryBlock, most: int, candidates: Candidates | None) -> Draws:
        """Return the draws for these queries, whose candidates are found if the config restricts them."""
        return Draws(experiment, queries, most, candidates.rows(experiment, queries) if candidates else None)

    @property
    def keys(self) -> np.ndarray:
        """The draw key of every query: int64 [n_queries]."""
        return self.queries.labels if self.rows is None else np.arange(len(self.queries.ids))

    def of_query(self, query: int) -> np.ndarray | None:
        """Return the candidates of the query at a position, None if they are all training examples."""
        return None if self.rows is None else self.rows[query]

    def order(self, label: str, key: int, group: str, seed: int) -> np.ndarray:
        """Return TrainIds in the order in which a control removes them. Raises InputError if there are fewer than the largest k."""
        if self.rows is None:
            return drawn(self.experiment, label, key, group, seed, self.most)
        return drawn(self.experiment, label, int(self.queries.labels[key]), group, seed, self.most, self.rows[key])


def drawn(
    experiment: Experiment,
    label: str,
    query_label: int,
    group: str,
    seed: int,
    most: int,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Return TrainIds in the order in which a control removes them, from `rows` of the train split (None: from all).

    Raises InputError if there are fewer than `most`.
    """
    train, control = experiment.train, controls_of(experiment)[label]
    ids, labels = (train.ids, train.labels) if rows is None else (train.ids[rows], train.labels[rows])
    order = control.removal_order(ids, labels, query_label, seed, group)  # type: ignore[arg-type]
    if len(order) < most:
        asked = train.classes[query_label]
        among = "" if rows is None else " among the candidates of a query"
        problem = f"{label} has {len(order)} training examples{among} to draw {group} from for label {asked!r}, fewer than {most}"
        raise InputError(f"{experiment.config.where}: deletion.k", problem)
    return order


def controls_of(experiment: Experiment) -> dict[str, Control]:
    """Return label -> control. Raises InputError for a control that is not a Control and so cannot draw removal sets."""
    found: dict[str, Control] = {}
    for position, (label, method) in enumerate(experiment.methods.items()):
        if isinstance(method, Control):
            found[label] = method
        elif method.is_control:
            problem = f"{label!r} is a control and must be an influence.controls.Control, which draws its removal sets"
            raise InputError(f"{experiment.config.where}: methods[{position}]", problem)
    return found


def ranked(scored: Scored, label: str, query: int, group: str, rows: np.ndarray | None = None) -> np.ndarray:
    """Return TrainIds in the order in which a method removes them for the query at a position, from `rows` of the train split.

    Raises UnrankedError if the method diverged for the query.
    """
    matrix = scored.matrix("", label)
    if matrix.diverged[query]:
        position, n_diverged = list(scored.experiment.methods).index(label), int(matrix.diverged.sum())
        name = scored.experiment.main.query_split.shown_id(matrix.query_ids[query])
        problem = (
            f"{label} diverged for {n_diverged} of {len(matrix.query_ids)} queries, first for query {name}, "
            "and ranks nothing for them; raise its damping or scale"
        )
        raise UnrankedError(f"{scored.experiment.config.where}: methods[{position}]", problem)
    scores, ids = matrix.scores[query], scored.experiment.train.ids
    if rows is not None:
        scores, ids = scores[rows], ids[rows]
    return ranking.ranked(scores, ids, group)  # type: ignore[arg-type]
