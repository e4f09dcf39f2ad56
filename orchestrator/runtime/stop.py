"""Requests to stop a campaign, made by a signal, a budget, a deadline or a lost lease."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """A request to stop the campaign, with its reason; the first reason is kept."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.n_signals = 0
        self._interruptible = False

    def request(self, reason: str) -> None:
        """Request a stop."""
        self.reason = self.reason or reason

    def is_signalled(self) -> bool:
        """Return whether a signal requested the stop; the program should then end within seconds."""
        return self.n_signals > 0

    @contextmanager
    def interruptible(self, yes: bool) -> Iterator[None]:
        """If `yes`, let the first signal also raise KeyboardInterrupt while the body runs, to interrupt a long training."""
        self._interruptible = yes
        try:
            yield
        finally:
            self._interruptible = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one requests a stop, the second one raises KeyboardInterrupt anywhere."""
        self.n_signals += 1
        self.request(signal.Signals(number).name)
        if self._interruptible or self.n_signals > 1:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals(stop: StopSignal) -> Iterator[StopSignal]:
    """Let Ctrl-C and SIGTERM request a stop while the body runs. Outside the main thread this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.on_signal) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
