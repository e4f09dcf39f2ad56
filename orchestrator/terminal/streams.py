"""Standard streams that may lose their reader, such as a pipe into `head`, without ending the program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class UnbrokenStream:
    """A text stream that discards its output once its reader is gone. `has_reader`: no write has failed so far."""

    def __init__(self, stream: TextIO):
        self._stream, self.has_reader = stream, True

    def write(self, text: str) -> int:
        """Write without raising BrokenPipeError."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        """Flush without raising BrokenPipeError."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        """Redirect the file descriptor to /dev/null, because the interpreter flushes the stream's buffer at exit."""
        self.has_reader = False
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def unbroken_streams() -> Iterator[None]:
    """Let standard output and standard error lose their readers while the body runs."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _unbroken(sys.stdout), _unbroken(sys.stderr)
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before


def have_readers() -> bool:
    """Return whether standard output and standard error still have readers, as far as earlier writes have shown."""
    return all(getattr(stream, "has_reader", True) for stream in (sys.stdout, sys.stderr))


def _unbroken(stream: Any) -> Any:
    """Wrap a stream; it is None if the process was started with the stream closed."""
    return None if stream is None else UnbrokenStream(stream)
