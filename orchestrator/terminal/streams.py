"""Standard streams whose reader may leave: a pipe into `head`, a `tee` that died. The work goes on, and its exit code is its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Unheard:
    """A text stream that drops what is written once nobody reads it. `is_heard`: somebody did, the last time it was written to."""

    def __init__(self, stream: TextIO):
        self._stream, self.is_heard = stream, True

    def write(self, text: str) -> int:
        """As of any text stream, without BrokenPipeError."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """As of any text stream, without BrokenPipeError."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._give_up()

    def _give_up(self) -> None:
        """Into the void with what is in the stream's buffer, too: the interpreter flushes it at its end."""
        self.is_heard = False
        void = os.open(os.devnull, os.O_WRONLY)
        os.dup2(void, self._stream.fileno())
        os.close(void)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def unheard_streams() -> Iterator[None]:
    """Standard output and error may lose their readers while the body runs."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _unheard(sys.stdout), _unheard(sys.stderr)
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before


def is_heard() -> bool:
    """Whether somebody still reads standard output and standard error, as far as is known."""
    return all(getattr(stream, "is_heard", True) for stream in (sys.stdout, sys.stderr))


def _unheard(stream: Any) -> Any:
    """None, where the process was started with the stream closed, stays None."""
    return None if stream is None else Unheard(stream)
