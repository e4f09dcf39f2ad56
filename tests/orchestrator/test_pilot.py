"""A pilot takes a few of every class, evenly, and never twice."""

from __future__ import annotations

from collections import Counter

import pytest

from orchestrator.campaigns.plan import waves
from orchestrator.records import RetrainSpec, Work
from orchestrator.stages.pilot import RetrainClass, class_of, pilot_works
from tasks.data.edits import Edit


def work(number: int, arm: str = "", mode: str = "mask", parent: Work | None = None, keep: bool = False) -> Work:
    edit = Edit.removal([number], mode)  # type: ignore[arg-type]
    start = {"spec_id": parent.spec_id, "step": 1} if parent else None
    spec = RetrainSpec("train", "model", {"arm": arm}, edit.identity(), 0, "numerics", start)
    return Work(spec, edit, (1,) if keep else (), arm)


def test_classes_are_told_apart_by_arm_mode_and_weights_that_are_kept():
    kinds = {class_of(w) for w in (work(0), work(1), work(1, "b"), work(1, mode="drop"), work(1, keep=True))}
    assert kinds == {
        RetrainClass("", "mask", False),
        RetrainClass("b", "mask", False),
        RetrainClass("", "drop", False),
        RetrainClass("", "mask", True),
    }


def test_a_pilot_is_spread_evenly_over_each_class_in_the_order_of_the_plan():
    works = [w for i in range(20) for w in (work(i), work(i, "b"))] + [work(99, "rare")]
    found = pilot_works(works, (), 5)
    assert [w.edit.ids[0] for w in found if w.arm == ""] == [2, 6, 10, 14, 18]
    assert Counter(w.arm for w in found) == {"": 5, "b": 5, "rare": 1}
    assert found == [w for w in works if w in found]
    assert found == pilot_works(works, (), 5)


@pytest.mark.parametrize("n", [1, 3, 7, 40])
def test_what_is_finished_counts_and_a_pilot_that_is_done_asks_for_nothing(n):
    works = [work(i) for i in range(30)]
    finished = {w.spec_id for w in works[:4]}
    found = pilot_works(works, finished, n)
    assert len(found) == min(max(n - 4, 0), 26)
    assert not finished & {w.spec_id for w in found}
    assert pilot_works(works, finished | {w.spec_id for w in found}, n) == []


def test_a_retrain_that_starts_from_anothers_weights_brings_it_along_once():
    base = work(0, "base", keep=True)
    middle = work(1, "middle", parent=base, keep=True)
    tuned = [work(i, "tuned", parent=middle) for i in range(2, 6)]
    works = [*tuned, middle, base]
    found = pilot_works(works, (), 2)
    assert Counter(w.arm for w in found) == {"tuned": 2, "middle": 1, "base": 1}
    assert [w.arm for wave in waves(found) for w in wave] == ["base", "middle", "tuned", "tuned"]
    assert pilot_works(works, {base.spec_id, middle.spec_id}, 2) == found, "their weights may be gone"
    assert pilot_works(works, {w.spec_id for w in works}, 2) == []
