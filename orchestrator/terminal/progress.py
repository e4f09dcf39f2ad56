"""Shows the progress of long work: a bar if stderr is a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm

LINE_EVERY_S = 10.0


class Progress:
    """Shows stages and counts on stderr; silent when `quiet`."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False):
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._terminal = bool(getattr(self._stream, "isatty", lambda: False)())
        self._bar: tqdm | None = None
        self._label, self._last_line = "", 0.0

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            tqdm.write(text, file=self._stream)
            self._stream.flush()

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Start the progress `label` at `done` of `total`."""
        self.end()
        self._label, self._last_line = label, time.monotonic()
        if self._quiet:
            return
        if self._terminal:
            self._bar = tqdm(total=total, initial=done, desc=label, file=self._stream, dynamic_ncols=True, unit="")
        elif total > done:
            self.say(f"{label}: {done}/{total}")

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`; without a terminal, at most one line every ten seconds."""
        if self._bar is not None:
            self._bar.n, self._bar.total = done, total
            self._bar.set_postfix_str(note)
        elif not self._quiet and (time.monotonic() - self._last_line >= LINE_EVERY_S):
            self._last_line = time.monotonic()
            self.say(f"{self._label}: {done}/{total}{'  ' + note if note else ''}")

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration(seconds: float) -> str:
    """Format a duration, as in `12 s`, `3 min 5 s` and `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
