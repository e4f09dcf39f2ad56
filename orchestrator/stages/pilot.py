"""A pilot: a few retrains of every class, done first, so that the rest can be estimated. They are real, and kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from orchestrator.records import Work


class RetrainClass(NamedTuple):
    """Retrains that take about as long: trained by one arm's recipe, on an edit of one mode, with or without weights to store."""

    arm: str
    mode: str
    keeps_weights: bool


def class_of(work: Work) -> RetrainClass:
    """The class of a retrain."""
    return RetrainClass(work.arm, work.edit.mode, bool(work.keep_steps))


def pilot_works(works: Sequence[Work], finished: Collection[str], n: int) -> list[Work]:
    """What to retrain so that `n` of every class are finished, as far as there are so many; in the order of the plan.

    The unfinished works of a class are taken evenly over its part of the plan. A work that starts from another one's weights brings
    that one along, done or not: its weights are needed. The same plan and ledger give the same pilot; one that is done asks for nothing.
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
    """Add a work, and those whose weights it starts from."""
    step: Work | None = work
    while step is not None:
        chosen.add(step.spec_id)
        step = by_id.get((step.spec.parent or {}).get("spec_id", ""))
