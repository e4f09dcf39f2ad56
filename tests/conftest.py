"""What every test may rely on."""

from __future__ import annotations

import signal
import sys

import pytest

# A shell starts background jobs with Ctrl-C ignored, and their children inherit it: tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


def starts_ray(item: pytest.Item) -> bool:
    """Whether a test starts a Ray of its own: those of one machine run one after the other, in one process."""
    return "ray" in item.path.stem.split("_") or item.get_closest_marker("ray") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the tests out among the processes of `pytest -n`: by file, so that a file's fixtures are made once.

    All tests that start Ray are one group. It comes first, then come the files with slow tests: what takes long and cannot be cut
    must not begin last.
    """
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not starts_ray(item), item.path not in slow_files))  # a stable sort: files stay whole
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if starts_ray(item) else str(item.path)))


@pytest.fixture(autouse=True)
def _subnormal_floats():
    """Training in this process flushes denormals to zero (tasks/training.py); the tests after it count on IEEE arithmetic."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
