"""The scoring models of a run, their queries and their score matrices."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from influence.checkpoint import QueryBlock
from influence.matrix import ScoreMatrix
from orchestrator.experiment.arm import Arm
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.run_dir import RunDir
from orchestrator.experiment.scoring_work import ScoringGroup, ScoringWork
from orchestrator.records import LedgerRow, Work
from orchestrator.runtime.backend import Backend, ScoreBlock
from orchestrator.runtime.patience import patient
from orchestrator.stages.score_shards import GroupScores
from orchestrator.stages.solutions import GroupSolutions
from orchestrator.storage.store import Store
from orchestrator.terminal.progress import Progress
from tasks.base import Numerics
from tasks.errors import InputError, RefitError

Missing = Mapping[str, list[tuple[int, int]]]  # method label -> ranges of train rows without scores


class Unfinished(RefitError):  # noqa: N818  (a state, not a fault: refit run continues it)
    """The output of an earlier stage is missing; the same `refit run` command computes it."""

    is_resumable = True


@dataclass
class ScoringModels:
    """The scoring models of an experiment under these numerics; a campaign without queries has none.

    `ledger_rows(spec_ids)` returns the ledger rows of those specs that are finished.
    """

    experiment: Experiment
    store: Store
    numerics: Numerics
    ledger_rows: Callable[[Iterable[str]], Mapping[str, LedgerRow]]

    @cached_property
    def groups(self) -> list[ScoringGroup]:
        """The scoring models in groups; each group has one score matrix per method."""
        return self.experiment.scoring_groups(self.numerics)

    @property
    def models(self) -> list[ScoringWork]:
        """All scoring models."""
        return [model for group in self.groups for model in group.models]

    @property
    def scored_works(self) -> list[Work]:
        """The distinct works that train the scoring models."""
        return list({model.work.spec_id: model.work for model in self.models}.values())

    @property
    def judges(self) -> list[Work]:
        """The distinct works that train the models which only choose the queries."""
        return list({work.spec_id: work for group in self.groups for work in group.judges}.values())

    @property
    def works(self) -> list[Work]:
        """Everything that is trained before the score stage."""
        return [*self.scored_works, *self.judges]

    def are_judged(self, finished: Container[str]) -> bool:
        """Return whether all judges are among the `finished` spec ids; a judge may have failed, and is then left out."""
        return all(work.spec_id in finished for work in self.judges)

    def check_trained(self) -> None:
        """Raise RefitError if a model was quarantined, InputError if one diverged, since neither has weights to score with."""
        rows = self.ledger_rows(work.spec_id for work in self.scored_works)
        for work in self.scored_works:
            outcome = rows[work.spec_id].outcome
            if outcome.status == "quarantined":
                raise RefitError(f"scoring model {work.spec_id} failed in every attempt: {outcome.error}")
            if outcome.status == "diverged":
                raise InputError(
                    f"{self.experiment.config.where}: task.recipe",
                    "the scoring model diverged (NaN or infinite loss); lower learning_rate",
                )

    @cached_property
    def rows(self) -> Mapping[str, LedgerRow]:
        """The ledger rows of the scoring models. Raises Unfinished if one is missing."""
        wanted = {work.spec_id for work in self.works}
        rows = self.ledger_rows(wanted)
        if not wanted <= rows.keys():
            raise Unfinished("a scoring model has not been trained yet; refit run trains it")
        return rows

    @cached_property
    def stages(self) -> dict[str, GroupScores]:
        """Scoring group -> its scores.

        If the queries of a group depend on a model's outputs, those of its first model are read from the ledger.
        """
        judges = {
            group.key: group.models[0].work.spec_id
            for group in self.groups
            if self.experiment.arms[group.arm].needs_outputs and not group.judges
        }
        rows = self.ledger_rows(judges.values()) if judges else {}
        return {group.key: self._stage(group, rows.get(judges.get(group.key, ""))) for group in self.groups}

    def _stage(self, group: ScoringGroup, judge: LedgerRow | None) -> GroupScores:
        arm, outputs = self.experiment.arms[group.arm], None
        if group.judges:
            return GroupScores(self.experiment, self.store, group, self._chosen(arm, group))
        if arm.needs_outputs:
            if judge is None or judge.outcome.status != "ok":
                raise Unfinished("the scoring model has not been trained yet; refit run trains it")
            outputs = judge.outcome.outputs
        return GroupScores(self.experiment, self.store, group, arm.queries(outputs))

    def _chosen(self, arm: Arm, group: ScoringGroup) -> QueryBlock:
        """Return the queries that the campaign chooses. Raises Unfinished while a judge is not trained."""
        rows = self.ledger_rows(work.spec_id for work in group.judges)
        if not self.are_judged(rows):
            raise Unfinished("a model that chooses the queries has not been trained yet; refit run trains it")
        return self.experiment.campaign.chosen_queries(arm, [rows[work.spec_id].outcome for work in group.judges])

    @property
    def first(self) -> GroupScores:
        """The scores of the first group, the only one in most campaigns. Raises ValueError if there is none."""
        if not self.stages:
            raise ValueError(f"campaign {self.experiment.settings.campaign} asks no queries, so it has no scores")
        return next(iter(self.stages.values()))

    def queries(self, key: str) -> QueryBlock:
        """Return the queries of a group."""
        return self.stages[key].queries

    # --- scores --------------------------------------------------------------------------------------------------

    def compute(
        self,
        backend: Callable[[], Backend],
        progress: Progress,
        on_block: Callable[[ScoreBlock], None],
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Compute and store every missing shard; if none is missing, no backend is started.

        Methods that share solving are first solved for all queries. Their solutions are deleted once all shards of the
        group are stored.

        `on_block` is called with every block; `alive` is called while no block arrives and while the store is unavailable. Both may
        raise to stop. Raises StoreAwayError if the store is unavailable for minutes.
        """
        missing = {key: found for key, stage in self.stages.items() if (found := stage.missing())}
        if not missing:
            return
        n_shards = sum(len({r for ranges in found.values() for r in ranges}) for found in missing.values())
        progress.begin("score shards", n_shards)
        done = 0
        for key, found in missing.items():
            job, solutions = self.stages[key].job(found), GroupSolutions(self.stages[key])
            for solved, n_solved, n_queries in solutions.solve(job, backend, alive):
                progress.update(done, n_shards, f"solved for {n_solved} of {n_queries} queries")
                if solved is not None:
                    on_block(solved)
            for block in backend().score(replace(job, solved=solutions.ids(job)), alive):
                patient(_keep, meanwhile=alive)(self.stages[key], block, found)
                done += 1
                progress.update(done, n_shards)
                on_block(block)
            patient(solutions.clear, meanwhile=alive)()
        progress.end()

    def clear_solutions(self) -> None:
        """Delete solutions that are left although all scores are complete, because an earlier run was killed before it deleted them."""
        for stage in self.stages.values():
            GroupSolutions(stage).clear()

    def write_tables(self, run_dir: RunDir) -> None:
        """Write scores/<label>.parquet of the run directory. Raises Unfinished while scores are missing."""
        from orchestrator.storage.tables import about_scores, write_scores_table

        for (key, label), matrix in self.method_matrices.items():
            path, about = run_dir.scores(label, key), about_scores(self.experiment.run_name, label, key)
            write_scores_table(path, matrix.query_ids, matrix.train_ids, matrix.scores, about)

    @cached_property
    def all_matrices(self) -> dict[tuple[str, str], ScoreMatrix]:
        """(scoring group, label) -> assembled matrix of everything that is stored. Raises Unfinished while scores are missing."""
        missing = list(dict.fromkeys(label for stage in self.stages.values() for label in stage.missing()))
        if missing:
            raise Unfinished(f"scores of {', '.join(missing)} are not complete yet; refit run finishes them")
        return {
            (key, label): stage.matrix(label)
            for key, stage in self.stages.items()
            for label in self.experiment.stored_scores
        }

    @property
    def method_matrices(self) -> dict[tuple[str, str], ScoreMatrix]:
        """(scoring group, method label) -> assembled score matrix. Raises Unfinished while scores are missing."""
        methods = self.experiment.scored
        return {(key, label): matrix for (key, label), matrix in self.all_matrices.items() if label in methods}


def _keep(stage: GroupScores, block: ScoreBlock, missing: Missing) -> None:
    """Store the missing shards that a block holds, and the diagnostics of its methods."""
    for label, diagnostics in block.diagnostics.items():
        stage.keep_diagnostics(label, diagnostics)
    for label, scores in block.scores.items():
        if (block.start, block.stop) in missing[label]:
            stage.keep(label, block.start, block.stop, scores)
