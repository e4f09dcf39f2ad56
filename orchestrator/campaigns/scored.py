"""What a campaign plans and analyses with: the experiment, the scores, and the ledger rows of finished retrains."""

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
    """A method has no scores for a query whose training examples are to be ranked by it: nothing can be planned."""


@dataclass(frozen=True)
class Scored:
    """What a campaign plans with once scores are there.

    `queries(key)` and `matrix(key, label)` are those of a scoring group and, for the matrix, a method; `outcome(spec_id)` is what a
    scoring model recorded; `rows(spec_ids)` the ledger rows of those that are finished, for campaigns that look before they go on.
    `seen`: spec id -> what such a campaign has taken from a row that is final, so that it reads it once.
    """

    experiment: Experiment
    numerics: Numerics
    groups: Sequence[ScoringGroup]
    queries: Callable[[str], QueryBlock]
    matrix: Callable[[str, str], ScoreMatrix]
    outcome: Callable[[str], Outcome]
    rows: Callable[[Sequence[str]], Mapping[str, LedgerRow]]
    seen: dict[str, np.ndarray] = field(default_factory=dict)
