"""Settings and fixtures of all tests."""

from __future__ import annotations

import signal
import sys

import pytest

# A shell starts background jobs with Ctrl-C ignored, and their children inherit this: tests of Ctrl-C would wait for
# ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--campaigns", action="store_true", help="also run the tests that take minutes for a whole campaign"
    )


def starts_ray(item: pytest.Item) -> bool:
    """Return whether a test starts its own Ray; all such tests run one after the other, in one process."""
    return "ray" in item.path.stem.split("_") or item.get_closest_marker("ray") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Distribute the tests over the processes of `pytest -n` by file, so that the fixtures of a file are made once.

    All tests that start Ray are one group, which comes first; the files with slow tests follow. Long work that cannot
    be divided must not start last.
    """
    if items and not items[0].config.getoption("--campaigns"):
        items[:] = [item for item in items if item.get_closest_marker("campaign") is None]
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not starts_ray(item), item.path not in slow_files))  # stable, so files stay whole
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if starts_ray(item) else str(item.path)))


@pytest.fixture(autouse=True)
def _subnormal_floats():
    """Restore IEEE arithmetic after each test, because training flushes denormals to zero in this process (tasks/training.py)."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
