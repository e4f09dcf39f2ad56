"""How a campaign is asked to stop: by a signal, a budget, a deadline."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """A flag that says why the campaign should stop; the first reason stays."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.n_signals = 0
        self._interruptible = False

    def request(self, reason: str) -> None:
        """Ask for a stop."""
        self.reason = self.reason or reason

    def is_signalled(self) -> bool:
        """Whether a signal asked for it: then somebody waits for the program to end within seconds."""
        return self.n_signals > 0

    @contextmanager
    def interruptible(self, yes: bool) -> Iterator[None]:
        """While the body runs (and if `yes`), a first signal also raises KeyboardInterrupt: a long training stops."""
        self._interruptible = yes
        try:
            yield
        finally:
            self._interruptible = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: the first asks for a stop, the second raises KeyboardInterrupt wherever the program is."""
        self.n_signals += 1
        self.request(signal.Signals(number).name)
        if self._interruptible or self.n_signals > 1:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals(stop: StopSignal) -> Iterator[StopSignal]:
    """Ctrl-C and SIGTERM ask for a stop while the body runs; the old handlers come back after. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.on_signal) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
