"""An encoder campaign with a cached trunk, length groups and LiSSA is killed twice and resumed to the same bytes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from benchmarks.harness import kill, ledger_rows, parts, refit, start, wait_until
from tests.fakes import tiny_bert
from tests.orchestrator.tiny_campaign import result_bytes, write_config

HERE = ("--yes", "--address", "local")
LISSA = {"name": "lissa", "damping": 0.1, "scale": 20.0, "depth": 40, "batch_size": 8}
CHANGES = {
    "methods": [
        {"name": "influence_function", "queries_at_once": 1, "solver": LISSA},
        {"name": "random"},
    ],
    "compute.frozen_trunk": "cached",
    "compute.length_group_cost": 4,
    "deletion.k": [2],
    "repeats.count": 4,
    "queries": {"split": "test", "count": 3},
}


def killed_when(ready, folder: Path, log: Path) -> None:
    """Run the campaign of `folder`, and kill its driver once `ready` is true."""
    process = start("run", folder / "config.yaml", *HERE, log=log)
    assert wait_until(ready, 120, process), log.read_text()
    kill(process.pid)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_campaign_killed_while_solving_and_while_retraining_ends_in_the_same_bytes(tmp_path):
    bert = tiny_bert(tmp_path)
    model = {
        "name": "encoder",
        "pretrained": str(bert),
        "max_length": 16,
        "dropout": 0.0,
        "freeze": ["bert.embeddings", "bert.encoder.layer.0"],
    }
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    for folder in (quiet, killed):
        folder.mkdir()
        write_config(folder, {"task.model": model, **CHANGES})
    refit("run", quiet / "config.yaml", *HERE)

    store, log = killed / "runs", tmp_path / "log"
    killed_when(lambda: list(store.glob("scores/*/solutions-*")), killed, log)
    killed_when(lambda: len(parts(store)) >= 2, killed, log)
    before = {row["spec_id"] for row in ledger_rows(store)}
    refit("run", killed / "config.yaml", *HERE)
    after = ledger_rows(store)
    assert len({row["spec_id"] for row in after}) == len(after) > len(before) >= 2
    (one,), (other,) = (folder.glob("runs/small-*") for folder in (quiet, killed))
    assert result_bytes(one) == result_bytes(other)
