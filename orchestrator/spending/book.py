"""Records what each session of a run was charged; the records lie in the store, so that a budget covers all sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.scheduling.budget import Prices
from orchestrator.storage.blobs import BlobStore

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SessionSpend(BaseModel):
    """What one session of a run was charged so far.

    `node_hours`: hours by `<kind>/<market>` of the node. `cost` is None if the config had no prices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    started: str
    updated: str
    gpu_hours: Amount
    node_hours: dict[str, Amount]
    cost: Amount | None = None
    currency: str | None = None
    prices_date: str | None = None
    run: str | None = None  # `run` and `session` are None in records written by versions before 0.2
    session: str | None = None

    def cost_by(self, prices: Prices | None) -> float | None:
        """Return the recorded cost; for a session without a recorded cost, its cost at `prices`."""
        if self.cost is None and prices is not None:
            return prices.cost(self.node_hours)
        return self.cost


@dataclass(frozen=True)
class Spent:
    """What all sessions of a run were charged. `unknown`: the keys of damaged records, which no sum includes.

    `cost` is None if the cost of a session is unknown or the currencies differ. `currencies` and `price_dates` list all
    that occur.
    """

    sessions: tuple[SessionSpend, ...] = ()
    unknown: tuple[str, ...] = ()
    prices: Prices | None = None

    @property
    def gpu_hours(self) -> float:
        return sum(session.gpu_hours for session in self.sessions)

    @property
    def node_hours(self) -> float:
        return sum(sum(session.node_hours.values()) for session in self.sessions)

    @property
    def cost(self) -> float | None:
        costs = [session.cost_by(self.prices) for session in self.sessions]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) and len(self.currencies) <= 1 else None

    @property
    def currencies(self) -> list[str]:
        mine = {self.prices.currency} if self.prices else set()
        return sorted(mine | {session.currency for session in self.sessions if session.currency})

    @property
    def price_dates(self) -> list[str]:
        mine = {self.prices.date} if self.prices and any(s.cost is None for s in self.sessions) else set()
        return sorted(mine | {session.prices_date for session in self.sessions if session.prices_date})

    def summary(self) -> dict[str, Any] | None:
        """Return the sums as plain values for display and JSON; None if there are no records."""
        if not self.sessions and not self.unknown:
            return None
        return {
            "node_hours": self.node_hours,
            "gpu_hours": self.gpu_hours,
            "cost": self.cost,
            "currency": self.currencies[0] if len(self.currencies) == 1 else None,
            "prices_dates": self.price_dates,
            "sessions": len(self.sessions),
            "unknown_sessions": len(self.unknown),
        }


def spent_line(summary: Mapping[str, Any]) -> str:
    """Return the result of `Spent.summary` as a line of text."""
    parts = [f"{summary['gpu_hours']:.2f} GPU-hours", f"{summary['node_hours']:.2f} node-hours"]
    if summary["cost"] is not None and summary["currency"]:
        parts.append(f"{summary['cost']:.2f} {summary['currency']} (prices of {', '.join(summary['prices_dates'])})")
    if summary["unknown_sessions"]:
        parts.append(f"and an unknown amount by {summary['unknown_sessions']} sessions whose records are damaged")
    return ", ".join(parts)


def _name(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")


@dataclass(frozen=True)
class SpendBook:
    """The records of a run's sessions, `spend/<run name>/<session id>.json` in its store."""

    blobs: BlobStore
    run: str

    def write(self, session_id: str, session: SessionSpend) -> None:
        """Write or replace the record of a session. Raises OSError."""
        named = session.model_copy(update={"run": self.run, "session": session_id})
        self.blobs.put(f"{self._folder}{session_id}.json", named.model_dump_json(indent=2).encode() + b"\n")

    def read(self, prices: Prices | None = None) -> Spent:
        """Read what all sessions were charged; `prices` apply to sessions without a cost. Raises OSError."""
        sessions, unknown = [], []
        for key in self.blobs.list(self._folder):
            try:
                session = SessionSpend.model_validate_json(self.blobs.get(key), strict=True)
                if key != f"{self._folder}{session.session or _name(key)}.json" or session.run not in (None, self.run):
                    raise ValueError(f"the record belongs to session {session.session} of {session.run}")
                sessions.append(session)
            except ValueError:  # pydantic's ValidationError is a ValueError
                unknown.append(key)
            except FileNotFoundError:
                continue
        return Spent(tuple(sessions), tuple(unknown), prices)

    @property
    def _folder(self) -> str:
        return f"spend/{self.run}/"
