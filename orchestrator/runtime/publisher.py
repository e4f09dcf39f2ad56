"""Writes ledger parts in one background thread, so that training goes on; failed writes wait before the next try."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass

from orchestrator.records import LedgerRow
from orchestrator.runtime.clock import Clock
from orchestrator.scheduling.events import Published, PublishFailed
from orchestrator.scheduling.policies import Backoff
from orchestrator.storage.refusals import describe_os_error, is_permanent
from tasks.errors import RefitError

log = logging.getLogger(__name__)

WriteRows = Callable[[Sequence[LedgerRow]], object]
HURRIED = Backoff(first_s=0.5, longest_s=1.0, limit=5)  # after a stop signal: six tries within five seconds
MakeRows = Callable[[Sequence[str]], Sequence[LedgerRow]]


class LedgerUnwritableError(RefitError):
    """The ledger could not be written for as long as the backoff allows, or refuses to be written at all."""

    is_resumable = True


@dataclass
class _Part:
    spec_ids: tuple[str, ...]
    start_at: float
    future: Future[object] | None = None


class Publisher:
    """One write at a time. `write` makes rows durable or raises: OSError (full disk, store away) is tried again.

    A path that is wrong or forbidden is not tried again. `make_rows` is called in the driver's thread right before the
    write starts. Once `hurried` returns true (somebody waits for the program to end), a write that has failed is tried
    at once and then for five seconds more.
    """

    def __init__(
        self,
        write: WriteRows,
        make_rows: MakeRows,
        backoff: Backoff,
        clock: Clock,
        hurried: Callable[[], bool] = lambda: False,
    ):
        self._write, self._make_rows, self._backoff, self._clock = write, make_rows, backoff, clock
        self._is_hurried, self._hurries = hurried, False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._part: _Part | None = None
        self._n_failures = 0
        self._wait_s = 0.0

    def publish(self, spec_ids: tuple[str, ...]) -> None:
        """Write these specs' rows, after the waiting time if the last write failed."""
        assert self._part is None, "one write at a time"
        self._part = _Part(spec_ids, self._clock.now() + self._wait_s)
        self._start_if_due(self._part)

    def poll(self) -> list[Published | PublishFailed]:
        """How the write ended, once it has.

        Raises LedgerUnwritableError when the backoff gives up, and whatever `write` raised besides OSError.
        """
        part = self._part
        if part is None:
            return []
        self._hurry(part)
        self._start_if_due(part)
        if part.future is None or not part.future.done():
            return []
        self._part = None
        return [self._ended(part, part.future)]

    def wait(self, timeout_s: float) -> None:
        """Return once the write has ended or may start, or after `timeout_s`."""
        part = self._part
        if part is not None and part.future is not None:
            wait_for([part.future], timeout_s)
        else:
            due_s = part.start_at - self._clock.now() if part else timeout_s
            self._clock.sleep(min(timeout_s, max(due_s, 0.0)))

    def close(self) -> None:
        """Let a write in progress end; start none."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _hurry(self, part: _Part) -> None:
        """At the first look after a stop signal: start now what waits, and count failures anew with little patience."""
        if not self._hurries and self._is_hurried():
            self._hurries, self._backoff, self._n_failures = True, HURRIED, 0
            part.start_at = self._clock.now()

    def _start_if_due(self, part: _Part) -> None:
        if part.future is None and self._clock.now() >= part.start_at:
            part.future = self._pool.submit(self._write, self._make_rows(part.spec_ids))

    def _ended(self, part: _Part, future: Future[object]) -> Published | PublishFailed:
        try:
            future.result()
        except OSError as error:
            return self._failed(part, error)
        self._n_failures, self._wait_s = 0, 0.0
        return Published(part.spec_ids)

    def _failed(self, part: _Part, error: OSError) -> PublishFailed:
        self._n_failures += 1
        delay_s = None if is_permanent(error) else self._backoff.delay_s(self._n_failures)
        if delay_s is None:
            raise LedgerUnwritableError(self._given_up(part, error)) from error
        log.warning("ledger: %d rows not written (%s); next try in %.1f s", len(part.spec_ids), error, delay_s)
        self._wait_s = delay_s
        return PublishFailed(part.spec_ids, str(error))

    def _given_up(self, part: _Part, error: OSError) -> str:
        lost = f"{len(part.spec_ids)} finished retrains are not in it and will be repeated"
        if is_permanent(error):
            return (
                f"ledger: it cannot be written: {describe_os_error(error)}; correct this and repeat the command; {lost}"
            )
        what = f"{self._n_failures} writes in a row failed, the last with {type(error).__name__}: {error}"
        return f"ledger: {'stopped while ' if self._hurries else ''}{what}; {lost}"
