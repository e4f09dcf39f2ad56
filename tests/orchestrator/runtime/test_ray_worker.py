from __future__ import annotations

import pytest

from orchestrator.runtime.ray_worker import GiveBacks
from orchestrator.runtime.wear import Wear

GB = 2**30


def test_a_question_reaches_its_attempt_whichever_comes_first_and_no_other():
    asked = GiveBacks()
    asked.ask(1)
    assert asked.begin(1).is_set()
    second = asked.begin(2)
    asked.ask(1)
    assert not second.is_set()
    asked.ask(2)
    assert second.is_set()
    assert not asked.begin(3).is_set()


@pytest.mark.parametrize(("recycle_after", "worn"), [(None, [False] * 4), (2, [False, True, True, True])])
def test_a_process_is_worn_after_its_share_of_retrains(recycle_after, worn):
    wear = Wear(recycle_after)
    assert [wear.after(0, 0) for _ in range(4)] == worn


@pytest.mark.parametrize(
    ("reserved_gb", "device_gb", "worn"),
    [((4, 13), 24, True), ((4, 11), 24, False), ((10, 14), 24, False), ((10, 16), 24, True), ((1, 9), 0, False)],
)
def test_a_process_is_worn_when_it_keeps_half_of_the_device_and_half_as_much_again_as_at_first(
    reserved_gb, device_gb, worn
):
    wear = Wear()
    assert [wear.after(gb * GB, device_gb * GB) for gb in reserved_gb] == [False, worn]


def test_a_process_that_shares_a_device_is_worn_by_its_share_of_it():
    wear = Wear(device_share=0.25)
    assert [wear.after(gb * GB, 80 * GB) for gb in (4, 9, 11)] == [False, False, True]
