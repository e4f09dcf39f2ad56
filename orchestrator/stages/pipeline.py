"""The pipeline: train -> score -> diagnose -> plan -> retrain -> analyse, in this order on one RunState."""

from __future__ import annotations

from orchestrator.stages.run_state import Report, RunState
from orchestrator.stages.scoring_models import Unfinished
from orchestrator.stages.stages import ANALYSE, run_stage, stages_until


class Pipeline(RunState):
    """The run of one config: its state, and the method that runs its stages."""

    def run(self, until: str = "analyse") -> Report:
        """Run all stages up to and including `until`. Raises Stopped, InputError or RefitError; finished work is kept."""
        self.workforce.is_running = True
        try:
            self._tidy_ledger()
            for stage in stages_until(until, self.pilot):
                run_stage(stage, self)
                self.workforce.patiently(self.mirror.publish)()
        finally:
            self.workforce.is_running = False
            self.close()
            self.report.retrained, self.report.attempts = self.retraining.n_retrained, self.retraining.n_attempts
        return self.report

    def close(self) -> None:
        """Stop the backend if it was started."""
        self.workforce.close()
        if self.meter:
            self.meter.close()

    def write_results(self) -> None:
        """Write results/ from the ledger. Raises Unfinished if a retrain is missing from it."""
        ANALYSE.write(self)

    def _tidy_ledger(self) -> None:
        records = {arm.task_id: arm.record for arm in self.experiment.arms.values()}
        bad = self.workforce.patiently(self.ledger.tidy)(records)
        for part in bad:
            self.progress.say(
                f"ledger part {part.name} is damaged ({part.problem}): it was set aside, and its retrains will be repeated"
            )
        self.report.set_aside = tuple(part.name for part in bad)
        swept = self.workforce.patiently(self.store.checkpoints.swept)
        self.store.checkpoints = swept(self.ledger.index().rows.keys())


__all__ = ["Pipeline", "Report", "Unfinished"]
