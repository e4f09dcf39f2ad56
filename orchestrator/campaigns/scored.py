"""The input of a campaign's hooks: the experiment, the scores, and the ledger rows of finished retrains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from influence.checkpoint import QueryBlock
from influence.matrix import ScoreMatrix
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.scoring_work import ScoringGroup
from orchestrator.records import LedgerRow, Outcome
from tasks.base import Numerics
from tasks.errors import InputError


class UnrankedError(InputError):
    """A method has no scores for a query, so its training examples cannot be ranked and the campaign cannot be planned."""


@dataclass(frozen=True)
class Scored:
    """The experiment with its scores and finished retrains, from which a campaign plans and analyses.

    A scoring group is the scoring models of one arm that together give one score matrix per method; `key` is its ScoringGroup.key.
    `queries(key)`: the queries of a scoring group. `matrix(key, label)`: the scores that the method with this label computes from the
    models of the group. `outcome(spec_id)`: the outcome of a scoring model. `rows(spec_ids)`: ledger rows of those that are finished, for
    campaigns whose plan depends on results. `seen`: a cache for these campaigns. It maps a spec id to the values that the campaign has
    computed from its ledger row, once that row can no longer change, so that the campaign reads each of these rows only once.
    """

    experiment: Experiment
    numerics: Numerics
    groups: Sequence[ScoringGroup]
    queries: Callable[[str], QueryBlock]
    matrix: Callable[[str, str], ScoreMatrix]
    outcome: Callable[[str], Outcome]
    rows: Callable[[Sequence[str]], Mapping[str, LedgerRow]]
    seen: dict[str, np.ndarray] = field(default_factory=dict)
