"""What a run would do: cells asked for, distinct retrains, how many are in the ledger, time from its history."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from orchestrator.pipeline import Pipeline
from orchestrator.progress import duration


@dataclass(frozen=True)
class Estimate:
    """A dry run. `distinct` is exact when all scores are in the store, else None and `distinct_max` bounds it."""

    run: str
    run_dir: str
    cells: int
    scores: str  # complete | missing
    missing_scores: tuple[str, ...]
    distinct: int | None
    distinct_max: int
    in_ledger: int | None
    to_do: int | None
    scoring_models_to_do: int
    seconds_per_retrain: float | None
    time_s: float | str
    cost: str

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is left to train."""
        return self.to_do == 0 and self.scoring_models_to_do == 0

    def json(self) -> dict:
        """Plain values."""
        return {**asdict(self), "missing_scores": list(self.missing_scores)}

    def lines(self) -> list[str]:
        """For people."""
        if self.distinct is None:
            work = f"retrains       at most {self.distinct_max} distinct for {self.cells} cells (exact once scores are there: {', '.join(self.missing_scores)})"
        else:
            work = f"retrains       {self.distinct} distinct for {self.cells} cells; {self.in_ledger} in the ledger, {self.to_do} to do"
        time = self.time_s if isinstance(self.time_s, str) else duration(self.time_s)
        return [
            f"run directory  {self.run_dir}",
            f"scoring models {self.scoring_models_to_do} to train",
            f"scores         {self.scores}",
            work,
            f"time           {time}   cost {self.cost}",
        ]


def estimate(pipeline: Pipeline) -> Estimate:
    """Plan without computing anything: no torch, no worker."""
    experiment, ledger = pipeline.experiment, pipeline.ledger
    n_scored = len(experiment.scored)
    n_controls = len(experiment.methods) - n_scored
    scoring = [s.work for s in pipeline.scoring]
    history = ledger.index().rows
    known = [w for w in scoring if w.spec_id in history and pipeline.store.checkpoints.has(w.spec_id, w.keep_steps)]
    missing = _missing_scores(pipeline, len(known) == len(scoring))
    n_queries = _n_queries(pipeline, not missing)
    n_repeats, block = len(experiment.seeds), experiment.campaign
    bound = block.distinct_max(n_scored, n_controls, n_queries, n_repeats)
    cells = len(experiment.methods) * len(block.groups) * len(block.k) * n_queries * n_repeats
    distinct = done = None
    if not missing:
        distinct = len(pipeline.planned.works)
        done = sum(w.spec_id in history for w in pipeline.planned.works)
    todo = (distinct - done if distinct is not None and done is not None else bound) + len(scoring) - len(known)
    seconds = _seconds_per_retrain(history)
    workers = experiment.settings.compute.workers
    time_s: float | str = 0.0 if todo == 0 else (seconds * todo / workers if seconds is not None else "unknown")
    return Estimate(
        experiment.run_name,
        str(pipeline.run_dir.path),
        cells,
        "missing" if missing else "complete",
        tuple(missing),
        distinct,
        bound,
        done,
        None if done is None or distinct is None else distinct - done,
        len(scoring) - len(known),
        seconds,
        time_s,
        "0" if todo == 0 else "unknown",
    )


def _missing_scores(pipeline: Pipeline, models_known: bool) -> list[str]:
    experiment = pipeline.experiment
    if experiment.needs_scoring_outputs and not models_known:
        return list(experiment.scored)
    return sorted(pipeline.scores.missing(), key=list(experiment.scored).index)


def _n_queries(pipeline: Pipeline, known: bool) -> int:
    experiment, block = pipeline.experiment, pipeline.experiment.settings.queries
    if known or not experiment.needs_scoring_outputs:
        return len(pipeline.queries.ids)
    n_measured = len(experiment.task.measured[block.split])
    if block.per_class:
        return block.per_class * len(experiment.train.classes)
    return block.count or (len(block.ids) if block.ids else n_measured)


def _seconds_per_retrain(history) -> float | None:
    seconds = [entry.seconds for entry in history.values() if entry.status == "ok" and entry.seconds > 0]
    return sum(seconds) / len(seconds) if seconds else None
