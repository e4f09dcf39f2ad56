"""FinishedRun: a campaign whose retrains are all in the ledger. The report and the tracking record are made from a FinishedRun."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from influence.checkpoint import Checkpoint, QueryBlock
from influence.matrix import ScoreMatrix
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.scoring_work import ScoringWork
from orchestrator.records import LedgerRow


@dataclass(frozen=True)
class FinishedRun:
    """A finished campaign: its plan, its ledger rows (by spec id) and its results.

    A scoring group (ScoringGroup) is a set of scoring models that together give one score matrix per method.

    `rows` includes the ledger rows of the scoring models. `checkpoints(key)` takes the key of a scoring group and returns the weights
    of its scoring models, one Checkpoint for each step whose weights were kept. It raises CheckpointError if the store no longer has them.
    """

    scored: Scored
    plan: Any
    rows: Mapping[str, LedgerRow]
    results: Results
    checkpoints: Callable[[str], list[Checkpoint]]

    @property
    def experiment(self) -> Experiment:
        """The experiment: the config resolved against its data."""
        return self.scored.experiment

    @property
    def first_group(self) -> str:
        """The key of the first scoring group. Most campaigns have only one scoring group."""
        return self.scored.groups[0].key

    @property
    def scoring(self) -> Sequence[ScoringWork]:
        """The scoring models of the first group."""
        return self.scored.groups[0].models

    @cached_property
    def queries(self) -> QueryBlock:
        """The queries of the first scoring group."""
        return self.scored.queries(self.first_group)

    def matrix(self, label: str) -> ScoreMatrix:
        """Return the scores of one method on the first scoring group."""
        return self.scored.matrix(self.first_group, label)

    @cached_property
    def committed_ms(self) -> dict[str, int]:
        """Spec id -> time at which its row was published in the ledger, in milliseconds since 1970."""
        return {s: int(datetime.fromisoformat(row.committed_at).timestamp() * 1000) for s, row in self.rows.items()}
