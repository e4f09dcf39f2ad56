"""What every test may rely on."""

from __future__ import annotations

import signal
import sys

import pytest

# A shell starts background jobs with Ctrl-C ignored, and their children inherit it: tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _subnormal_floats():
    """Training in this process flushes denormals to zero (tasks/training.py); the tests after it count on IEEE arithmetic."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
