"""The scores of one scoring group: its missing shards, the job that computes them, and the matrices assembled from them."""

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
    """Scores of every scored method on one group of scoring models; the store keeps them by score id."""

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
        """Return the digest of everything that determines the scores of one method.

        It covers the scoring specs and their kept steps, the method with its options, the content and labels of the
        queries, and the shard size.
        """
        return digest(
            {
                "scoring": [[s.work.spec_id, list(s.work.keep_steps)] for s in self.scoring],
                "method": self.arm.method_identity(method),
                "recorded": self.arm.task_id,  # the task id digests the content of the queries: texts, points or properties
                "queries": [self.queries.split, digest_arrays(ids=self.queries.ids, labels=self.queries.labels)],
                "rows_per_shard": self.experiment.settings.scores.rows_per_shard,
            }
        )

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Ranges [start, stop) of train rows, one per shard; they depend only on the data and scores.rows_per_shard."""
        return ranges_of(len(self.arm.train), self.experiment.settings.scores.rows_per_shard)

    @property
    def asked(self) -> Asked:
        """The query ids and train ids that the shards must hold, each for its range of rows."""
        return Asked(self.queries.ids, self.arm.train.ids)

    def missing(self) -> dict[str, list[tuple[int, int]]]:
        """Return method label -> ranges that are not in the store; complete methods are left out."""
        wanted = self.ranges
        found = {
            label: set(self.store.scores.ranges(self.score_id(method), self.asked))
            for label, method in self.experiment.stored_scores.items()
        }
        return {
            label: [r for r in wanted if r not in have] for label, have in found.items() if not have.issuperset(wanted)
        }

    def job(self, missing: Mapping[str, Iterable[tuple[int, int]]]) -> ScoreJob:
        """Return one job that computes all missing shards in a single pass over the gradients."""
        self.arm.task.prepare()
        methods = {label: self.experiment.stored_scores[label] for label in missing}
        prepared = {
            label: method.prepare(self.arm.task, self.experiment.config.base_dir, self.queries)
            for label, method in methods.items()
        }
        require_late_imports(self.experiment.sources)
        ranges = sorted({r for ranges in missing.values() for r in ranges})
        checkpoints = self.checkpoints() if any(method.needs for method in methods.values()) else []
        return ScoreJob(methods, prepared, checkpoints, self.queries, ranges, self.group.arm)

    def checkpoints(self) -> list[Checkpoint]:
        """Load the weights of all scoring models at all kept steps, ordered by model and then by step."""
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
            self.score_id(self.experiment.stored_scores[label]), start, stop, self.queries.ids, ids, scores
        )

    def keep_diagnostics(self, label: str, diagnostics: Mapping[str, Any]) -> None:
        """Store the diagnostics that a method reports about its computation, next to its scores."""
        self.store.scores.put_diagnostics(self.score_id(self.experiment.stored_scores[label]), diagnostics)

    def foreign_diagnostics(self) -> list[str]:
        """Return the store keys under which the diagnostics of other scores lie."""
        scores = self.store.scores
        ids = [self.score_id(method) for method in self.experiment.stored_scores.values()]
        return [key for score_id in ids if (key := scores.foreign_diagnostics(score_id))]

    def diagnostics(self) -> dict[str, dict[str, Any]]:
        """Return method label -> its stored diagnostics; methods without diagnostics are left out."""
        found = {
            label: self.store.scores.diagnostics(self.score_id(method))
            for label, method in self.experiment.stored_scores.items()
        }
        return {label: diagnostics for label, diagnostics in found.items() if diagnostics}

    def matrix(self, label: str) -> ScoreMatrix:
        """Assemble the score matrix of one method. Raises ValueError that names the range of a gap or overlap."""
        shards = self.store.scores.load(self.score_id(self.experiment.stored_scores[label]), self.ranges, self.asked)
        return assemble(self.queries.ids, self.arm.train.ids, ((s.start, s.stop, s.scores) for s in shards))
