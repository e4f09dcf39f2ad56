"""The data that Refit copies to a tracking store such as MLflow, as plain values from the ledger and the results tables."""

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
    """The tracking store could not be reached or written. Callers only warn, since it can be rebuilt from the ledger."""


@dataclass(frozen=True)
class ChildRecord:
    """The content of one child run.

    `labels` distinguish it from its siblings, such as {"method": "tracin", "group": "opponents"}; they become its name,
    params and identifying tags. `committed_at`: commit time of its last ledger row in ms since the epoch; it is the
    timestamp of the metrics, so that a second sync of the same results is recognised. `points`: (metric, step, value); missing and non-numeric values are
    left out. `texts`: text artifacts (name -> content).
    """

    labels: Mapping[str, str]
    committed_at: int
    points: Sequence[tuple[str, int, Any]]
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CampaignRecord:
    """A campaign's own part of a TrackRecord: parameters of every run, and one child run per curve or table row."""

    params: Mapping[str, Any]
    children: Sequence[ChildRecord]


@dataclass(frozen=True)
class TrackRecord:
    """One campaign as runs of a tracking store: a parent run and its `children`.

    `run` is the hex id of the run directory. `started_at`: commit time of the first ledger row in ms since the epoch, by
    default the earliest `committed_at` of the children. `artifacts`: (local file, artifact directory, "" for the root).
    `description`: Markdown text shown with the parent run.
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
    """The numbers of created and changed runs, and run ids by name ("campaign", or a child's labels joined by "/")."""

    created: int = 0
    updated: int = 0
    run_ids: Mapping[str, str] = field(default_factory=dict)


def check_uri(uri: str, where: object = "tracking.uri") -> None:
    """Check that a tracking URI is allowed and contains no secret. Raises InputError, which repeats no secret."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in ("sqlite", "http", "https"):
        shown = f"scheme {scheme!r}" if separator else "no scheme" if "@" in uri else repr(uri)
        raise InputError(where, f"{shown} is not a tracking store; allowed: {ALLOWED_URIS}")
    if _carries_secret(uri, scheme, rest):
        raise InputError(
            where,
            f"a {scheme} URI with a user name, password or token is refused; "
            "set MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN in the environment",
        )
    if scheme == "sqlite" and not sqlite_path(uri):
        raise InputError(where, f"{uri!r} names no database file; allowed: {ALLOWED_URIS}")
    if scheme != "sqlite" and not _has_host(uri):
        raise InputError(where, f"{uri!r} names no host, or an invalid port; allowed: {ALLOWED_URIS}")


def absolute_uri(uri: str) -> str:
    """Return `uri` with the path of a SQLite file made absolute, so that it does not depend on the working directory."""
    path = sqlite_path(uri)
    return uri.replace(path, str(Path(path).absolute()), 1) if path else uri


def sqlite_path(uri: str) -> str:
    """Return the path in a `sqlite:///path` URI; empty if the URI names no file."""
    rest = uri.removeprefix("sqlite://")
    path = rest.removeprefix("/").partition("?")[0] if rest.startswith("/") else ""
    return "" if path in ("", ":memory:") or path.endswith("/") else path


def _carries_secret(uri: str, scheme: str, rest: str) -> bool:
    if "@" in rest and (scheme != "sqlite" or not rest.startswith("/")):
        return True  # urlsplit would miss a password that contains a slash
    return has_secret_parameter(rest)


def _has_host(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
