"""A pilot: a few retrains of every class that run first, so that the duration of the others can be estimated. Their results are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from orchestrator.records import Work


class RetrainClass(NamedTuple):
    """A class of retrains of similar duration: those of one arm whose edits have one mode and which all store weights, or all do not."""

    arm: str
    mode: str
    keeps_weights: bool


def class_of(work: Work) -> RetrainClass:
    """Return the class of a retrain."""
    return RetrainClass(work.arm, work.edit.mode, bool(work.keep_steps))


def pilot_works(works: Sequence[Work], finished: Collection[str], n: int) -> list[Work]:
    """Return the works to retrain so that `n` of every class are finished, or all if a class has fewer; in the order of the plan.

    The chosen works are spread evenly over the unfinished works of their class. If a work starts from the weights of another
    work, that one is included even if it is finished, since its weights are needed. The result depends only on the plan and the
    ledger; it is empty once `n` of every class are finished.
    """
    by_id = {work.spec_id: work for work in works}
    chosen: set[str] = set()
    for mine in _by_class(works).values():
        left = [work for work in mine if work.spec_id not in finished]
        n_wanted = min(max(n - (len(mine) - len(left)), 0), len(left))
        for i in range(n_wanted):
            _choose(left[(2 * i + 1) * len(left) // (2 * n_wanted)], by_id, chosen)
    return [work for work in works if work.spec_id in chosen]


def _by_class(works: Sequence[Work]) -> dict[RetrainClass, list[Work]]:
    found: dict[RetrainClass, list[Work]] = {}
    for work in works:
        found.setdefault(class_of(work), []).append(work)
    return found


def _choose(work: Work, by_id: Mapping[str, Work], chosen: set[str]) -> None:
    """Add a work and its ancestors, from whose weights it starts."""
    step: Work | None = work
    while step is not None:
        chosen.add(step.spec_id)
        step = by_id.get((step.spec.parent or {}).get("spec_id", ""))
