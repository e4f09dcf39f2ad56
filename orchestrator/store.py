"""The store under `output`, shared by campaigns: ledger, scores, checkpoints, token cache, run directories."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from orchestrator.storage.blobs import open_blobs
from orchestrator.storage.checkpoints import CheckpointStore
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.scores import ScoreStore


class Store:
    """Opens what lies under one `output`. Raises InputError for a URI that cannot be a store."""

    def __init__(self, uri: str, where: object):
        self.uri = uri
        self.blobs = open_blobs(uri, where)
        self.root: Path = self.blobs.root  # type: ignore[attr-defined]  # only local stores so far

    @property
    def cache_dir(self) -> Path:
        """Tokenised texts, keyed by content; safe to delete."""
        return self.root / "cache"

    @cached_property
    def scores(self) -> ScoreStore:
        """Score shards by score id."""
        return ScoreStore(self.blobs)

    @cached_property
    def checkpoints(self) -> CheckpointStore:
        """Weights by spec id and step."""
        return CheckpointStore(self.blobs)

    def ledger(self, task_id: str) -> Ledger:
        """The ledger of one task id."""
        return Ledger(self.blobs, task_id)

    def run_path(self, name: str) -> Path:
        """Where the run directory of this name lies."""
        return self.root / name
