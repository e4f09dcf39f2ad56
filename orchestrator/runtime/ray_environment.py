"""What a Ray of our own needs around it: token, quiet, a temp dir, the driver's import path. Imports no ray."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import InputError

CONNECT_S = 5.0
ALLOWED = "allowed: auto, host:port, local"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else every worker without a GPU warns that Ray will stop doing it
}


def secure(environment: MutableMapping[str, str], *, make_token: bool, home: Path | None = None) -> None:
    """Turn token authentication on unless the user has chosen a mode; `make_token`: make one when there is none.

    The token stays in the environment of this process and its children: nothing is written to disk.
    """
    for name, value in QUIET.items():
        environment.setdefault(name, value)
    environment.setdefault("RAY_AUTH_MODE", "token")
    if make_token and not has_token(environment, home):
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def has_token(environment: Mapping[str, str], home: Path | None = None) -> bool:
    """Whether Ray would find a token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token."""
    default = (home or Path.home()) / ".ray" / "auth_token"
    return bool(environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")) or default.is_file()


def check_address(address: str) -> None:
    """See that something listens at `address`; Ray itself would try for more than a minute. Raises InputError."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise InputError("--address", f"{address!r} is not an address of a Ray cluster; {ALLOWED}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError("--address", f"nothing answers at {address!r} ({error}); {ALLOWED}") from error


def found_address(find: Callable[[], str | None]) -> str:
    """What `auto` stands for; `find` is how Ray looks for it, and raises ConnectionError. Raises InputError if there is none."""
    try:
        found = find()
    except ConnectionError:
        found = None
    if not found:
        problem = "'auto' finds no Ray cluster: none runs on this machine, and RAY_ADDRESS is not set"
        raise InputError("--address", f"{problem}; start one (ray start --head), or give its host:port")
    return found


class TempDir:
    """A directory for one Ray, removed at the end. Under /tmp: the sockets inside must fit in 107 bytes."""

    def __init__(self) -> None:
        base = os.environ.get("RAY_TMPDIR") or ("/tmp" if os.access("/tmp", os.W_OK) else None)
        self.path = tempfile.mkdtemp(prefix="refit-", dir=base)

    def remove(self) -> None:
        """Delete it with the logs in it; what Ray is still writing is left to the next clean-up of /tmp."""
        shutil.rmtree(self.path, ignore_errors=True)


@contextmanager
def driver_import_path() -> Iterator[None]:
    """While it lasts, child processes import what this one can (plugins beside a config, a script's folder)."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Put this process's SIGTERM handler back afterwards: ray.init replaces it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)
