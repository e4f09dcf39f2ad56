"""Holding a lease for as long as a driver works: renewed in the background, given back at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.storage.lease import Lease

log = logging.getLogger(__name__)


@contextmanager
def held(lease: Lease) -> Iterator[Lease]:
    """Acquire, renew every third of its life, release. Raises LeaseHeld. A lease lost on the way is only logged: correctness never depends on it."""
    lease.acquire(time.time())
    done = threading.Event()
    renewer = threading.Thread(target=_renew, args=(lease, done), name="refit-lease", daemon=True)
    renewer.start()
    try:
        yield lease
    finally:
        done.set()
        renewer.join()
        try:
            lease.release()
        except OSError as error:
            log.warning("lease not given back: %s", error)


def _renew(lease: Lease, done: threading.Event) -> None:
    while not done.wait(lease.ttl_s / 3):
        try:
            if not lease.renew(time.time()):
                log.warning(
                    "another driver took the lease of ledger %s; nothing is lost, work may be done twice", lease.task_id
                )
                return
        except OSError as error:
            log.warning("lease not renewed: %s", error)
