"""refit verify: digests, completeness, tables re-derived and compared, and retrains done again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from orchestrator.pipeline import Pipeline
from orchestrator.records import LedgerRow, Outcome, Work, digest_json
from orchestrator.results import analyse
from orchestrator.runtime.backend import WorkerContext
from orchestrator.runtime.worker import configure, retrain
from orchestrator.storage.tables import read_plan, read_scores_table


@dataclass
class Verification:
    """What was checked and what does not hold."""

    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verify(pipeline: Pipeline, rerun: int = 0, seed: int = 0) -> Verification:
    """Check a run against its ledger; `rerun` retrains that many random specs and compares bytes."""
    found = Verification()
    found.problems += [f"ledger part {part.name}: {part.problem}" for part in pipeline.ledger.verify()]
    found.checked.append("ledger parts against the digest in their names")
    if found.problems or not _scores(pipeline, found):
        return found
    works = pipeline.planned.works
    view = pipeline.ledger.read({w.spec_id for w in works})
    found.problems += [f"ledger: two results of {spec_id} differ" for spec_id in view.conflicts]
    rows = view.rows
    _rows(works, rows, found)
    _plan(pipeline, found)
    if not found.problems:
        _tables(pipeline, rows, found)
    if rerun and not found.problems:
        _rerun(pipeline, works, rows, rerun, seed, found)
    return found


def _scores(pipeline: Pipeline, found: Verification) -> bool:
    missing = pipeline.scores.missing()
    found.problems += [
        f"scores of {label}: {len(ranges)} shards are missing or damaged" for label, ranges in missing.items()
    ]
    for label in pipeline.experiment.scored if not missing else ():
        path = pipeline.run_dir.scores(label)
        if not path.exists():
            found.problems.append(f"{path}: missing")
            continue
        table, matrix = read_scores_table(path), pipeline.matrices[label]
        if any(
            not np.array_equal(a, b)
            for a, b in zip(table, (matrix.query_ids, matrix.train_ids, matrix.scores), strict=True)
        ):
            found.problems.append(f"{path}: differs from the score shards")
    found.checked.append(f"scores of {len(pipeline.experiment.scored)} methods against their shards")
    return not found.problems


def _rows(works: tuple[Work, ...], rows: Mapping[str, LedgerRow], found: Verification) -> None:
    lacking = [w.spec_id for w in works if w.spec_id not in rows]
    if lacking:
        found.problems.append(
            f"{len(lacking)} of {len(works)} planned retrains are not in the ledger, {lacking[0]} first"
        )
    for work in works:
        row = rows.get(work.spec_id)
        if row is not None and (
            digest_json(row.spec) != work.spec_id or row.spec != work.spec.json or row.edit != work.edit
        ):
            found.problems.append(f"ledger row {work.spec_id}: its spec or edit is not the one its name digests")
    found.checked.append(f"{len(works)} planned retrains: in the ledger, spec and edit match their names")


def _plan(pipeline: Pipeline, found: Verification) -> None:
    if not pipeline.run_dir.plan.exists():
        found.problems.append(f"{pipeline.run_dir.plan}: missing")
        return
    stored = read_plan(pipeline.run_dir.plan)
    derived = [request.spec_id for request in pipeline.planned.requests()]
    if list(stored["spec_id"]) != derived:
        found.problems.append(f"{pipeline.run_dir.plan}: differs from the plan derived from the scores")
    found.checked.append(f"{len(derived)} cells of plan.parquet against the scores")


def _tables(pipeline: Pipeline, rows: Mapping[str, LedgerRow], found: Verification) -> None:
    results = analyse(pipeline.experiment, pipeline.planned, pipeline.queries, rows)
    for name, text in results.csv().items():
        path = pipeline.run_dir.results / name
        if not path.exists():
            found.problems.append(f"{path}: missing; refit report writes it")
        elif path.read_text(encoding="utf-8") != text:
            found.problems.append(f"{path}: differs from the table derived from the ledger")
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
    pipeline.experiment.task.prepare()
    context = WorkerContext(pipeline.experiment.task, pipeline.numerics)
    configure(context)
    for index in sorted(chosen):
        work = usable[index]
        again, kept = retrain(context, work, "verify"), rows[work.spec_id].outcome
        if not same_bytes(again, kept):
            found.problems.append(f"retrain {work.spec_id}: outputs differ from the ledger's when done again")
    found.checked.append(f"{len(chosen)} retrains done again, outputs compared byte by byte")


def same_bytes(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes of a spec agree in status and in every byte of their outputs."""
    return (
        one.status == other.status
        and one.outputs.keys() == other.outputs.keys()
        and all(
            one.outputs[name].shape == other.outputs[name].shape
            and one.outputs[name].tobytes() == other.outputs[name].tobytes()
            for name in one.outputs
        )
    )
