"""One finished campaign for all tests that only read it, and copies for tests that change it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

import pytest

from tests.orchestrator.tiny_campaign import Finished, run_here, small_config


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    """Return the shared finished campaign, which tests must not change."""
    folder = tmp_path_factory.mktemp("finished")
    config = small_config(folder)
    return Finished(folder, config, run_here(config))


@pytest.fixture
def own_copy(finished, tmp_path) -> Finished:
    """Return a copy of the finished campaign, with its own store, for tests that damage it."""
    shutil.copytree(finished.folder / "runs", tmp_path / "runs")
    config = small_config(tmp_path)
    again = run_here(config, until="score")  # nothing is computed; the run directory now names this store
    assert (again.report.retrained, again.run_dir.name) == (0, finished.run_dir.name)
    return Finished(tmp_path, config, again)


@pytest.fixture
def plugin(tmp_path, monkeypatch) -> Callable[[str, str], str]:
    """Make a module outside the repository importable: plugin(name, source) -> name."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def make(name: str, source: str) -> str:
        (folder / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make
