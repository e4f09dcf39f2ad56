"""Prepares the environment of Ray: token, settings, temporary directory and the driver's import path. Imports no ray."""

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
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise every worker without a GPU prints a deprecation warning
}


def secure(environment: MutableMapping[str, str], *, make_token: bool, home: Path | None = None) -> None:
    """Turn token authentication on unless the user has chosen a mode; `make_token`: create a token if there is none.

    The token exists only in the environment of this process and its children and is not written to disk.
    """
    for name, value in QUIET.items():
        environment.setdefault(name, value)
    environment.setdefault("RAY_AUTH_MODE", "token")
    if make_token and not has_token(environment, home):
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def has_token(environment: Mapping[str, str], home: Path | None = None) -> bool:
    """Return whether Ray would find a token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token."""
    default = (home or Path.home()) / ".ray" / "auth_token"
    return bool(environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")) or default.is_file()


def check_address(address: str) -> None:
    """Check that a server listens at `address`, since Ray itself would try for more than a minute. Raises InputError."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise InputError("--address", f"{address!r} is not an address of a Ray cluster; {ALLOWED}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError("--address", f"nothing answers at {address!r} ({error}); {ALLOWED}") from error


def found_address(find: Callable[[], str | None]) -> str:
    """Return the address that `auto` means. Raises InputError if there is none.

    `find` is Ray's own search, which raises ConnectionError if it finds no cluster.
    """
    try:
        found = find()
    except ConnectionError:
        found = None
    if not found:
        problem = "'auto' finds no Ray cluster: none runs on this machine, and RAY_ADDRESS is not set"
        raise InputError("--address", f"{problem}; start one (ray start --head), or give its host:port")
    return found


class TempDir:
    """A temporary directory for one Ray. It is under /tmp, because the paths of its sockets may have at most 107 bytes."""

    def __init__(self) -> None:
        base = os.environ.get("RAY_TMPDIR") or ("/tmp" if os.access("/tmp", os.W_OK) else None)
        self.path = tempfile.mkdtemp(prefix="refit-", dir=base)

    def remove(self) -> None:
        """Delete the directory with Ray's logs. Files that Ray is still writing may stay behind."""
        shutil.rmtree(self.path, ignore_errors=True)


@contextmanager
def driver_import_path() -> Iterator[None]:
    """Let child processes import what this process can, such as plugins next to a config, while the body runs."""
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
    """Restore this process's SIGTERM handler after the body, since ray.init replaces it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)
