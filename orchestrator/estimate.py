"""What a run would do: cells asked for, distinct retrains, how many are in the ledger, time from its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from orchestrator.pipeline import Pipeline, Unfinished
from orchestrator.progress import duration
from orchestrator.storage.ledger_parts import IndexEntry


@dataclass(frozen=True)
class Estimate:
    """A dry run. `distinct` is exact when all scores are in the store, else None and `distinct_max` bounds it."""

    run: str
    run_dir: str
    cells: int
    scores: str  # complete | missing | none (a campaign that asks no queries)
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
            known = (
                f"scores are there: {', '.join(self.missing_scores)}" if self.missing_scores else "a worker has begun"
            )
            work = f"retrains       at most {self.distinct_max} distinct for {self.cells} cells (exact once {known})"
        else:
            work = f"retrains       {self.distinct} distinct for {self.cells} cells; {self.in_ledger} in the ledger, {self.to_do} to do"
        time = self.time_s if isinstance(self.time_s, str) else duration(self.time_s)
        scoring = [f"scoring models {self.scoring_models_to_do} to train", f"scores         {self.scores}"]
        return [
            f"run directory  {self.run_dir}",
            *(scoring if self.scores != "none" else ()),
            work,
            f"time           {time}   cost {self.cost}",
        ]


def estimate(pipeline: Pipeline) -> Estimate:
    """Plan without computing anything: no torch, no worker."""
    experiment = pipeline.experiment
    history = pipeline.ledger.index().rows
    scoring_todo, missing = _scoring_state(pipeline, history)
    asks = experiment.campaign.asks_queries
    cells, bound = experiment.campaign.bounds(experiment, _n_queries(pipeline) if asks else 0)
    is_known = not missing and pipeline.known_numerics is not None
    wanted = [w.spec_id for w in pipeline.planned.works] if is_known else None
    distinct = None if wanted is None else len(wanted)
    done = None if wanted is None else sum(spec_id in history for spec_id in wanted)
    to_do = None if distinct is None or done is None else distinct - done
    seconds = _seconds_per_retrain(_alike(pipeline, history, wanted or ()))
    left = (bound if to_do is None else to_do) + scoring_todo
    workers = experiment.settings.compute.workers
    return Estimate(
        run=experiment.run_name,
        run_dir=str(pipeline.run_dir.path),
        cells=cells,
        scores="none" if not asks else "missing" if missing else "complete",
        missing_scores=tuple(missing),
        distinct=distinct,
        distinct_max=bound,
        in_ledger=done,
        to_do=to_do,
        scoring_models_to_do=scoring_todo,
        seconds_per_retrain=seconds,
        time_s=0.0 if left == 0 else "unknown" if seconds is None else seconds * left / workers,
        cost="0" if left == 0 else "unknown",
    )


def _scoring_state(pipeline: Pipeline, history: Mapping[str, IndexEntry]) -> tuple[int, list[str]]:
    """Scoring models still to train, and methods without scores. Where only a GPU worker knows the numerics, nothing is known yet."""
    experiment = pipeline.experiment
    if pipeline.known_numerics is None:
        return len(experiment.scoring_seeds), list(experiment.scored)
    works = list({s.work.spec_id: s.work for s in pipeline.scoring}.values())
    in_ledger = all(w.spec_id in history and history[w.spec_id].status == "ok" for w in works)
    if in_ledger or not experiment.needs_scoring_outputs:
        missing = list(dict.fromkeys(label for stage in pipeline.stages.values() for label in stage.missing()))
        if in_ledger and not missing:
            return 0, []
    else:
        missing = list(experiment.scored)
    has_weights = pipeline.store.checkpoints.has
    todo = sum(w.spec_id not in history or not has_weights(w.spec_id, w.keep_steps) for w in works)
    return todo, missing


def _n_queries(pipeline: Pipeline) -> int:
    experiment, block = pipeline.experiment, pipeline.experiment.main.asked
    try:
        return len(pipeline.queries.ids)
    except Unfinished:
        pass  # the model that judges them is not trained yet: as many as are asked for
    n_measured = len(experiment.task.measured[block.split])
    if block.per_class:
        return block.per_class * len(experiment.train.classes)
    return block.count if isinstance(block.count, int) else (len(block.ids) if block.ids else n_measured)


def _alike(pipeline: Pipeline, history: Mapping[str, IndexEntry], wanted: Sequence[str]) -> list[IndexEntry]:
    """Ledger rows that tell how long the retrains will take: the campaign's own, else any that train as it does.

    Scoring models of a campaign with several arms train otherwise than its retrains: they tell nothing.
    """
    several = len(pipeline.experiment.arms) > 1
    models = {s.work.spec_id for s in pipeline.scoring} if several and pipeline.known_numerics is not None else set()
    own = [history[spec_id] for spec_id in wanted if spec_id in history and spec_id not in models]
    return own or ([] if several else list(history.values()))


def _seconds_per_retrain(entries: Sequence[IndexEntry]) -> float | None:
    seconds = [entry.seconds for entry in entries if entry.status == "ok" and entry.seconds > 0]
    return sum(seconds) / len(seconds) if seconds else None
