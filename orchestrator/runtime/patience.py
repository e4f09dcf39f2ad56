"""Waiting for a store that is away: an outage of minutes is nobody's fault, and costs nothing but time."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from orchestrator.runtime.clock import Clock, SystemClock
from orchestrator.scheduling.policies import Backoff
from orchestrator.storage.blobs import StoreAwayError

log = logging.getLogger(__name__)

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

    `meanwhile` is called before each wait and may raise to end it. Raises StoreAwayError when the backoff gives up; what
    is no outage passes through at once: a missing file, the time limit, Ctrl-C.
    """

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """One call, or as many as it takes."""
        n_failures = 0
        while True:
            try:
                return function(*args, **kwargs)
            except OSError as error:
                if not _is_away(error):
                    raise
                n_failures += 1
                delay_s = backoff.delay_s(n_failures)
                if delay_s is None:
                    raise _away(error) from error
                log.warning("store: %s: %s; next try in %.1f s", type(error).__name__, error, delay_s)
            meanwhile()
            clock.sleep(delay_s)

    return call


def is_alarm(error: OSError) -> bool:
    """Whether this is the alarm of a retrain's time limit: a TimeoutError, too, but no system call's."""
    return isinstance(error, TimeoutError) and error.errno is None


def _is_away(error: OSError) -> bool:
    return not is_alarm(error) and not isinstance(error, FileNotFoundError)


def _away(error: OSError) -> StoreAwayError:
    if isinstance(error, StoreAwayError):
        return error
    return StoreAwayError(error.errno or errno.EIO, error.strerror or str(error), error.filename or "store")
