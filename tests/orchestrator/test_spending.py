"""Price tables, limits, and a book of what was spent that outlives sessions, kills and damage."""

from __future__ import annotations

import errno
import json
import time
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.scheduling.budget import BOOT_S, HOUR_S, Limits, Node, Prices
from orchestrator.spending.book import SessionSpend, SpendBook, spent_line
from orchestrator.spending.meter import PricesConfig, RunMeter, parse_deadline, parse_limits
from orchestrator.storage.blobs import LocalBlobs
from tasks.components import parse_component
from tasks.errors import InputError
from tests.orchestrator.runtime.fake_backend import VirtualClock

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PRICES = Prices("2026-11-01", "USD", {"local": 2.0})
HERE = Node("here", "local", 1)


class Inline(Executor):
    """Does at once what it is given: what is on disk after a tick does not hang on a thread."""

    def submit(self, fn, /, *args, **kwargs) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class FullDisk(LocalBlobs):
    """A store that takes nothing while `full`."""

    full = True

    def put(self, key: str, data: bytes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().put(key, data)


@pytest.fixture
def book(tmp_path) -> SpendBook:
    return SpendBook(LocalBlobs(tmp_path), "run-0")


def opened(book: SpendBook, limits: Limits | None = None, prices: Prices | None = PRICES, **options) -> RunMeter:
    meter = RunMeter.open(book, limits or Limits(), prices, clock=VirtualClock(), **options)
    meter.executor = Inline()
    return meter


def spend(meter: RunMeter, hours: float) -> None:
    meter.tick([HERE])
    meter.clock.sleep(hours * HOUR_S)
    meter.tick([HERE])


# --- config and flags ------------------------------------------------------------------------------------------------


def test_a_price_table_has_defaults_and_is_made_for_the_meter():
    block = parse_component(PricesConfig, {"date": "2026-11-01", "per_hour": {"g5.xlarge/spot": 1}}, "c.yaml", "prices")
    assert block.table() == Prices("2026-11-01", "USD", {"g5.xlarge/spot": 1.0}, BOOT_S)
    assert block.model_dump(mode="json")["date"] == "2026-11-01"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"date": "yesterday"}, "prices.date"),
        ({"date": None}, "prices.date"),
        ({"per_hour": {}}, "prices.per_hour"),
        ({"per_hour": {"g5": 0}}, "prices.per_hour.g5"),
        ({"per_hour": {"g5": -1.0}}, "prices.per_hour.g5"),
        ({"per_hour": {"g5": float("inf")}}, "prices.per_hour.g5"),
        ({"per_hour": {"g5": float("nan")}}, "prices.per_hour.g5"),
        ({"per_hour": {"g5": "1"}}, "prices.per_hour.g5"),
        ({"boot_s": -1}, "prices.boot_s"),
        ({"currency": ""}, "prices.currency"),
        ({"per_day": {}}, "prices.per_day"),
    ],
)
def test_a_price_table_that_is_none_is_refused_by_its_key(change, key):
    block = {"date": "2026-11-01", "per_hour": {"g5": 1.0}, **change}
    with pytest.raises(InputError) as refused:
        parse_component(PricesConfig, block, "c.yaml", "prices")
    assert refused.value.where == f"c.yaml: {key}"


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("2026-12-01T08:00+01:00", datetime(2026, 12, 1, 7, 0, tzinfo=UTC)),
        ("2026-12-01T08:00Z", datetime(2026, 12, 1, 8, 0, tzinfo=UTC)),
        ("90m", NOW + timedelta(minutes=90)),
        ("2h30m", NOW + timedelta(hours=2, minutes=30)),
        (" 1d ", NOW + timedelta(days=1)),
        ("1d2h3m4s", NOW + timedelta(days=1, hours=2, minutes=3, seconds=4)),
    ],
)
def test_a_deadline_is_a_time_or_a_duration(text, until):
    assert parse_deadline(text, NOW) == until


def test_a_time_without_an_offset_is_local(monkeypatch):
    monkeypatch.setenv("TZ", "EST+5")
    time.tzset()
    try:
        assert parse_deadline("2026-12-01T08:00", NOW) == datetime(2026, 12, 1, 13, 0, tzinfo=UTC)
        assert parse_deadline("2026-12-01", NOW) == datetime(2026, 12, 1, 5, 0, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", " ", "tomorrow", "90", "1.5h", "-1h", "5h2d", "2026-13-01T00:00", "9" * 30 + "d"])
def test_what_is_no_deadline_is_refused_and_the_forms_are_named(text):
    with pytest.raises(InputError, match=r"--deadline: .*2026-12-01T08:00\+01:00.*2h30m"):
        parse_deadline(text, NOW)


def test_a_deadline_that_is_over_stops_at_once_so_that_the_same_command_can_be_given_again(book):
    limits = parse_limits(None, None, "2020-01-01T00:00Z", None, NOW)
    meter = RunMeter.open(book, limits, None)
    assert meter.is_used_up
    assert meter.reason == "the deadline 2020-01-01T00:00:00+00:00 is reached"


def test_limits_are_what_the_flags_say():
    assert parse_limits(None, None, None, None, NOW) == Limits()
    assert parse_limits(2.5, 10, "1h", PRICES, NOW) == Limits(2.5, 10, (NOW + timedelta(hours=1)).timestamp())


@pytest.mark.parametrize(
    ("gpu_hours", "cost", "prices", "problem"),
    [
        (0.0, None, None, "--max-gpu-hours: 0 is not a valid limit; allowed: a number above 0"),
        (float("nan"), None, None, "--max-gpu-hours: nan"),
        (None, -2.0, PRICES, "--max-cost: -2"),
        (None, float("inf"), PRICES, "--max-cost: inf"),
        (None, 5.0, None, "--max-cost: a cost limit of 5 needs prices"),
    ],
)
def test_what_is_no_limit_is_refused(gpu_hours, cost, prices, problem):
    with pytest.raises(InputError, match=problem):
        parse_limits(gpu_hours, cost, None, prices, NOW)


# --- the meter -------------------------------------------------------------------------------------------------------


def test_a_run_ends_at_its_budget_and_says_which(book):
    meter = opened(book, Limits(max_gpu_hours=2.0))
    assert (meter.tick([HERE]), meter.is_used_up) == (pytest.approx(2 * HOUR_S), False)
    meter.clock.sleep(1.9 * HOUR_S)
    assert meter.tick([HERE]) == pytest.approx(0.1 * HOUR_S)
    assert meter.reason == "the budget of 2 GPU-hours leaves no room for another retrain (1.90 spent)"
    meter.clock.sleep(0.11 * HOUR_S)
    assert (meter.tick([HERE]), meter.is_used_up) == (0.0, True)
    assert meter.reason == "the budget of 2 GPU-hours is used up (2.01 spent)"


def test_money_and_deadlines_have_reasons_of_their_own(book):
    meter = opened(book, Limits(max_cost=4.0))
    spend(meter, 3.0)
    assert meter.reason == "the budget of 4 USD is used up (6.00 spent)"
    late = opened(book, Limits(deadline_utc_s=datetime(2024, 1, 1, 1, tzinfo=UTC).timestamp()))
    assert late.tick([HERE]) == HOUR_S
    assert late.reason == "the deadline 2024-01-01T01:00:00+00:00 leaves no room for another retrain"
    late.clock.sleep(HOUR_S)
    assert (late.tick([]), late.reason) == (0.0, "the deadline 2024-01-01T01:00:00+00:00 is reached")


def test_without_limits_all_is_booked_and_nothing_ends(book):
    meter = opened(book, prices=None)
    spend(meter, 0.5)
    assert meter.tick([HERE]) is None
    meter.close()
    spent = book.read()
    assert (spent.gpu_hours, spent.node_hours, spent.cost) == (pytest.approx(0.5), pytest.approx(0.5), None)


def test_a_budget_is_for_all_sessions_of_a_run(book):
    for _ in range(3):
        session = opened(book, Limits(max_gpu_hours=10.0, max_cost=5.0))
        spend(session, 0.5)
        session.close()
    assert len(book.read().sessions) == 3
    assert (book.read().gpu_hours, book.read().cost) == (pytest.approx(1.5), pytest.approx(3.0))
    again = opened(book, Limits(max_cost=3.0))
    assert again.is_used_up, "nothing need be started"
    assert again.reason == "the budget of 3 USD is used up (3.00 spent)"
    more = opened(book, Limits(max_cost=4.0))
    assert (more.is_used_up, more.tick([HERE])) == (False, pytest.approx(0.5 * HOUR_S))
    assert not SpendBook(book.blobs, "run-01").read().sessions, "another run, whose name begins alike"


def test_a_killed_driver_forgets_ten_seconds_at_most(book):
    meter = opened(book)
    for _ in range(33):
        meter.tick([HERE])
        meter.clock.sleep(1.0)
    assert book.read().node_hours == pytest.approx(30 / HOUR_S), "and nobody called close"


def test_the_record_is_there_from_the_first_tick_and_closing_charges_the_rest(book):
    meter = opened(book)
    meter.close()
    assert not book.read().sessions, "no machine, no record"
    meter.tick([HERE])
    assert len(book.read().sessions) == 1
    meter.clock.sleep(9.0)
    meter.close()
    meter.close()
    (session,) = book.read().sessions
    assert session.gpu_hours == pytest.approx(9 / HOUR_S)
    assert (session.started, session.updated) == ("2024-01-01T00:00:00+00:00", "2024-01-01T00:00:09+00:00")


def test_writing_in_a_thread_ends_with_the_whole_bill(book):
    meter = RunMeter.open(book, Limits(), PRICES, clock=VirtualClock())
    for _ in range(5):
        spend(meter, 0.1)
    meter.close()
    (session,) = book.read().sessions
    assert session.gpu_hours == pytest.approx(0.5)


def test_a_store_that_takes_nothing_is_told_once_and_harms_no_bill(tmp_path):
    said: list[str] = []
    store = FullDisk(tmp_path)
    meter = opened(SpendBook(store, "run-0"), warn=said.append)
    for _ in range(3):
        spend(meter, 1.0)
    assert len(said) == 1
    assert "No space left" in said[0]
    object.__setattr__(store, "full", False)
    meter.close()
    assert SpendBook(store, "run-0").read().gpu_hours == pytest.approx(3.0)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"gpu_hours": 1}', b"negative", b"nan"],
)
def test_a_damaged_record_is_unknown_and_said(book, damaged):
    session = opened(book)
    spend(session, 1.0)
    session.close()
    (key,) = book.blobs.list("spend/run-0/")
    record = json.loads(book.blobs.get(key))
    bad = {b"negative": {**record, "gpu_hours": -1.0}, b"nan": {**record, "gpu_hours": float("nan")}}.get(damaged)
    book.blobs.put("spend/run-0/other.json", damaged if bad is None else json.dumps(bad).encode())
    said: list[str] = []
    meter = opened(book, Limits(max_gpu_hours=2.0), warn=said.append)
    assert meter.tick([HERE]) == pytest.approx(HOUR_S), "what is known counts"
    assert said == [
        "warning: spend/run-0/other.json is damaged: what this session spent is unknown and counts towards no budget"
    ]
    assert book.read().unknown == ("spend/run-0/other.json",)


def test_a_session_without_prices_is_counted_by_those_of_today(book):
    before = opened(book, prices=None)
    spend(before, 1.0)
    before.close()
    dearer = Prices("2026-12-01", "USD", {"default": 4.0})
    assert (book.read(dearer).cost, book.read(dearer).price_dates) == (4.0, ["2026-12-01"])
    assert book.read().cost is None
    assert opened(book, Limits(max_cost=3.0)).tick([HERE]) == pytest.approx(0.5 * HOUR_S)


def test_what_was_charged_stays_charged_when_prices_change(book):
    before = opened(book)
    spend(before, 1.0)
    before.close()
    dearer = Prices("2026-12-01", "USD", {"default": 40.0})
    assert book.read(dearer).cost == pytest.approx(2.0)


def test_two_currencies_are_never_added_up(book):
    for currency in ("USD", "EUR"):
        session = opened(book, prices=Prices("2026-11-01", currency, {"default": 1.0}))
        spend(session, 1.0)
        session.close()
    assert (book.read().cost, book.read().currencies) == (None, ["EUR", "USD"])
    with pytest.raises(InputError, match=r"--max-cost: .*another currency"):
        opened(book, Limits(max_cost=3.0))
    assert opened(book, Limits(max_gpu_hours=3.0)).tick([HERE]) == pytest.approx(HOUR_S)


def test_a_node_without_a_price_is_told_once_and_charged_as_the_dearest(book):
    said: list[str] = []
    prices = Prices("2026-11-01", "USD", {"a": 1.0, "b/spot": 3.0}, boot_s=0.0)
    meter = opened(book, prices=prices, warn=said.append)
    for _ in range(3):
        meter.tick([Node("x", "c", 0, "spot"), Node("y", "a")])
        meter.clock.sleep(HOUR_S)
    meter.close()
    assert said == ["warning: prices.per_hour has neither 'c/spot' nor default; the highest price is charged"]
    assert book.read().cost == pytest.approx(3 * (3.0 + 1.0))


def test_in_words(book):
    assert book.read().summary() is None
    session = opened(book)
    spend(session, 1.5)
    session.close()
    summary = book.read().summary()
    assert summary is not None
    assert spent_line(summary) == "1.50 GPU-hours, 1.50 node-hours, 3.00 USD (prices of 2026-11-01)"
    book.blobs.put("spend/run-0/bad.json", b"")
    assert spent_line(book.read().summary() or {}).endswith(
        ", and an unknown amount by 1 sessions whose records are damaged"
    )
    book.write("free", SessionSpend(started="", updated="", gpu_hours=0, node_hours={"local": 1.0}))
    assert "USD" not in spent_line(book.read().summary() or {})
