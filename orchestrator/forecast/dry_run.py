"""The estimate of `refit plan`: cells, distinct retrains and how many are in the ledger; time and cost from the ledger's history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.forecast.estimate import Estimate
from orchestrator.forecast.outlook import (
    BETWEEN_PREEMPTIONS_S,
    Demand,
    History,
    Outlook,
    Span,
    WorkerPlan,
    outlook,
    total_s,
)
from orchestrator.records import Work
from orchestrator.stages.pilot import RetrainClass, class_of
from orchestrator.stages.pipeline import Pipeline, Unfinished
from orchestrator.storage.ledger_parts import IndexEntry
from orchestrator.terminal.progress import duration
from tasks.data.census import take_census

MOST_ROWS_READ = 5000  # ledger rows read with their outputs for the advice; takes about half a second


def estimate(pipeline: Pipeline) -> Estimate:
    """Estimate a run without computing anything: it imports no torch and starts no worker."""
    experiment = pipeline.experiment
    models, missing = _scoring_state(pipeline, pipeline.ledger.index().rows)
    asks = experiment.campaign.asks_queries
    cells, bound = pipeline.campaign.bounds(experiment, _n_queries(pipeline) if asks else 0)
    works = _planned_works(pipeline, missing)
    is_exact = works is not None and pipeline.planned.is_final
    rows = (
        pipeline.ledger.index().rows
    )  # read again, since planning has registered which ledger the rows of a work belong to
    left = [work for work in works or () if work.spec_id not in rows]
    least = Counter([*models, *map(class_of, left)])
    most = least if is_exact else least + Counter({None: bound - len(works or ())})
    history, pool = _history(pipeline, works or (), rows), _pool(pipeline)
    return Estimate(
        run=experiment.run_name,
        run_dir=str(pipeline.run_dir.path),
        cells=cells,
        scores="none" if not asks else "missing" if missing else "complete",
        missing_scores=tuple(missing),
        distinct=len(works) if works is not None and is_exact else None,
        distinct_max=bound,
        in_ledger=None if works is None else len(works) - len(left),
        to_do=len(left) if is_exact else None,
        scoring_models_to_do=len(models),
        seconds_per_retrain=_mean_s(most or Counter(map(class_of, works or ())), history),
        **_figures(outlook(most if works is None else least, most, history, pool), history, pool, most.total()),
        advice="" if missing else _advice(pipeline, works or ()),
        data=take_census(experiment.task.splits, experiment.task.measured),
        missing_diagnostics=tuple(_missing_diagnostics(pipeline)),
    )


def _planned_works(pipeline: Pipeline, missing: Sequence[str]) -> Sequence[Work] | None:
    """Return the works of the plan; None while they depend on missing scores, or on numerics that only a worker can determine."""
    if pipeline.known_numerics is None or (missing and pipeline.campaign.plans_by_scores):
        return None
    try:
        return pipeline.planned.works
    except Unfinished:  # the plan may depend on a model that is not trained yet, for example for the choice of queries
        return None


def _advice(pipeline: Pipeline, works: Sequence[Work]) -> str:
    """Return the campaign's advice on narrowing its intervals, from the finished retrains; "" without any, or if there are too many to read quickly."""
    if not 0 < len(works) <= MOST_ROWS_READ:
        return ""
    rows = pipeline.ledger_rows(work.spec_id for work in works)
    return pipeline.campaign.advice(pipeline.scored, pipeline.planned, rows) if rows else ""


def _figures(found: Outlook | None, history: History, pool: WorkerPlan, n_left: int) -> dict[str, Any]:
    """Return time, GPU-hours and cost with their ranges, and the assumptions behind them."""
    nothing = Span(0.0, 0.0, 0.0)
    time, gpu_hours = (found.time_s, found.gpu_hours) if found else (None, None)
    cost = found.cost if found else None
    if not n_left:
        time = gpu_hours = cost = nothing
    return {
        "time_s": time.mean if time else "unknown",
        "time_low_s": time.low if time else None,
        "time_high_s": time.high if time else None,
        "gpu_hours_low": gpu_hours.low if gpu_hours else None,
        "gpu_hours_high": gpu_hours.high if gpu_hours else None,
        "cost": cost.mean if cost else "unknown",
        "cost_low": cost.low if cost else None,
        "cost_high": cost.high if cost else None,
        "currency": pool.prices.currency if pool.prices else None,
        "assumptions": _assumptions(found, history, pool, n_left) if n_left else "",
    }


def _assumptions(found: Outlook | None, history: History, pool: WorkerPlan, n_left: int) -> str:
    """Return the assumptions behind the figures in one line."""
    if found is None:
        return "nothing: no finished retrain shows how long one takes; refit plan --pilot runs some of every class and keeps them"
    workers, finished = min(pool.workers, n_left), _count(history.n_known, "retrain")
    known = (
        f"95% range from {finished}" if found.time_s.high is not None else f"known from {finished}, too few for a range"
    )
    parts = [known, _count(workers, "worker"), _count(pool.n_nodes(workers), "node")]
    if pool.prices:
        low, high = pool.per_hour
        parts += [
            f"boot {pool.boot_s:g} s",
            f"{low:g} to {high:g} {pool.prices.currency} a node-hour ({pool.prices.date})",
        ]
    if pool.market == "spot":
        parts.append(f"a spot node lasts {duration(BETWEEN_PREEMPTIONS_S)}")
    return ", ".join(parts)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _mean_s(kinds: Demand, history: History) -> float | None:
    """Return the mean seconds of one of these retrains; None if they are unknown."""
    total = total_s(kinds, history)
    return total.mean / kinds.total() if total and kinds.total() else None


def _pool(pipeline: Pipeline) -> WorkerPlan:
    settings = pipeline.experiment.settings
    compute, prices = settings.compute, settings.prices
    return WorkerPlan(
        compute.workers, compute.gpus_per_worker, compute.market.retrains, prices.table() if prices else None
    )


def _history(pipeline: Pipeline, works: Sequence[Work], rows: Mapping[str, IndexEntry]) -> History:
    """Return the seconds of finished retrains by class.

    With a single arm, all rows of its ledger come from the same kind of training, so those of other campaigns are included as `others`.
    """
    several = len(pipeline.experiment.arms) > 1
    models = [s.work for s in pipeline.scoring] if pipeline.known_numerics is not None else []
    own: dict[RetrainClass, list[float]] = {}
    for work in {work.spec_id: work for work in (*works, *models)}.values():
        own.setdefault(class_of(work), []).extend(_seconds(rows.get(work.spec_id)))
    others = () if several else [s for row in rows.values() for s in _seconds(row)]
    return History(own, others, several)


def _seconds(row: IndexEntry | None) -> list[float]:
    return [row.seconds] if row is not None and row.status == "ok" and row.seconds > 0 else []


def _scoring_state(pipeline: Pipeline, rows: Mapping[str, IndexEntry]) -> tuple[list[RetrainClass | None], list[str]]:
    """Return the classes of the scoring models still to train, and the labels of the methods that lack scores.

    While only a GPU worker can determine the numerics, all models and all scores count as missing.
    """
    experiment = pipeline.experiment
    if pipeline.known_numerics is None:
        return [None] * len(experiment.scoring_seeds), list(experiment.stored_scores)
    works = list({s.work.spec_id: s.work for s in pipeline.scoring}.values())
    in_ledger = all(w.spec_id in rows and rows[w.spec_id].status == "ok" for w in works)
    if in_ledger or not experiment.needs_scoring_outputs:
        missing = _missing_scores(pipeline)
        if in_ledger and not missing and not _missing_diagnostics(pipeline):
            return [], []
    else:
        missing = list(experiment.stored_scores)
    has_weights = pipeline.store.checkpoints.has
    untrained = [w for w in works if w.spec_id not in rows or not has_weights(w.spec_id, w.keep_steps)]
    return [class_of(work) for work in untrained], missing


def _missing_scores(pipeline: Pipeline) -> list[str]:
    """Return the labels of the methods that lack scores: all, while a model that chooses the queries is not trained."""
    try:
        return list(dict.fromkeys(label for stage in pipeline.stages.values() for label in stage.missing()))
    except Unfinished:
        return list(pipeline.experiment.stored_scores)


def _missing_diagnostics(pipeline: Pipeline) -> list[str]:
    """Return the labels of the diagnostics that are not in the store: all, while models must be trained before they can have an id."""
    labels = list(pipeline.experiment.config.diagnostics)
    if not labels or pipeline.known_numerics is None:
        return labels
    try:
        return list(dict.fromkeys(label for found in pipeline.diagnoses.missing().values() for label in found))
    except Unfinished:
        return labels


def _n_queries(pipeline: Pipeline) -> int:
    experiment, block = pipeline.experiment, pipeline.experiment.main.asked
    try:
        return len(pipeline.queries.ids)
    except Unfinished:
        pass  # the model that selects the queries is not trained yet, so the number that the config asks for is used
    n_measured = len(experiment.task.measured[block.split])
    if block.per_class:
        return block.per_class * len(experiment.train.classes)
    return block.count if isinstance(block.count, int) else (len(block.ids) if block.ids else n_measured)
