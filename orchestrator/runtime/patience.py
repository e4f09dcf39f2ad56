"""Retries store operations while the store is unavailable, so that an outage of minutes costs only time."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from orchestrator.runtime.clock import Clock, SystemClock
from orchestrator.scheduling.policies import Backoff
from orchestrator.storage.blobs import StoreAwayError
from orchestrator.storage.refusals import is_permanent, refused

log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0  # how often `meanwhile` is called during a wait, and so the longest delay of a stop signal

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def patient(
    function: Callable[Arguments, Result],
    *,
    backoff: Backoff = Backoff(),  # noqa: B008  (frozen)
    clock: Clock = SystemClock(),  # noqa: B008  (stateless)
    meanwhile: Callable[[], object] = lambda: None,
) -> Callable[Arguments, Result]:
    """Wrap `function`, which reads or writes a store and is safe to repeat, so that it is retried during an outage.

    `meanwhile` is called at least once a second between the attempts, and may raise to end the wait. The wrapped function
    raises StoreAwayError when the backoff is exhausted, and StoreRefusesError at once for a wrong path or a missing
    permission. Exceptions that are no outage pass unchanged: a missing file, the time limit of a retrain, Ctrl-C.
    """

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        n_failures = 0
        while True:
            try:
                return function(*args, **kwargs)
            except OSError as error:
                if is_permanent(error):
                    raise refused(error) from error
                if not _is_away(error):
                    raise
                n_failures += 1
                delay_s = backoff.delay_s(n_failures)
                if delay_s is None:
                    raise _away(error) from error
                log.warning("store: %s: %s; next attempt in %.1f s", type(error).__name__, error, delay_s)
            _wait(delay_s, clock, meanwhile)

    return call


def _wait(delay_s: float, clock: Clock, meanwhile: Callable[[], object]) -> None:
    while delay_s > 0:
        meanwhile()
        clock.sleep(min(delay_s, LOOK_EVERY_S))
        delay_s -= LOOK_EVERY_S


def is_alarm(error: OSError) -> bool:
    """Return whether this is the TimeoutError of a retrain's time limit, and not one of a system call."""
    return isinstance(error, TimeoutError) and error.errno is None


def _is_away(error: OSError) -> bool:
    return not is_alarm(error) and not isinstance(error, FileNotFoundError)


def _away(error: OSError) -> StoreAwayError:
    if isinstance(error, StoreAwayError):
        return error
    return StoreAwayError(error.errno or errno.EIO, error.strerror or str(error), error.filename or "store")
