"""The end of a command's process, after which no native code of it runs any more."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def exit_with_code_of(command: Callable[[], int]) -> NoReturn:
    """Call `command` and end this process with the exit code that it returns.

    Exit handlers that are registered while the command runs are called, and both standard streams are flushed. The destructors of native libraries do
    not run: Arrow's thread pools abort the process there, now and then, when a pool thread has not ended yet
    (apache/arrow issues 34314 and 39862), and a command that succeeded would report SIGABRT.
    """
    codes = [1]
    atexit.register(lambda: _end_process(codes[0]))  # the handler that is registered first runs last
    try:
        codes[0] = command()
    except SystemExit as request:  # argparse prints its message and raises this
        codes[0] = request.code if isinstance(request.code, int) else int(request.code is not None)
        raise
    sys.exit(codes[0])


def _end_process(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # the reader is gone, or the stream is closed
            pass
    os._exit(code)
