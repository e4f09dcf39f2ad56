"""Budgets of a run: the prices of the config, the limits of the command line, and the meter that compares costs with them."""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.runtime.clock import Clock, SystemClock
from orchestrator.scheduling.budget import BOOT_S, Limits, Meter, Node, Prices
from orchestrator.spending.book import Amount, SessionSpend, SpendBook
from tasks.errors import InputError

BOOK_EVERY_S = 10.0
CLOSING_PAUSES_S = (1.0, 5.0, 15.0)  # pauses between the attempts to write the last record
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_ALLOWED = (
    "a time such as 2026-12-01T08:00+01:00 (local time without offset), or how long from now, such as 90m, 2h30m, 1d"
)

Key = Annotated[str, StringConstraints(min_length=1)]
Price = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Warn = Callable[[str], None]
log = logging.getLogger(__name__)


class PricesConfig(BaseModel):
    """The price of a node-hour by `<node type>/<market>`, `<node type>` or `default`, as of `date`.

    Prices come from the config only. `boot_s` seconds are charged once for every node, for the time before the driver
    first sees it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: dt.date
    currency: Key = "USD"
    boot_s: Amount = BOOT_S
    per_hour: Annotated[dict[Key, Price], Field(min_length=1)]

    def table(self) -> Prices:
        """Return the prices in the form that the meter uses."""
        return Prices(self.date.isoformat(), self.currency, dict(self.per_hour), self.boot_s)


def parse_limits(
    max_gpu_hours: float | None, max_cost: float | None, deadline: str | None, prices: Prices | None, now: dt.datetime
) -> Limits:
    """Parse the limits of a run. Raises InputError for an invalid limit, or for a cost limit without prices."""
    for flag, value in (("--max-gpu-hours", max_gpu_hours), ("--max-cost", max_cost)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(flag, f"{value:g} is not a valid limit; allowed: a number above 0")
    if max_cost is not None and prices is None:
        problem = (
            f"a cost limit of {max_cost:g} needs prices; "
            "give prices: {date: ..., per_hour: {<node type>: ...}} in the config"
        )
        raise InputError("--max-cost", problem)
    until = None if deadline is None else parse_deadline(deadline, now).timestamp()
    return Limits(max_gpu_hours, max_cost, until)


def parse_deadline(text: str, now: dt.datetime) -> dt.datetime:
    """Parse a deadline: ISO 8601, in local time if it has no offset, or a duration from `now`. Returns it in UTC.

    A deadline in the past is valid, so that a command can be repeated later; the run then stops at once unless it is
    complete. Raises InputError if `text` is neither a time nor a duration.
    """
    text = text.strip()
    try:
        until = _after(text, now) or dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError("--deadline", f"{text!r} is not a valid deadline; allowed: {_ALLOWED}") from error
    return until


def _after(text: str, now: dt.datetime) -> dt.datetime | None:
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return now + dt.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


@dataclass
class RunMeter:
    """Charges the nodes of one session to the budget of its run and writes the session's record; a SpendMeter of the driver.

    The record is written at the first tick, then every ten seconds, and by `close`, so that at most ten seconds are lost
    if the driver is killed. It is written in a thread, so that a store that does not answer does not delay the driver.
    """

    book: SpendBook
    meter: Meter
    gpus_per_worker: float = 0.0
    market: str | None = None  # the market of the nodes that retrain
    clock: Clock = field(default_factory=SystemClock)
    warn: Warn = log.warning
    executor: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "spend"))
    _session_id: str = ""
    _started: str = ""
    _written_s: float = -math.inf
    _writing: Future | None = None
    _warned: set[str] = field(default_factory=set)

    @staticmethod
    def open(
        book: SpendBook,
        limits: Limits,
        prices: Prices | None,
        *,
        gpus_per_worker: float = 0.0,
        market: str | None = None,
        clock: Clock | None = None,
        warn: Warn = log.warning,
    ) -> RunMeter:
        """Open a meter that continues from the charges of earlier sessions.

        Raises InputError if these are in another currency than --max-cost.
        """
        prior = book.read(prices)
        for key in prior.unknown:
            warn(f"warning: {key} is damaged: what this session spent is unknown and counts towards no budget")
        if limits.max_cost is not None and len(prior.currencies) > 1:
            problem = f"earlier sessions of this run are charged in another currency ({', '.join(prior.currencies)})"
            raise InputError("--max-cost", f"{problem}; give prices in that currency")
        meter = Meter(limits, prices, prior.gpu_hours, prior.cost or 0.0)
        return RunMeter(book, meter, gpus_per_worker, market, clock or SystemClock(), warn)

    @property
    def is_used_up(self) -> bool:
        """Whether a limit is already reached, so that no worker need be started."""
        return self.meter.seconds_left(self.clock.utc().timestamp()) == 0

    @property
    def reason(self) -> str:
        """A message that names the limit that ends the run."""
        nearest, limits = self.meter.nearest(self.clock.utc().timestamp()), self.meter.limits
        name, left_s = nearest or ("", math.inf)
        end = "is used up" if left_s == 0 else "leaves no room for another retrain"
        if name == "deadline":
            at = dt.datetime.fromtimestamp(limits.deadline_utc_s or 0.0, dt.UTC).isoformat(timespec="seconds")
            return f"the deadline {at} {'is reached' if left_s == 0 else end}"
        if name == "cost" and self.meter.prices:
            return f"the budget of {limits.max_cost:g} {self.meter.prices.currency} {end} ({self.meter.cost:.2f} spent)"
        if name == "gpu_hours":
            return f"the budget of {limits.max_gpu_hours:g} GPU-hours {end} ({self.meter.gpu_hours:.2f} spent)"
        return "no limit is near"

    def tick(self, nodes: Sequence[Node]) -> float | None:
        """Charge these nodes up to now; return the seconds until a limit at the present rate, None if there is no limit."""
        self._warn_of_prices(nodes)
        self.meter.charge(self.clock.now(), nodes)
        if self.clock.now() - self._written_s >= BOOK_EVERY_S and (self._writing is None or self._writing.done()):
            self._write()
        return self.meter.seconds_left(self.clock.utc().timestamp())

    def workers_within(self, seconds: float) -> float:
        """Return how many workers can boot and work for `seconds` before a limit is reached; infinite without a limit."""
        return self.meter.workers_within(self.gpus_per_worker, seconds, self.clock.utc().timestamp(), self.market)

    def close(self) -> None:
        """Charge the nodes of the last tick up to now and write the record; do nothing if there was no tick."""
        if self._writing is not None:
            self.meter.charge_on(self.clock.now())
            self._write()
            for pause_s in CLOSING_PAUSES_S:
                if self._writing.exception() is None:
                    return
                self.clock.sleep(pause_s)
                self._write()
            if error := self._writing.exception():
                spent = f"{self.meter.bill.gpu_hours:.2f} GPU-hours of this session count towards no later budget"
                self.warn(f"warning: the record of what was spent could not be written ({error}): {spent}")

    def _warn_of_prices(self, nodes: Sequence[Node]) -> None:
        prices = self.meter.prices
        for label in {node.label for node in nodes} - self._warned if prices else ():
            self._warned.add(label)
            if prices and not prices.lists(label):
                self.warn(f"warning: prices.per_hour has neither {label!r} nor default; the highest price is charged")

    def _write(self) -> None:
        self._check_written()
        now = self.clock.utc()
        self._started = self._started or now.isoformat(timespec="seconds")
        self._session_id = self._session_id or f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        self._written_s = self.clock.now()
        self._writing = self.executor.submit(self.book.write, self._session_id, self._record(now))

    def _record(self, now: dt.datetime) -> SessionSpend:
        bill, prices = self.meter.bill, self.meter.prices
        return SessionSpend(
            started=self._started,
            updated=now.isoformat(timespec="seconds"),
            gpu_hours=bill.gpu_hours,
            node_hours=dict(bill.node_hours),
            cost=prices.cost(bill.node_hours) if prices else None,
            currency=prices.currency if prices else None,
            prices_date=prices.date if prices else None,
        )

    def _check_written(self) -> None:
        """Wait for the last write. A failure loses nothing yet, because the next record again contains all charges."""
        error = self._writing.exception() if self._writing else None
        if error is not None and not isinstance(error, OSError):
            raise error
        if error is not None and "book" not in self._warned:
            self.warn(f"warning: the record of what is spent cannot be written ({error}); trying again")
            self._warned.add("book")
