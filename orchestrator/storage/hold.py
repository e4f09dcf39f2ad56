"""Holding a lease for as long as a driver works: waited for, renewed in the background, given back at the end."""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.storage.lease import Lease, LeaseHeld
from orchestrator.storage.refusals import is_permanent, told
from tasks.errors import InputError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0  # how often a waiting driver looks whether the lease is free, give or take half
_STOP_EVERY_S = 0.2


@contextmanager
def held(
    lease: Lease,
    wait: bool = False,
    say: Callable[[str], object] = log.info,
    stop: Callable[[], object] = lambda: False,
    lost: Callable[[str], object] = lambda reason: None,
    look_every_s: float = LOOK_EVERY_S,
) -> Iterator[Lease]:
    """Acquire, renew every third of its life, release.

    `wait`: until the holder gives it back or it expires; `say` is told once who holds it, and the wait ends when `stop`
    returns something true. `lost` is told, from another thread, who took the lease meanwhile: to go on would be to pay twice,
    and harms no result. One that expired or vanished, and that nobody has, is taken again.

    Raises LeaseHeld, InputError if the store cannot be written.
    """
    _acquire(lease, wait, say, stop, look_every_s)
    done = threading.Event()
    renewer = threading.Thread(target=_renew, args=(lease, done, lost), name="refit-lease", daemon=True)
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


def _acquire(
    lease: Lease, wait: bool, say: Callable[[str], object], stop: Callable[[], object], look_every_s: float
) -> None:
    said: LeaseHeld | None = None
    while True:
        try:
            lease.acquire(time.time())
            return
        except LeaseHeld as held_by:
            if not wait or stop():
                raise
            if said is None:
                say(f"{held_by}; waiting for it")
            said = held_by
        except OSError as error:
            if is_permanent(error):
                raise InputError(lease.url, f"cannot be written: {told(error)}") from None
            if error.errno == errno.EACCES:  # of a bucket
                raise InputError(lease.url, f"cannot be written: {error.strerror}") from None
            if said is None:
                raise
            log.warning("lease not looked at: %s", error)  # the store is away: a waiting driver has time
        _pause(look_every_s * random.uniform(0.5, 1.5), stop)
        if stop():
            raise said


def _pause(seconds: float, stop: Callable[[], object]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stop():
        time.sleep(min(left, _STOP_EVERY_S))


def _renew(lease: Lease, done: threading.Event, lost: Callable[[str], object]) -> None:
    while not done.wait(lease.ttl_s / 3):
        try:
            if not lease.renew(time.time()):
                lease.acquire(time.time())
        except LeaseHeld as held_by:
            log.warning("lease lost: %s; nothing else is lost, work may be done twice", held_by)
            lost(f"lease lost: {held_by}")
            return
        except OSError as error:
            log.warning("lease not renewed: %s", error)
