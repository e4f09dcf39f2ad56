"""Holds a lease while a driver works: acquires it, renews it in a background thread and releases it at the end."""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.storage.lease import Lease, LeaseHeld
from orchestrator.storage.refusals import describe_os_error, is_permanent
from tasks.errors import InputError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0  # mean interval at which a waiting driver tries the lease; each pause is 0.5 to 1.5 times as long
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
    """Acquire the lease, renew it every third of its lifetime while the body runs, and release it.

    With `wait`, a lease that another driver holds is waited for until that driver releases it or it expires. `say` is
    called once with a message that names the holder, and the wait ends when `stop` returns a true value. If another
    driver takes the lease while the body runs, `lost` is called with the reason, from the renewing thread: continuing
    would do work twice but harms no result. A lease that has expired or vanished without a new holder is acquired again.

    Raises LeaseHeld, and InputError if the store cannot be written.
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
            log.warning("the lease could not be released; it expires within %g s: %s", lease.ttl_s, error)


def _acquire(
    lease: Lease, wait: bool, say: Callable[[str], object], stop: Callable[[], object], look_every_s: float
) -> None:
    announced: LeaseHeld | None = None
    while True:
        try:
            lease.acquire(time.time())
            return
        except LeaseHeld as held_by:
            if not wait or stop():
                raise
            if announced is None:
                say(f"{held_by}; waiting until it is released or expires")
            announced = held_by
        except OSError as error:
            if is_permanent(error):
                raise InputError(lease.url, f"cannot be written: {describe_os_error(error)}") from None
            if error.errno == errno.EACCES:  # a bucket refused access; is_permanent covers file systems only
                raise InputError(lease.url, f"cannot be written: {error.strerror}") from None
            if announced is None:
                raise
            log.warning("the lease could not be read, trying again: %s", error)
        _pause(look_every_s * random.uniform(0.5, 1.5), stop)
        if stop():
            raise announced


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
            log.warning("lease lost: %s; no result is lost, but work may be done twice", held_by)
            lost(f"lease lost: {held_by}")
            return
        except OSError as error:
            log.warning("the lease could not be renewed, trying again: %s", error)
