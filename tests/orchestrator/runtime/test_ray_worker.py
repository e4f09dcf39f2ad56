from __future__ import annotations

import pytest

from orchestrator.runtime.ray_worker import StopRequests
from orchestrator.runtime.recycling import RecyclePolicy

GB = 2**30


def test_a_stop_request_reaches_its_retrain_whichever_comes_first_and_no_other():
    requests = StopRequests()
    requests.request(1)
    assert requests.begin(1).is_set()
    second = requests.begin(2)
    requests.request(1)
    assert not second.is_set()
    requests.request(2)
    assert second.is_set()
    assert not requests.begin(3).is_set()


@pytest.mark.parametrize(("recycle_after", "replaced"), [(None, [False] * 4), (2, [False, True, True, True])])
def test_a_process_is_replaced_after_recycle_after_retrains(recycle_after, replaced):
    policy = RecyclePolicy(recycle_after)
    assert [policy.after(0, 0) for _ in range(4)] == replaced


@pytest.mark.parametrize(
    ("reserved_gb", "device_gb", "replaced"),
    [((4, 13), 24, True), ((4, 11), 24, False), ((10, 14), 24, False), ((10, 16), 24, True), ((1, 9), 0, False)],
)
def test_a_process_is_replaced_when_it_keeps_half_of_the_device_and_half_as_much_again_as_at_first(
    reserved_gb, device_gb, replaced
):
    policy = RecyclePolicy()
    assert [policy.after(gb * GB, device_gb * GB) for gb in reserved_gb] == [False, replaced]


def test_a_process_that_shares_a_device_is_replaced_by_its_share_of_it():
    policy = RecyclePolicy(device_share=0.25)
    assert [policy.after(gb * GB, 80 * GB) for gb in (4, 9, 11)] == [False, False, True]
