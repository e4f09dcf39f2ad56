"""`refit verify`: checks digests and completeness, derives the tables again, and repeats some retrains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.inspection.table_check import compared
from orchestrator.records import LedgerRow, Outcome, Work, digest_json
from orchestrator.runtime.backend import WorkerContext
from orchestrator.runtime.worker import configure, make_scorer, retrain
from orchestrator.spending.book import SpendBook
from orchestrator.stages.pipeline import Pipeline, Unfinished
from orchestrator.stages.score_shards import GroupScores
from orchestrator.storage.blobs import StoreAwayError
from orchestrator.storage.ledger import record_key
from orchestrator.storage.tables import about_scores, read_plan, read_scores_table
from tasks.errors import RefitError


@dataclass
class Verification:
    """The checks that were made, and the problems that they found, one sentence each."""

    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verify(pipeline: Pipeline, rerun: int = 0, seed: int = 0) -> Verification:
    """Check a run against its ledger.

    `rerun`: the number of random specs to retrain, and of random score shards to compute again; their bytes are compared with the
    stored ones. `seed`: seed of this random choice. Raises StoreAwayError if the store is unavailable and no damage was found before.
    """
    found = Verification()
    note = pipeline.run_dir.store_note(pipeline.store.uri)
    found.checked.append(note or f"the store {pipeline.store.uri}")
    found.problems += [f"ledger part {part.name}: {part.problem}" for part in pipeline.ledger.verify()]
    found.checked.append("ledger parts against the digest in their names")
    _records(pipeline, found)
    try:
        _against_ledger(pipeline, rerun, seed, found)
    except Unfinished as error:  # a model that selects the queries is missing, or its ledger part is damaged
        found.problems.append(str(error))
    except StoreAwayError:
        if not found.problems:  # otherwise the error may come from a part that is already reported
            raise
    return found


def _records(pipeline: Pipeline, found: Verification) -> None:
    """Check the descriptions of the ledgers and the records of what the sessions spent."""
    for task_id, ledger in pipeline.ledger.parts.items():
        record = ledger.description()
        if record is not None and not ledger.is_described(record):
            found.problems.append(
                f"{pipeline.store.blobs.url(record_key(task_id))}: is the description of another ledger"
            )
    spent = SpendBook(pipeline.store.blobs, pipeline.experiment.run_name).read()
    found.problems += [f"{key}: is no record of a session of this run" for key in spent.unknown]
    found.checked.append("descriptions of the ledgers, and records of what the sessions spent")


def _against_ledger(pipeline: Pipeline, rerun: int, seed: int, found: Verification) -> None:
    if not _scores(pipeline, found):
        return
    works = tuple({w.spec_id: w for w in (*(s.work for s in pipeline.scoring), *pipeline.planned.works)}.values())
    view = pipeline.ledger.read({w.spec_id for w in works})
    found.problems += [f"ledger: two results of {spec_id} differ" for spec_id in view.conflicts]
    rows = view.rows
    _rows(works, rows, found)
    _plan(pipeline, found)
    _checkpoints(pipeline, rows, found)
    if all(work.spec_id in rows for work in works):
        _tables(pipeline, rows, found)
    if rerun and not found.problems:
        _rerun(pipeline, pipeline.planned.works, rows, rerun, seed, found)


def _scores(pipeline: Pipeline, found: Verification) -> bool:
    missing = [(s, label, ranges) for s in pipeline.stages.values() for label, ranges in s.missing().items()]
    found.problems += [
        f"scores of {label}: {len(r)} shards are missing or damaged{_older(s, label)}" for s, label, r in missing
    ]
    if missing:
        return False
    found.problems += [
        f"{stage.store.blobs.url(key)}: belongs to other scores"
        for stage in pipeline.stages.values()
        for key in stage.foreign_diagnostics()
    ]
    for (group, label), matrix in pipeline.method_matrices.items():
        path = pipeline.run_dir.scores(label, group)
        about = about_scores(pipeline.experiment.run_name, label, group)
        table = _readable(partial(read_scores_table, about=about), path, found)
        if table is not None and not all(
            np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
            for one, other in zip(table, (matrix.query_ids, matrix.train_ids, matrix.scores), strict=True)
        ):
            found.problems.append(f"{path}: differs from the score shards")
    if pipeline.groups:
        n_matrices = len(pipeline.method_matrices)
        found.checked.append(f"scores of {n_matrices} methods and scoring groups against their shards")
    return True


def _older(stage: GroupScores, label: str) -> str:
    n_older = stage.store.scores.unlabelled(stage.score_id(stage.experiment.stored_scores[label]))
    return (
        f" ({n_older} were written by an older version, without their ids and ranges; refit run computes them again)"
        if n_older
        else ""
    )


def _readable(read: Callable[[Path], Any], path: Path, found: Verification) -> Any:
    """Return what `read` returns for `path`; if the file is missing or damaged, record a problem and return None."""
    try:
        return read(path)
    except FileNotFoundError:
        found.problems.append(f"{path}: missing")
    except RefitError as error:
        found.problems.append(str(error))
    except OSError as error:  # for example a folder with this name, a loop of links, a bad sector
        found.problems.append(f"{path}: cannot be read: {error.strerror or error}")
    return None


def _checkpoints(pipeline: Pipeline, rows: Mapping[str, LedgerRow], found: Verification) -> None:
    for work in (*(scoring.work for scoring in pipeline.scoring), *pipeline.planned.works):
        is_usable = work.spec_id in rows and rows[work.spec_id].outcome.status == "ok"
        for step in work.keep_steps if is_usable else ():
            try:
                pipeline.store.checkpoints.load(work.spec_id, step)
            except RefitError as error:
                found.problems.append(str(error))
    found.checked.append("weights of scoring models and parents against their digests")


def _rows(works: tuple[Work, ...], rows: Mapping[str, LedgerRow], found: Verification) -> None:
    lacking = [w.spec_id for w in works if w.spec_id not in rows]
    if lacking:
        found.problems.append(f"{len(lacking)} of {len(works)} retrains are not in the ledger, {lacking[0]} first")
    for work in works:
        row = rows.get(work.spec_id)
        if row is not None and (
            digest_json(row.spec) != work.spec_id or row.spec != work.spec.json or row.edit != work.edit
        ):
            found.problems.append(f"ledger row {work.spec_id}: its spec or edit is not the one its name digests")
    found.checked.append(
        f"{len(works)} retrains, scoring models included: in the ledger, spec and edit match their names"
    )


def _plan(pipeline: Pipeline, found: Verification) -> None:
    about = {"run": pipeline.experiment.run_name}
    stored = _readable(partial(read_plan, about=about), pipeline.run_dir.plan, found)
    derived = pipeline.planned.columns()
    if stored is not None and any(list(stored[name]) != values for name, values in derived.items()):
        found.problems.append(f"{pipeline.run_dir.plan}: differs from the plan derived from the scores")
    found.checked.append(f"{len(derived['spec_id'])} cells of plan.parquet against the scores")


def _tables(pipeline: Pipeline, rows: Mapping[str, LedgerRow], found: Verification) -> None:
    results = pipeline.results_from(rows)
    for name, text in results.csv().items():
        path = pipeline.run_dir.results / name
        if not path.exists():
            found.problems.append(f"{path}: missing; refit report writes it")
            continue
        problem, note = compared(path.read_bytes(), text)
        found.problems += [f"{path}: {problem}"] * bool(problem)
        found.checked += [f"{path}: {note}"] * bool(note)
    found.checked.append("results/*.csv derived again from the ledger")


def _rerun(
    pipeline: Pipeline,
    works: tuple[Work, ...],
    rows: Mapping[str, LedgerRow],
    count: int,
    seed: int,
    found: Verification,
) -> None:
    usable = [w for w in works if rows[w.spec_id].outcome.status == "ok"]
    chosen = np.random.default_rng(seed).permutation(len(usable))[:count]
    context = dataclasses.replace(
        pipeline.context(), snapshot_s=None
    )  # train from the start, not from a stored snapshot
    configure(context)
    _rescore(pipeline, context, count, seed, found)
    for index in sorted(chosen):
        work = dataclasses.replace(usable[index], keep_steps=())  # do not overwrite stored weights
        repeated, kept = retrain(context, work, "verify"), rows[work.spec_id].outcome
        if not same_bytes(repeated, kept):
            found.problems.append(
                f"retrain {work.spec_id}: its outputs differ from those in the ledger when it is done again"
            )
    found.checked.append(f"{len(chosen)} retrains done again, outputs compared byte by byte")


def _rescore(pipeline: Pipeline, context: WorkerContext, count: int, seed: int, found: Verification) -> None:
    """Compute `count` random shards of all methods and scoring groups again, and compare their bytes with the stored ones."""
    stages = pipeline.stages
    shards = [(k, label, r) for k, s in stages.items() for label in pipeline.experiment.stored_scores for r in s.ranges]
    order = np.random.default_rng([seed, 1]).permutation(len(shards))[:count]
    chosen = [shards[index] for index in sorted(order)]
    for key, label in dict.fromkeys((key, label) for key, label, _ in chosen):
        ranges = [span for k, name, span in chosen if (k, name) == (key, label)]
        scorer = make_scorer(context, stages[key].job({label: ranges}))
        kept = pipeline.all_matrices[key, label].scores
        for start, stop in ranges:
            repeated = np.ascontiguousarray(scorer.score_range(start, stop)[label], np.float32)
            if repeated.tobytes() != np.ascontiguousarray(kept[:, start:stop]).tobytes():
                group = f" of {key}" if key else ""
                problem = "differ from those in the store when done again"
                found.problems.append(f"scores of {label}{group}, rows {start} to {stop}: {problem}")
    if shards:
        found.checked.append(f"{len(chosen)} score shards done again, compared byte by byte")


def same_bytes(one: Outcome, other: Outcome) -> bool:
    """Return whether two outcomes of a spec agree in status and in every byte of their outputs."""
    return (
        one.status == other.status
        and one.outputs.keys() == other.outputs.keys()
        and all(
            one.outputs[name].shape == other.outputs[name].shape
            and one.outputs[name].tobytes() == other.outputs[name].tobytes()
            for name in one.outputs
        )
    )
