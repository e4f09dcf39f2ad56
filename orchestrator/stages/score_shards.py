"""The score stage: which shards are missing, one job for all of them, matrices assembled whatever the order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from influence.base import Method
from influence.checkpoint import Checkpoint, QueryBlock
from influence.matrix import ScoreMatrix, assemble
from orchestrator.experiment.arm import Arm
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.scoring_work import ScoringGroup, ScoringWork
from orchestrator.runtime.backend import ScoreJob, ranges_of
from orchestrator.storage.scores import Asked
from orchestrator.storage.store import Store
from tasks.digests import digest, digest_arrays
from tasks.sources import require_late_imports


@dataclass(frozen=True)
class GroupScores:
    """Scores of every scored method on one group of scoring models, by score id in the store."""

    experiment: Experiment
    store: Store
    group: ScoringGroup
    queries: QueryBlock

    @property
    def scoring(self) -> Sequence[ScoringWork]:
        """The scoring models."""
        return self.group.models

    @property
    def arm(self) -> Arm:
        """The arm whose train set is scored."""
        return self.experiment.arms[self.group.arm]

    def score_id(self, method: Method) -> str:
        """Scoring specs and steps + method + options + queries, what they are and their labels + shard size."""
        return digest(
            {
                "scoring": [[s.work.spec_id, list(s.work.keep_steps)] for s in self.scoring],
                "method": self.arm.method_identity(method),
                "recorded": self.arm.task_id,  # what the queries are: their texts, points, or the properties asked about
                "queries": [self.queries.split, digest_arrays(ids=self.queries.ids, labels=self.queries.labels)],
                "rows_per_shard": self.experiment.settings.scores.rows_per_shard,
            }
        )

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Row ranges of the shards, fixed by the data."""
        return ranges_of(len(self.arm.train), self.experiment.settings.scores.rows_per_shard)

    @property
    def asked(self) -> Asked:
        """The ids of the queries and of the train set, which every shard must hold for its range."""
        return Asked(self.queries.ids, self.arm.train.ids)

    def missing(self) -> dict[str, list[tuple[int, int]]]:
        """Label -> ranges that are not in the store."""
        wanted = self.ranges
        found = {
            label: set(self.store.scores.ranges(self.score_id(method), self.asked))
            for label, method in self.experiment.scored.items()
        }
        return {
            label: [r for r in wanted if r not in have] for label, have in found.items() if not have.issuperset(wanted)
        }

    def job(self, missing: Mapping[str, Iterable[tuple[int, int]]]) -> ScoreJob:
        """One pass over the gradients for everything that is missing."""
        self.arm.task.prepare()
        methods = {label: self.experiment.scored[label] for label in missing}
        prepared = {
            label: method.prepare(self.arm.task, self.experiment.config.base_dir, self.queries)
            for label, method in methods.items()
        }
        require_late_imports(self.experiment.sources)
        ranges = sorted({r for ranges in missing.values() for r in ranges})
        checkpoints = self.checkpoints() if any(method.needs for method in methods.values()) else []
        return ScoreJob(methods, prepared, checkpoints, self.queries, ranges, self.group.arm)

    def checkpoints(self) -> list[Checkpoint]:
        """Weights of all scoring models at all kept steps, in that order."""
        n_models = len(self.scoring)
        return [
            Checkpoint(
                s.work.spec_id,
                step,
                s.learning_rates[step],
                s.learning_rates[step] / n_models,
                self.store.checkpoints.load(s.work.spec_id, step),
            )
            for s in self.scoring
            for step in s.work.keep_steps
        ]

    def keep(self, label: str, start: int, stop: int, scores: np.ndarray) -> None:
        """Store one shard of one method."""
        ids = self.arm.train.ids[start:stop]
        self.store.scores.put_block(
            self.score_id(self.experiment.scored[label]), start, stop, self.queries.ids, ids, scores
        )

    def tell(self, label: str, diagnostics: Mapping[str, Any]) -> None:
        """Keep what a method says of its own work beside its scores."""
        self.store.scores.put_diagnostics(self.score_id(self.experiment.scored[label]), diagnostics)

    def foreign_diagnostics(self) -> list[str]:
        """Keys of diagnostics that are not those of these scores."""
        scores = self.store.scores
        ids = [self.score_id(method) for method in self.experiment.scored.values()]
        return [key for score_id in ids if (key := scores.foreign_diagnostics(score_id))]

    def told(self) -> dict[str, dict[str, Any]]:
        """Label -> what the method said of its own work; methods that said nothing are left out."""
        found = {
            label: self.store.scores.diagnostics(self.score_id(method))
            for label, method in self.experiment.scored.items()
        }
        return {label: said for label, said in found.items() if said}

    def matrix(self, label: str) -> ScoreMatrix:
        """The assembled matrix of one method. Gaps and overlaps raise ValueError naming the range."""
        shards = self.store.scores.load(self.score_id(self.experiment.scored[label]), self.ranges, self.asked)
        return assemble(self.queries.ids, self.arm.train.ids, ((s.start, s.stop, s.scores) for s in shards))
