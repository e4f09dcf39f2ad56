"""What is projected into a tracking store, as plain data from the ledger and the results tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.storage.uris import has_secret_parameter
from tasks.errors import InputError, RefitError

ALLOWED_URIS = "sqlite:///<path of a database file>, http://<host> or https://<host>"


class TrackingError(RefitError):
    """The tracking store could not be reached or written; a warning to the caller, since the ledger has everything."""


@dataclass(frozen=True)
class ChildRecord:
    """What one child run shows.

    `labels`: what tells it from its siblings, such as {"method": "tracin", "group": "opponents"}: its name, its params
    and the tags it is found again by. `committed_at`: epoch ms of the last ledger row behind it; it stamps the metrics,
    so that logging again is recognised. `points`: (metric, step, value); a value that is missing is left out, as is
    anything that is no number. `texts`: artifacts made here (name -> content).
    """

    labels: Mapping[str, str]
    committed_at: int
    points: Sequence[tuple[str, int, Any]]
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CampaignRecord:
    """What a campaign adds to its runs in a tracking store: parameters of every run, and a child run per curve or row."""

    params: Mapping[str, Any]
    children: Sequence[ChildRecord]


@dataclass(frozen=True)
class TrackRecord:
    """One campaign as a tracking store shows it: a parent run and its `children`.

    `run` is the hex id of the run directory. `started_at`: epoch ms of the first ledger row, default the earliest of
    the children's `committed_at`. `artifacts`: (local file, artifact directory, "" for the root).
    `description`: what the page of the parent run says, in Markdown.
    """

    campaign: str
    run: str
    params: Mapping[str, Any]
    tags: Mapping[str, Any]
    children: Sequence[ChildRecord]
    artifacts: Sequence[tuple[Path, str]] = ()
    started_at: int | None = None
    description: str = ""


@dataclass(frozen=True)
class SyncResult:
    """Runs created, runs that were there and changed, and run ids by name ("campaign", or a child's labels joined by "/")."""

    created: int = 0
    updated: int = 0
    run_ids: Mapping[str, str] = field(default_factory=dict)


def check_uri(uri: str, where: object = "tracking.uri") -> None:
    """Refuse a tracking URI that is not allowed or carries a secret. Raises InputError, which repeats no secret."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in ("sqlite", "http", "https"):
        shown = f"scheme {scheme!r}" if separator else "no scheme" if "@" in uri else repr(uri)
        raise InputError(where, f"{shown} is not a tracking store; allowed: {ALLOWED_URIS}")
    if _carries_secret(uri, scheme, rest):
        raise InputError(
            where,
            f"a {scheme} URI with a user name, password or token is refused; "
            "put them in MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN",
        )
    if scheme == "sqlite" and not sqlite_path(uri):
        raise InputError(where, f"{uri!r} names no database file; allowed: {ALLOWED_URIS}")
    if scheme != "sqlite" and not _has_host(uri):
        raise InputError(where, f"{uri!r} names no host, or a bad port; allowed: {ALLOWED_URIS}")


def absolute_uri(uri: str) -> str:
    """`uri` with the path of a SQLite file made absolute, so that it means the same from every directory."""
    path = sqlite_path(uri)
    return uri.replace(path, str(Path(path).absolute()), 1) if path else uri


def sqlite_path(uri: str) -> str:
    """The file a `sqlite:///path` URI names; empty if it names none."""
    rest = uri.removeprefix("sqlite://")
    path = rest.removeprefix("/").partition("?")[0] if rest.startswith("/") else ""
    return "" if path in ("", ":memory:") or path.endswith("/") else path


def _carries_secret(uri: str, scheme: str, rest: str) -> bool:
    if "@" in rest and (scheme != "sqlite" or not rest.startswith("/")):
        return True  # also where urlsplit sees no password, as with a slash inside one
    return has_secret_parameter(rest)


def _has_host(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
