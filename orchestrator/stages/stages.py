"""The stages of a run: train, score, plan, retrain, analyse. Each knows when its computing is done, computes, and writes its files.

`run_stage` holds the one rule by which a stage is skipped.
"""

from __future__ import annotations

import logging
from typing import ClassVar

from orchestrator.records import Work
from orchestrator.runtime.backend import ScoreBlock
from orchestrator.stages.pilot import pilot_works
from orchestrator.stages.run_state import RunState
from orchestrator.stages.scoring_models import Unfinished
from orchestrator.storage.blobs import write_file
from tasks.sources import require_late_imports

log = logging.getLogger("refit")


class Stage:
    """One step of a run. It reads what earlier stages wrote, and never the output of a later one.

    `name`: as `refit run --until` takes it. By default a stage computes nothing and writes nothing.
    """

    name: ClassVar[str]

    def is_done(self, run: RunState) -> bool:
        """Whether the store holds everything that this stage computes. Starts no machine."""
        return True

    def compute(self, run: RunState) -> None:
        """Compute what the store lacks. Raises Stopped, InputError or RefitError; what is finished is kept."""

    def write(self, run: RunState) -> None:
        """Write the files of the run directory that follow from the store, and note in the report what was found."""


def run_stage(stage: Stage, run: RunState) -> None:
    """Compute what is missing, and write the stage's files.

    Computing is skipped when its outcome is in the store. The files of the run directory take seconds and are written every
    time, so that a damaged or an older file never stays.
    """
    run.report.stage = stage.name
    if not stage.is_done(run):
        stage.compute(run)
    stage.write(run)


class TrainStage(Stage):
    """The scoring models, with the weights that the scores and the retrains with a parent start from."""

    name = "train"

    def is_done(self, run: RunState) -> bool:
        """Whether every scoring model is in the ledger with an outcome to score, and the weights are there that a later stage needs."""
        works = run.models.works
        rows = run.ledger.index().rows
        are_ok = all(work.spec_id in rows and rows[work.spec_id].status == "ok" for work in works)
        return are_ok and not _lost_weights(run)

    def compute(self, run: RunState) -> None:
        """Train the models that are missing, were given up, or have lost weights that are needed."""
        redo = _lost_weights(run) | run.retraining.quarantined()
        run.retraining.bring_in(run.models.works, "scoring models", redo=redo)
        run.again.difference_update(work.spec_id for work in run.models.works)
        run.models.check_trained()


def _lost_weights(run: RunState) -> set[str]:
    """Scoring models whose weights are not in the store; none where those of a finished model are lost and no later stage needs them."""
    missing = run.retraining.without_weights(run.models.works)
    if not missing.isdisjoint(run.ledger.index().rows) and not _needs_weights(run):
        return set()
    return missing


def _needs_weights(run: RunState) -> bool:
    """Whether a score, or a retrain with a parent, is missing: only then are the weights of a finished model needed."""
    try:
        if any(scores.missing() for scores in run.stages.values()):
            return True
        finished = run.ledger.index().rows.keys() - run.again
        return any(w.spec.parent and w.spec_id not in finished for w in run.planned.works)
    except Unfinished:
        return True


class ScoreStage(Stage):
    """The score matrix of every method on every scoring group, by shards of the train set."""

    name = "score"

    def is_done(self, run: RunState) -> bool:
        """Whether every shard is in the store."""
        return not any(scores.missing() for scores in run.stages.values())

    def compute(self, run: RunState) -> None:
        """Compute the shards that are missing."""

        def on_block(block: ScoreBlock) -> None:
            run.report.score_seconds += block.seconds
            run.workforce.alive()

        run.retraining.check_budget("score shards")
        run.models.compute(run.workforce.backend, run.progress, on_block, run.workforce.alive)

    def write(self, run: RunState) -> None:
        """Write config.yaml, provenance.json and scores/<label>.parquet, and warn of scores that rank nothing."""
        run.workforce.pin()
        run.models.write_tables(run.run_dir)
        for warning in run.score_warnings():
            run.progress.say(f"warning: {warning}")
            log.warning("%s", warning)


class PlanStage(Stage):
    """The removal sets, and the distinct retrains that serve them: derived from the scores and the ledger, without a worker."""

    name = "plan"

    def write(self, run: RunState) -> None:
        """Write plan.parquet, and note the references in provenance.json."""
        from orchestrator.storage.tables import write_plan

        write_plan(run.run_dir.plan, run.planned.columns(), {"run": run.experiment.run_name})
        run.run_dir.note({"references": run.planned.references()})


class RetrainStage(Stage):
    """The retrains of the plan, wave by wave; of an adaptive plan until it asks for no more."""

    name = "retrain"

    def is_done(self, run: RunState) -> bool:
        """Whether the plan is final and all its retrains are in the ledger. A row that this session is to replace does not count."""
        if not run.planned.is_final:
            return False
        finished = run.ledger.index().rows.keys() - run.again
        return all(work.spec_id in finished for work in run.planned.works)

    def compute(self, run: RunState) -> None:
        """Retrain what is missing, and plan anew while the plan is not final."""
        while True:
            works = run.planned.works
            run.retraining.bring_in_waves(works, "retrains", run.again)
            run.again.difference_update(work.spec_id for work in works)
            if run.planned.is_final:
                return
            run.workforce.alive()
            del run.planned  # it is planned anew, now that these are in the ledger
            PLAN.write(run)
            run.workforce.patiently(run.mirror.publish)()

    def write(self, run: RunState) -> None:
        """Let the machines go, which tables and report do not need, and report what was given up."""
        run.workforce.close()
        planned = {work.spec_id for work in run.planned.works}
        run.report.quarantined = tuple(sorted(planned & run.retraining.quarantined()))


class PilotStage(Stage):
    """In the place of RetrainStage: no more than `run.pilot` retrains of every class, to learn how long they take."""

    name = "retrain"

    def is_done(self, run: RunState) -> bool:
        """Whether so many of every class are in the ledger."""
        return not self._works(run)

    def compute(self, run: RunState) -> None:
        """Retrain them."""
        run.retraining.bring_in_waves(self._works(run), "pilot")

    def _works(self, run: RunState) -> list[Work]:
        return pilot_works(run.planned.works, run.ledger.index().rows.keys(), run.pilot)


class AnalyseStage(Stage):
    """Tables, verdicts and checks: derived from the ledger, without a worker."""

    name = "analyse"

    def write(self, run: RunState) -> None:
        """Write results/, and report what was given up."""
        tables = run.results.csv()
        require_late_imports(run.experiment.sources)
        for name, text in tables.items():
            write_file(run.run_dir.results / name, text.encode())
        quarantined = (s for s, row in run.rows.items() if row.outcome.status == "quarantined")
        run.report.quarantined = tuple(sorted(quarantined))


PLAN, ANALYSE = PlanStage(), AnalyseStage()


def stages_until(name: str, pilot: int = 0) -> list[Stage]:
    """The stages of a run in their order, up to and with the one of this name. Raises ValueError for a name that no stage has."""
    stages: list[Stage] = [TrainStage(), ScoreStage(), PLAN, PilotStage() if pilot else RetrainStage(), ANALYSE]
    return stages[: [stage.name for stage in stages].index(name) + 1]
