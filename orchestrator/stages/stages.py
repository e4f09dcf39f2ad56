"""The stages of a run: train, score, diagnose, plan, retrain, analyse.

Each stage checks whether the store holds its results, computes the missing ones, and writes its files. Only `run_stage`
decides whether the computation of a stage is skipped.
"""

from __future__ import annotations

import logging
from typing import ClassVar

from orchestrator.analysis.tables import format_csv
from orchestrator.campaigns.results import tables_with_given_ids
from orchestrator.records import Work
from orchestrator.runtime.backend import ScoreBlock
from orchestrator.stages.diagnoses import by_file_name
from orchestrator.stages.pilot import pilot_works
from orchestrator.stages.run_state import RunState
from orchestrator.stages.scoring_models import Unfinished
from orchestrator.storage.blobs import write_file
from tasks.sources import require_late_imports

log = logging.getLogger("refit")


class Stage:
    """One step of a run. It reads the output of earlier stages, never that of a later stage.

    `name` is the value for `refit run --until`. By default a stage computes nothing and writes nothing.
    """

    name: ClassVar[str]

    def is_done(self, run: RunState) -> bool:
        """Return whether the store holds everything that this stage computes. It starts no machine."""
        return True

    def compute(self, run: RunState) -> None:
        """Compute what the store lacks. Raises Stopped, InputError or RefitError; finished work is kept."""

    def write(self, run: RunState) -> None:
        """Write the stage's files in the run directory from the store, and update `run.report`."""


def run_stage(stage: Stage, run: RunState) -> None:
    """Compute what is missing and write the stage's files.

    The computation is skipped if the store holds its results. The files take seconds and are written every time, so that a
    damaged or outdated file never remains.
    """
    run.report.stage = stage.name
    if not stage.is_done(run):
        stage.compute(run)
    stage.write(run)


class TrainStage(Stage):
    """Trains the scoring models and keeps their weights, which scores and retrains with a parent need."""

    name = "train"

    def is_done(self, run: RunState) -> bool:
        """Return whether every scoring model is in the ledger as ok, and the store has the weights that later stages need."""
        works = run.models.scored_works
        rows = run.ledger.index().rows
        are_ok = all(work.spec_id in rows and rows[work.spec_id].status == "ok" for work in works)
        return are_ok and run.models.are_judged(rows.keys() - run.to_retry) and not _lost_weights(run)

    def compute(self, run: RunState) -> None:
        """Train the models that are missing, were quarantined, or whose needed weights are lost."""
        redo = _lost_weights(run) | run.retraining.quarantined()
        run.retraining.bring_in(run.models.works, "scoring models", redo=redo)
        run.to_retry.difference_update(work.spec_id for work in run.models.works)
        run.models.check_trained()


def _lost_weights(run: RunState) -> set[str]:
    """Return the spec ids of the scoring models that must be trained (again) because the store lacks their weights.

    If the ledger already has the row of one of these models, and no score, diagnosis or later retrain needs the weights, the result is empty.
    """
    missing = run.retraining.without_weights(run.models.works)
    if not missing.isdisjoint(run.ledger.index().rows) and not _needs_weights(run):
        return set()
    return missing


def _needs_weights(run: RunState) -> bool:
    """Return whether a score, a diagnosis or a retrain with a parent is missing; only these need the weights of a finished model."""
    try:
        if any(scores.missing() for scores in run.stages.values()) or run.diagnoses.missing():
            return True
        finished = run.ledger.index().rows.keys() - run.to_retry
        return any(w.spec.parent and w.spec_id not in finished for w in run.planned.works)
    except Unfinished:
        return True


class ScoreStage(Stage):
    """Computes the scores of every method on every scoring group, in shards of the train set."""

    name = "score"

    def is_done(self, run: RunState) -> bool:
        """Return whether every shard is in the store."""
        return not any(scores.missing() for scores in run.stages.values())

    def compute(self, run: RunState) -> None:
        """Compute the missing shards."""

        def on_block(block: ScoreBlock) -> None:
            run.report.score_seconds += block.seconds
            run.workforce.alive()

        run.retraining.check_budget("score shards")
        run.models.compute(run.workforce.backend, run.progress, on_block, run.workforce.alive)

    def write(self, run: RunState) -> None:
        """Write config.yaml, provenance.json and scores/<label>.parquet, and warn about queries without a ranking (see `score_warnings`).

        Solutions that an earlier run has left are deleted.
        """
        run.workforce.pin()
        run.models.write_tables(run.run_dir)
        run.workforce.patiently(run.models.clear_solutions)()
        for warning in run.score_warnings():
            run.progress.say(f"warning: {warning}")
            log.warning("%s", warning)


class DiagnoseStage(Stage):
    """Computes the diagnostics of the scoring models from their weights and scores. It trains nothing."""

    name = "diagnose"

    def is_done(self, run: RunState) -> bool:
        """Return whether the tables of every diagnostic are in the store."""
        return not run.diagnoses.missing()

    def compute(self, run: RunState) -> None:
        """Compute the missing diagnoses."""

        def on_block(block: ScoreBlock) -> None:
            run.workforce.alive()

        run.retraining.check_budget("diagnostics")
        run.diagnoses.compute(run.workforce.backend, run.progress, on_block, run.workforce.alive)

    def write(self, run: RunState) -> None:
        """Write results/diagnose_*.csv, so that a run until this stage has tables to read."""
        if not run.diagnosed:
            return
        require_late_imports(run.experiment.sources)
        tables = by_file_name(run.diagnosed)
        for name, table in tables_with_given_ids(tables, run.experiment.main.query_split).items():
            write_file(run.run_dir.results / f"{name}.csv", format_csv(table).encode())


class PlanStage(Stage):
    """Derives the removal sets and their distinct retrains from the scores and the ledger, without a worker."""

    name = "plan"

    def write(self, run: RunState) -> None:
        """Write plan.parquet, and add the spec ids of the references to provenance.json."""
        from orchestrator.storage.tables import write_plan

        write_plan(run.run_dir.plan, run.planned.columns(), {"run": run.experiment.run_name})
        run.run_dir.note({"references": run.planned.references()})


class RetrainStage(Stage):
    """Runs the retrains of the plan, parents before children. An adaptive plan is extended until it is final."""

    name = "retrain"

    def is_done(self, run: RunState) -> bool:
        """Return whether the plan is final and all its retrains are in the ledger, not counting rows that this session must replace."""
        if not run.planned.is_final:
            return False
        finished = run.ledger.index().rows.keys() - run.to_retry
        return all(work.spec_id in finished for work in run.planned.works)

    def compute(self, run: RunState) -> None:
        """Run the missing retrains, and derive the plan again until it is final."""
        while True:
            works = run.planned.works
            run.retraining.bring_in_waves(works, "retrains", run.to_retry)
            run.to_retry.difference_update(work.spec_id for work in works)
            if run.planned.is_final:
                return
            run.workforce.alive()
            del run.planned  # the cached plan; it is derived again from the ledger, which now has these retrains
            PLAN.write(run)
            run.workforce.patiently(run.mirror.publish)()

    def write(self, run: RunState) -> None:
        """Stop the backend, since tables and report need no machine, and report the quarantined retrains."""
        run.workforce.close()
        planned = {work.spec_id for work in run.planned.works}
        run.report.quarantined = tuple(sorted(planned & run.retraining.quarantined()))


class PilotStage(Stage):
    """Replaces RetrainStage in a pilot: runs at most `run.pilot` retrains of every class, to learn how long they take.

    A class is a set of retrains of similar duration (orchestrator.stages.pilot.RetrainClass).
    """

    name = "retrain"

    def is_done(self, run: RunState) -> bool:
        """Return whether `run.pilot` retrains of every class are in the ledger, or all if a class has fewer."""
        return not self._works(run)

    def compute(self, run: RunState) -> None:
        """Run the missing retrains of the pilot."""
        run.retraining.bring_in_waves(self._works(run), "pilot")

    def _works(self, run: RunState) -> list[Work]:
        return pilot_works(run.planned.works, run.ledger.index().rows.keys(), run.pilot)


class AnalyseStage(Stage):
    """Derives tables, verdicts and checks from the ledger, without a worker."""

    name = "analyse"

    def write(self, run: RunState) -> None:
        """Write results/, and report the quarantined retrains."""
        tables = run.results.csv()
        require_late_imports(run.experiment.sources)
        for name, text in tables.items():
            write_file(run.run_dir.results / name, text.encode())
        quarantined = (s for s, row in run.rows.items() if row.outcome.status == "quarantined")
        run.report.quarantined = tuple(sorted(quarantined))


PLAN, ANALYSE = PlanStage(), AnalyseStage()


def stages_until(name: str, pilot: int = 0) -> list[Stage]:
    """Return the stages in their order, up to and including the named one. Raises ValueError for an unknown name."""
    retrain = PilotStage() if pilot else RetrainStage()
    stages: list[Stage] = [TrainStage(), ScoreStage(), DiagnoseStage(), PLAN, retrain, ANALYSE]
    return stages[: [stage.name for stage in stages].index(name) + 1]
