from __future__ import annotations

from orchestrator.runtime.starts import FailedStarts


def pauses(n: int) -> list[float]:
    """How long the pauses are when every start fails that is tried after one."""
    failed, now_s, found = FailedStarts(), 0.0, []
    for _ in range(2):
        failed.add("", now_s)
    for _ in range(n):
        failed.add("", now_s)
        found.append(failed.retry_at_s - now_s)
        now_s = failed.retry_at_s
    return found


def test_pauses_double_up_to_ten_minutes():
    assert pauses(7) == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


def test_those_that_began_together_and_fail_one_after_the_other_make_one_pause():
    failed = FailedStarts()
    for now_s in range(20):
        failed.add(f"failure {now_s}", float(now_s))
    assert (failed.retry_at_s, failed.message) == (32.0, "failure 19")


def test_after_a_success_three_may_fail_again():
    failed = FailedStarts()
    for _ in range(3):
        failed.add("", 0.0)
    assert failed.are_many
    failed.clear()
    failed.add("", 0.0)
    failed.add("", 0.0)
    assert not failed.are_many
    failed.add("", 100.0)
    assert failed.retry_at_s == 130.0
