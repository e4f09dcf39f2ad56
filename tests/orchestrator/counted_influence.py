"""An influence function that logs for which queries it solves, and can fail at one or wait for a second process: for tests of shared solving."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from influence.methods.influence_function import InfluenceFunction
from tasks.errors import RefitError

# Holds the diary, the file `fail_at` with the row of the query at which solving fails, and the file `wait` if solving waits
# until two processes have begun.
FOLDER = "REFIT_TEST_SOLVED"
METHOD: dict[str, Any] = {
    "name": "tests.orchestrator.counted_influence:Counted",
    "as": "counted",
    "solver": {"name": "lissa", "damping": 0.1, "scale": 20.0, "depth": 4, "batch_size": 8},
}
SHARED: dict[str, Any] = {
    "plugins": ["tests.orchestrator.counted_influence"],
    "task.n_train": 48,
    "task.n_queries": 8,
    "queries": {"split": "test", "ids": [0, 1, 2, 3, 4]},
    "methods": [{**METHOD, "queries_at_once": 2}, {"name": "random"}],
}


class Counted(InfluenceFunction):
    """Influence function whose queries are counted."""

    name: ClassVar[str] = "counted"

    def query_losses(self, task: Any, network: Any, split: str, rows: np.ndarray, labels: np.ndarray) -> Any:
        """Log the rows of the queries; the solver asks for their losses twice: to check them, and for their gradients."""
        folder = Path(os.environ[FOLDER])
        with open(folder / "diary", "ab", buffering=0) as diary:
            diary.write(f"{' '.join(map(str, rows))} by {os.getpid()}\n".encode())
        while (folder / "wait").exists() and len(workers(folder)) < 2:
            time.sleep(0.02)
        fail_at = folder / "fail_at"
        if fail_at.exists() and int(fail_at.read_text()) in rows:
            raise RefitError("solving failed, as the test asks")
        return super().query_losses(task, network, split, rows, labels)


def solved(folder: Path) -> dict[int, int]:
    """Return row of a query -> how often it was solved for."""
    counts = Counter(int(row) for line in _lines(folder) for row in line.partition(" by ")[0].split())
    return {row: -(-count // 2) for row, count in sorted(counts.items())}


def workers(folder: Path) -> set[str]:
    """Return the processes that solved."""
    return {line.partition(" by ")[2] for line in _lines(folder)}


def _lines(folder: Path) -> list[str]:
    path = folder / "diary"
    return path.read_text().splitlines() if path.exists() else []
