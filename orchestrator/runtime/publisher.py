"""Writes ledger parts in a background thread, so that training continues, and retries failed writes after a pause."""

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
HURRIED = Backoff(first_s=0.5, longest_s=1.0, limit=5)  # after a stop signal: six attempts within five seconds
MakeRows = Callable[[Sequence[str]], Sequence[LedgerRow]]


class LedgerUnwritableError(RefitError):
    """The ledger could not be written before the backoff was exhausted, or its path or permissions are wrong."""

    is_resumable = True


@dataclass
class _Part:
    spec_ids: tuple[str, ...]
    start_at: float
    future: Future[object] | None = None


class Publisher:
    """Writes one part at a time. `write` makes rows durable or raises.

    An OSError (full disk, unavailable store) is retried, unless it means a wrong path or a missing permission.
    `make_rows` is called in the driver's thread right before a write starts. Once `hurried` returns true, because a
    signal has requested the end of the program, a failed write is retried at once and for at most five seconds more.
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
        """Start to write the rows of these specs; if the last write failed, after the backoff's pause."""
        assert self._part is None, "one write at a time"
        self._part = _Part(spec_ids, self._clock.now() + self._wait_s)
        self._start_if_due(self._part)

    def poll(self) -> list[Published | PublishFailed]:
        """Return the result of the write in a list; [] while it has not ended.

        Raises LedgerUnwritableError when the backoff is exhausted, and any exception of `write` other than OSError.
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
        """Return once the write has ended or its pause is over, or after `timeout_s`."""
        part = self._part
        if part is not None and part.future is not None:
            wait_for([part.future], timeout_s)
        else:
            due_s = part.start_at - self._clock.now() if part else timeout_s
            self._clock.sleep(min(timeout_s, max(due_s, 0.0)))

    def close(self) -> None:
        """Wait for a write in progress to end, and start no other."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _hurry(self, part: _Part) -> None:
        """At the first call after a stop signal, end the pause and replace the backoff by the short one."""
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
        log.warning(
            "ledger: %d rows could not be written (%s); next attempt in %.1f s", len(part.spec_ids), error, delay_s
        )
        self._wait_s = delay_s
        return PublishFailed(part.spec_ids, str(error))

    def _given_up(self, part: _Part, error: OSError) -> str:
        lost = f"{len(part.spec_ids)} finished retrains are not in the ledger and will be repeated"
        if is_permanent(error):
            return (
                f"ledger: it cannot be written: {describe_os_error(error)}; correct this and repeat the command; {lost}"
            )
        what = f"{self._n_failures} writes in a row failed, the last with {type(error).__name__}: {error}"
        return f"ledger: {'stopped while ' if self._hurries else ''}{what}; {lost}"
