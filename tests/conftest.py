"""What every test may rely on."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def _subnormal_floats():
    """Training in this process flushes denormals to zero (tasks/training.py); the tests after it count on IEEE arithmetic."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
