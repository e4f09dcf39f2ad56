"""Waiting for a store that is away: an outage of minutes is nobody's fault, and costs nothing but time."""

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
LOOK_EVERY_S = 1.0  # how often `meanwhile` is asked during a wait: a stop signal is heeded within this time

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def patient(
    function: Callable[Arguments, Result],
    *,
    backoff: Backoff = Backoff(),  # noqa: B008  (frozen)
    clock: Clock = SystemClock(),  # noqa: B008  (stateless)
    meanwhile: Callable[[], object] = lambda: None,
) -> Callable[Arguments, Result]:
    """`function`, which reads or writes a store and may be called again: while the store is away it waits and tries again.

    `meanwhile` is called at least once a second while it waits, and may raise to end the wait. Raises StoreAwayError when
    the backoff gives up, and StoreRefusesError at once for a path that is wrong or forbidden. What is no outage passes
    through at once: a missing file, the time limit of a retrain, Ctrl-C.
    """

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """One call, or as many as it takes."""
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
                log.warning("store: %s: %s; next try in %.1f s", type(error).__name__, error, delay_s)
            _wait(delay_s, clock, meanwhile)

    return call


def _wait(delay_s: float, clock: Clock, meanwhile: Callable[[], object]) -> None:
    while delay_s > 0:
        meanwhile()
        clock.sleep(min(delay_s, LOOK_EVERY_S))
        delay_s -= LOOK_EVERY_S


def is_alarm(error: OSError) -> bool:
    """Whether this is the alarm of a retrain's time limit: a TimeoutError, too, but no system call's."""
    return isinstance(error, TimeoutError) and error.errno is None


def _is_away(error: OSError) -> bool:
    return not is_alarm(error) and not isinstance(error, FileNotFoundError)


def _away(error: OSError) -> StoreAwayError:
    if isinstance(error, StoreAwayError):
        return error
    return StoreAwayError(error.errno or errno.EIO, error.strerror or str(error), error.filename or "store")
