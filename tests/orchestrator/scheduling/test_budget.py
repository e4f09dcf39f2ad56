"""Bills worked out by hand, and what holds of every bill."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduling.budget import BOOT_S, HOUR_S, Limits, Meter, Node, Prices

PRICES = Prices("2026-11-01", "USD", {"gpu/spot": 0.5, "gpu": 2.0, "head": 0.1}, boot_s=60.0)
SPOT = Node("a", "gpu", 4, "spot")
DEMAND = Node("b", "gpu", 1, "on-demand")
HEAD = Node("h", "head")
HERE = Node("here", "local", 1)


def charged(*ticks: tuple[float, list[Node]], **meter) -> Meter:
    found = Meter(**meter)
    for now_s, nodes in ticks:
        found.charge(now_s, nodes)
    return found


def test_a_node_is_charged_from_its_first_tick_to_its_last_and_for_its_boot():
    meter = charged((100.0, [SPOT]), (3600.0, [SPOT]), (7300.0, [SPOT]), prices=PRICES)
    assert meter.bill.node_hours == {"gpu/spot": pytest.approx((7200 + 60) / HOUR_S)}
    assert meter.gpu_hours == pytest.approx(4 * (7200 + 60) / HOUR_S)
    assert meter.cost == pytest.approx(0.5 * (7200 + 60) / HOUR_S)


def test_what_comes_or_goes_between_two_ticks_is_charged_for_all_of_the_time_between():
    """0: the head. 10: a spot node too. 30: an on-demand node in its place. 40: only the head."""
    meter = charged((0, [HEAD]), (10, [HEAD, SPOT]), (30, [HEAD, DEMAND]), (40, [HEAD]), prices=PRICES)
    wanted = {"head": 40 + 60, "gpu/spot": 10 + 20 + 60, "gpu/on-demand": 20 + 10 + 60}
    assert meter.bill.node_hours == {label: pytest.approx(s / HOUR_S) for label, s in wanted.items()}
    assert meter.gpu_hours == pytest.approx((4 * 90 + 1 * 90) / HOUR_S)
    assert meter.cost == pytest.approx((0.1 * 100 + 0.5 * 90 + 2.0 * 90) / HOUR_S)


def test_a_node_that_comes_back_is_the_same_machine_and_pays_no_second_boot():
    meter = charged((0, [SPOT]), (10, []), (50, []), (60, [SPOT]), (70, [SPOT]), prices=PRICES)
    assert meter.bill.node_hours == {"gpu/spot": pytest.approx((60 + 10 + 10 + 10) / HOUR_S)}


def test_this_machine_was_not_booted_for_the_campaign_and_others_are_without_a_price_table():
    assert charged((0, [HERE]), (36, [HERE])).bill.node_hours == {"local": pytest.approx(0.01)}
    assert charged((0, [HEAD])).bill.node_hours == {"head": pytest.approx(BOOT_S / HOUR_S)}


def test_without_gpus_no_gpu_hours_but_money():
    meter = charged((0, [HEAD]), (HOUR_S - 60, [HEAD]), prices=PRICES)
    assert (meter.gpu_hours, meter.cost) == (0.0, pytest.approx(0.1))


def test_charging_on_goes_with_the_nodes_of_the_last_tick():
    meter = charged((0, [HERE]), (18, [HERE]))
    meter.charge_on(36.0)
    assert meter.gpu_hours == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("node", "price"),
    [
        (SPOT, 0.5),  # its kind and market
        (DEMAND, 2.0),  # its kind
        (Node("x", "gpu"), 2.0),
        (Node("x", "cpu", 0, "spot"), 0.25),  # default
    ],
)
def test_prices_are_looked_up_from_the_narrow_to_the_wide(node, price):
    prices = Prices("2026-11-01", "USD", {**PRICES.per_hour, "default": 0.25})
    assert (prices.of(node.label), prices.lists(node.label)) == (price, True)


def test_a_node_in_no_row_of_the_table_costs_what_the_dearest_does():
    assert not PRICES.lists("tpu/spot")
    assert PRICES.of("tpu/spot") == 2.0


def test_time_left_is_what_is_left_at_the_present_rate():
    meter = charged((0, [SPOT, HEAD]), limits=Limits(max_gpu_hours=1.0, max_cost=1.0), prices=PRICES)
    gpu_s = (1.0 - 4 * 60 / HOUR_S) / 4 * HOUR_S
    cost_s = (1.0 - 0.6 * 60 / HOUR_S) / 0.6 * HOUR_S
    assert gpu_s < cost_s
    assert meter.nearest(0.0) == ("gpu_hours", pytest.approx(gpu_s))
    meter.charge(gpu_s / 2, [HEAD])  # the GPUs are gone: only money runs
    spent = 0.6 * (60 + gpu_s / 2) / HOUR_S
    assert meter.nearest(0.0) == ("cost", pytest.approx((1.0 - spent) / 0.1 * HOUR_S))


def test_a_deadline_does_not_care_what_is_burnt():
    meter = Meter(Limits(deadline_utc_s=1000.0))
    assert [meter.seconds_left(utc_s) for utc_s in (0.0, 999.0, 1000.0, 2000.0)] == [1000.0, 1.0, 0.0, 0.0]
    assert meter.nearest(2000.0) == ("deadline", 0.0)


@pytest.mark.parametrize(
    ("gpus_per_worker", "limits", "n_workers"),
    [
        (1, Limits(), math.inf),
        (0, Limits(max_cost=0.01), math.inf),  # nobody can count workers without GPUs
        (1, Limits(max_cost=1e9), pytest.approx(1e9 * 36 / 2 * 4, rel=1e-6)),
        # 0.1 + 0.5 an hour, 100 s with the boot: what is there takes 0.6 / 36 of what is left, each further node 2 / 36
        (1, Limits(max_cost=(0.6 * 60 + 0.6 * 100 + 2 * 100 * 2.5) / HOUR_S), 4 + 2 * 4),
        (2, Limits(max_cost=(0.6 * 60 + 0.6 * 100 + 2 * 100 * 2.5) / HOUR_S), 2 + 2 * 2),
        (0.1, Limits(max_cost=(0.6 * 60 + 0.6 * 100 + 2 * 100 * 1.5) / HOUR_S), 40 + 40),
        (1, Limits(max_cost=0.6 * 60 / HOUR_S), 4),
        (1, Limits(max_gpu_hours=(4 * 60 + 4 * 100 + 4 * 100 * 1.5) / HOUR_S), 4 + 4),
        (1, Limits(deadline_utc_s=1000 + 99), 4),
        (1, Limits(deadline_utc_s=1000 + 101), math.inf),
    ],
)
def test_no_more_workers_are_wanted_than_can_boot_and_work_before_a_limit(gpus_per_worker, limits, n_workers):
    meter = charged((0, [HEAD, SPOT]), prices=PRICES, limits=limits)
    assert meter.workers_within(gpus_per_worker, 40.0, 1000.0) == n_workers


def test_nodes_of_another_market_have_no_room_for_the_retrains():
    meter = charged((0, [HEAD, SPOT, DEMAND]), prices=PRICES, limits=Limits(max_cost=1e-9))
    found = [meter.workers_within(1, 40.0, 1000.0, market) for market in (None, "spot", "on-demand")]
    assert found == [5, 4, 1]


def test_the_first_of_several_limits_counts():
    meter = charged((0, [HERE]), limits=Limits(max_gpu_hours=1.0, deadline_utc_s=100.0))
    assert meter.nearest(0.0) == ("deadline", 100.0)
    meter.charge(HOUR_S - 50, [HERE])
    assert meter.nearest(0.0) == ("gpu_hours", pytest.approx(50.0))


def test_without_limits_or_nodes_there_is_no_end_in_sight():
    assert charged((0, [SPOT]), prices=PRICES).seconds_left(0.0) is None
    assert Meter(Limits(max_gpu_hours=1.0, max_cost=1.0), PRICES).seconds_left(0.0) is None


def test_what_earlier_sessions_spent_is_gone():
    limits = Limits(max_gpu_hours=2.0)
    assert Meter(limits, prior_gpu_hours=2.0).seconds_left(0.0) == 0.0
    meter = charged((0, [HERE]), (HOUR_S / 2, [HERE]), limits=limits, prior_gpu_hours=1.0)
    assert (meter.gpu_hours, meter.seconds_left(0.0)) == (pytest.approx(1.5), pytest.approx(HOUR_S / 2))
    assert charged((0, [HERE]), limits=Limits(max_cost=1.0), prices=PRICES, prior_cost=5.0).seconds_left(0.0) == 0.0


NODES = [SPOT, DEMAND, HEAD, HERE, Node("c", "gpu", 0.5)]
TICKS = st.lists(
    st.tuples(st.floats(0.0, 1e4), st.lists(st.sampled_from(NODES), unique_by=lambda node: node.node_id)), max_size=12
)


@given(TICKS)
def test_a_bill_only_grows_and_lies_between_what_was_seen_and_what_can_have_been(ticks):
    meter, now_s = Meter(prices=PRICES), 0.0
    seen_s, last_s, last = 0.0, 0.0, []
    before = (0.0, 0.0)
    for step_s, nodes in ticks:
        now_s += step_s
        meter.charge(now_s, nodes)
        both = {node.node_id for node in nodes} & {node.node_id for node in last}
        seen_s, last_s, last = seen_s + len(both) * (now_s - last_s), now_s, nodes
        now = (meter.gpu_hours, meter.cost)
        assert now[0] >= before[0] >= 0.0
        assert now[1] >= before[1] >= 0.0
        before = now
    charged_s = sum(meter.bill.node_hours.values()) * HOUR_S
    assert seen_s - 1e-6 <= charged_s <= len(NODES) * (now_s + 60) + 1e-6


@given(st.lists(st.sampled_from(NODES), unique_by=lambda node: node.node_id), st.lists(st.floats(0.0, 1e5), max_size=8))
def test_ticks_on_the_way_change_nothing_while_the_nodes_stay(nodes, times):
    end_s = 1e5
    once = charged((0.0, nodes), (end_s, nodes), prices=PRICES)
    often = charged((0.0, nodes), *((t, nodes) for t in sorted(times)), (end_s, nodes), prices=PRICES)
    assert often.bill.node_hours == pytest.approx(once.bill.node_hours)
    assert often.gpu_hours == pytest.approx(once.gpu_hours)


@given(st.floats(0.0, 5.0), st.floats(0.0, 5.0), st.floats(0.0, 1e4))
def test_time_left_falls_as_spend_grows_and_is_never_negative(first, second, elapsed_s):
    def left(gpu_hours: float, cost: float, now_s: float) -> float:
        limits = Limits(max_gpu_hours=3.0, max_cost=3.0)
        meter = Meter(limits, PRICES, gpu_hours, cost)
        meter.charge(0.0, [SPOT])
        meter.charge(now_s, [SPOT])
        return meter.seconds_left(0.0) or 0.0

    less, more = sorted((first, second))
    assert 0.0 <= left(more, more, elapsed_s) <= left(less, less, elapsed_s) <= left(less, less, 0.0)
    assert math.isclose(left(less, less, elapsed_s), max(left(less, less, 0.0) - elapsed_s, 0.0), abs_tol=1e-6)


def test_a_clock_that_goes_back_charges_nothing_twice():
    meter = charged((100.0, [HERE]), (136.0, [HERE]), (110.0, [HERE]), (136.0, [HERE]))
    assert meter.gpu_hours == pytest.approx(0.01)
