"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
import signal
import sys
from itertools import islice

import pytest

# A shell starts background jobs with Ctrl-C ignored, and their children inherit this: tests of Ctrl-C would wait for
# ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Ray gives its workers a niceness of 15. Next to the other test processes they would hardly get a processor: a retrain of
# 0.1 s took up to 40 s. Processes that tests start inherit this value.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's own spelling)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--campaigns", action="store_true", help="also run the tests that take minutes for a whole campaign"
    )


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes of `pytest -n auto`: one more than processors, since tests that start Ray mostly wait."""
    return (os.cpu_count() or 1) + 1


def starts_ray(item: pytest.Item) -> bool:
    """Return whether a test starts its own Ray."""
    return "ray" in item.path.stem.split("_") or item.get_closest_marker("ray") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; `pytest --dist loadfile` keeps this order, and a process takes the next whole file when it is free.

    Files that start Ray mostly wait, so two other files with slow tests stand between two of them: the processors then
    have work while Ray starts. The remaining files come after all of these, because a long file must not start last.
    """
    if items and not items[0].config.getoption("--campaigns"):
        items[:] = [item for item in items if item.get_closest_marker("campaign") is None]
    files = list(dict.fromkeys(item.path for item in items))
    ray_files = {item.path for item in items if starts_ray(item)}
    slow_files = {item.path for item in items if item.get_closest_marker("slow")} - ray_files
    slow = iter([path for path in files if path in slow_files])
    first = [path for file in files if file in ray_files for path in (file, *islice(slow, 2))]
    place = {path: i for i, path in enumerate(dict.fromkeys([*first, *slow, *files]))}
    items.sort(key=lambda item: place[item.path])  # stable, so the tests of a file keep their order


@pytest.fixture(autouse=True)
def _subnormal_floats():
    """Restore IEEE arithmetic after each test, because training flushes denormals to zero in this process (tasks/training.py)."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
