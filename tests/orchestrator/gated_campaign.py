"""A campaign with a gate half-way, and its undisturbed tables: for tests that disturb a whole run."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from orchestrator.runtime.clock import SystemClock
from tests.orchestrator.gated_recipe import FOLDER, trainings
from tests.orchestrator.tiny_campaign import result_bytes, run_here, small_config

RECIPE = {"name": "tests.orchestrator.gated_recipe:Gated", "epochs": 1, "batch_size": 10, "learning_rate": 0.05}
GATED: dict[str, Any] = {
    "plugins": ["tests.orchestrator.gated_recipe"],
    "task.recipe": RECIPE,
    "scores.checkpoints": [1],
    "methods": [{"name": "tracin_last"}, {"name": "random"}],
}
N_TRAININGS = 25  # including the scoring model


@cache
def quiet_tables() -> dict[str, bytes]:
    """Return results/*.csv of the campaign, run in this process to a local store."""
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setenv(FOLDER, name)
        open_gate(folder)
        tables = result_bytes(run_here(small_config(folder, **GATED)).run_dir)
        assert len(trainings(folder)) == N_TRAININGS
        return tables


def open_gate(folder: Path) -> None:
    """Let all trainings continue."""
    (folder / "open").touch()


def repeated(folder: Path) -> dict[str, int]:
    """Return the trainings that were started more than once."""
    return {key: count for key, count in Counter(trainings(folder)).items() if count > 1}


class HourEach(SystemClock):
    """A clock that advances by an hour whenever a training starts, and at no other time."""

    def __init__(self, folder: Path):
        self._folder, self._begun = folder, datetime.now(UTC)

    def now(self) -> float:
        return 3600.0 * len(trainings(self._folder))

    def utc(self) -> datetime:
        return self._begun + timedelta(seconds=self.now())
