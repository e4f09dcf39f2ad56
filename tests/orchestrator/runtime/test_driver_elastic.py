"""The driver on a pool that comes and goes: demand, draining nodes, stragglers, budgets."""

import logging
import math

import pytest
from fake_backend import Chaos
from test_driver import Campaign, MemoryLedger, instant_writes, quiet_bytes

from orchestrator.runtime.driver import DriveOptions, drive
from orchestrator.scheduling.policies import Budgets, Timing
from orchestrator.scheduling.scheduler import Scheduler

__all__ = ["instant_writes"]  # a fixture


class NodeSeconds:
    """A meter with a budget of node time, read by the driver's clock."""

    def __init__(self, clock, budget_s):
        self.clock, self.left_s, self.at_s, self.n_nodes = clock, budget_s, clock.now(), 0
        self.most_nodes, self.most_workers = 0, math.inf

    @property
    def reason(self):
        return "the budget is used up"

    def tick(self, nodes):
        self.left_s -= self.n_nodes * (self.clock.now() - self.at_s)
        self.at_s, self.n_nodes = self.clock.now(), len(nodes)
        self.most_nodes = max(self.most_nodes, len(nodes))
        return self.left_s / max(self.n_nodes, 1)

    def workers_within(self, seconds):
        return self.most_workers


class Elastic(Campaign):
    """A campaign whose scheduler knows of time; `meter` limits it."""

    def run(self, backend, timing=None, meter=None, **options):
        self.scheduler = Scheduler(list(self.works), self.budgets, set(self.ledger.rows), timing=timing)
        return drive(
            self.scheduler, backend, self.ledger.publish, self.works, self.progress.append, self.stop, self.clock,
            code_version="v1", options=DriveOptions(**options), meter=meter,
        )  # fmt: skip


def test_the_pool_follows_demand_and_is_let_go_when_there_is_nothing_left(instant_writes):
    campaign = Elastic(20)
    backend = campaign.backend(n_workers=8, n_at_start=0, chaos=Chaos(seed=1, slow=0.1))
    timing = Timing(idle_s=5.0, straggler_min_s=1e9)
    result = campaign.run(backend, timing, poll_s=1.0)
    assert result.complete
    assert backend.wanted[0] == 20
    assert backend.wanted[-1] <= 1
    assert len(backend.released) >= 5, "a straggler held the pool"
    assert len(backend.workers) + len(backend.released) == 8
    assert campaign.ledger.bytes() == quiet_bytes()


def test_a_pool_that_was_let_go_grows_again_when_the_last_retrain_is_lost(instant_writes):
    campaign = Elastic(6)
    backend = campaign.backend(n_workers=3, chaos=Chaos(seed=2, lose=0.5))
    assert campaign.run(backend, Timing(idle_s=0.0), poll_s=0.5).complete
    assert backend.released
    assert len({worker for worker, _, _ in backend.submitted}) > 3


@pytest.mark.parametrize("seed", range(4))
def test_drained_nodes_and_stragglers_change_no_byte_and_cost_no_retry(seed):
    campaign = Elastic(40, budgets=Budgets(retries=0, preemptions=200))
    chaos = Chaos(seed, drain=0.5, slow=0.1, lose=0.3, lost_kinds=("preempted", "node_lost"))
    timing = Timing(idle_s=5.0, straggler_min_s=3.0, drain_margin_s=1.0)
    backend = campaign.backend(chaos=chaos, n_workers=6, resumes=seed % 2 == 0)
    result = campaign.run(backend, timing)
    assert result.complete
    assert set(result.failures) <= {"preempted", "node_lost"}
    assert sum(result.failures.values()) > 5
    assert result.n_attempts == len(backend.submitted) == sum(map(campaign.scheduler.attempts, campaign.works))
    assert campaign.ledger.bytes() == quiet_bytes(40)


def test_a_second_attempt_beside_a_straggler_is_counted(instant_writes):
    campaign = Elastic()
    backend = campaign.backend(n_workers=6, chaos=Chaos(seed=1, slow=0.1))
    result = campaign.run(backend, Timing(straggler_min_s=5.0))
    assert (result.complete, result.n_ok, result.failures) == (True, 20, {})
    assert 0 < result.n_duplicates == result.n_attempts - 20
    assert result.seconds < 50, "the campaign waited for the straggler, which takes 50 s at least"
    written = [spec_id for part in campaign.ledger.parts for spec_id in part]
    assert len(written) == len(set(written)) == 20


def test_a_retrain_that_hangs_without_a_time_limit_is_told_of(instant_writes, caplog):
    campaign = Elastic()
    backend = campaign.backend(n_workers=6, chaos=Chaos(seed=1, slow=0.1))
    campaign.run(backend, Timing(straggler_min_s=2.0, straggler_factor=1e9))  # no second attempts
    assert "have run ten times as long as is typical; set compute.timeout_s to end such retrains" in caplog.text
    assert max(state.stuck for state in campaign.progress) > 0 == campaign.progress[-1].stuck


def test_what_is_being_drained_asked_back_and_let_go_is_in_the_log(instant_writes, caplog):
    campaign = Elastic(budgets=Budgets(preemptions=200))
    with caplog.at_level(logging.INFO):
        campaign.run(campaign.backend(chaos=Chaos(drain=0.5)), Timing(drain_margin_s=15.0))
    for text in ("gets no further retrain, since its node", "must give retrain", "is released"):
        assert text in caplog.text


def test_a_budget_ends_the_campaign_with_its_reason_and_the_next_session_goes_on(instant_writes):
    campaign = Elastic(60)
    backend = campaign.backend(n_workers=4, n_at_start=0)
    meter = NodeSeconds(campaign.clock, 15.0)
    result = campaign.run(backend, meter=meter)
    assert (result.complete, result.stopped, backend.closed) == (False, "the budget is used up", True)
    assert 0 < result.n_ok == result.n_finished == len(campaign.ledger.rows) < 60
    assert 10.0 < 15.0 - meter.left_s <= 15.5
    result = campaign.run(campaign.backend(), meter=NodeSeconds(campaign.clock, 1e9))
    assert (result.complete, result.stopped, result.n_finished) == (True, None, 60)
    assert campaign.ledger.bytes() == quiet_bytes(60)


def test_workers_whose_boot_a_budget_does_not_bear_are_not_asked_for(instant_writes):
    campaign = Elastic(60)
    backend = campaign.backend(n_workers=8, n_at_start=0)
    meter = NodeSeconds(campaign.clock, 1e9)
    meter.most_workers = 3
    assert campaign.run(backend, meter=meter).complete
    assert len(backend.workers) == 3
    assert max(backend.wanted) == 60, "what is left is told beside it: it says whether this is the tail"
    meter.most_workers, other = 0, Elastic(5)
    backend = other.backend(n_workers=8, n_at_start=0)
    assert other.run(backend, meter=meter).complete
    assert len(backend.workers) == 1, "one is always worth trying"


def test_what_still_runs_when_the_budget_is_used_up_is_asked_back_and_given_up_after_the_grace(instant_writes):
    campaign = Elastic(4)
    backend = campaign.backend(n_workers=4, chaos=Chaos(slow=1.0), resumes=False)
    result = campaign.run(backend, Timing(grace_s=5.0), NodeSeconds(campaign.clock, 10.0))
    assert (result.complete, result.n_finished, backend.closed) == (False, 0, True)
    assert len(backend.given_back) == 4
    assert result.seconds == pytest.approx(15.0, abs=0.5)


def test_a_stop_has_its_own_reason_whatever_the_budget(instant_writes):
    campaign = Elastic()
    backend = campaign.backend(on_wait=lambda: campaign.stop.request("SIGINT"))
    assert campaign.run(backend, meter=NodeSeconds(campaign.clock, 1e9)).stopped == "SIGINT"


@pytest.mark.parametrize("where", ["want", "nodes", "give_back", "release"])
def test_when_the_pool_breaks_what_is_finished_is_published_before_the_error_is_raised(where, instant_writes):
    campaign = Elastic(ledger=MemoryLedger(), budgets=Budgets(preemptions=200))
    backend = campaign.backend(chaos=Chaos(drain=0.5))
    original = getattr(backend, where)

    def broken(*arguments):
        if campaign.scheduler.count("finished") >= 5:
            raise RuntimeError("the cluster is gone")
        return original(*arguments)

    setattr(backend, where, broken)
    with pytest.raises(RuntimeError, match="the cluster is gone"):
        campaign.run(backend, Timing(drain_margin_s=15.0), NodeSeconds(campaign.clock, 1e9))
    assert campaign.scheduler.count("finished") == len(campaign.ledger.rows) >= 5
    assert campaign.scheduler.count("done_unpublished") == campaign.scheduler.count("publishing") == 0
    assert backend.closed
