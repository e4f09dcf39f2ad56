"""The store under `output`, shared by campaigns: ledger, scores, checkpoints, token cache, run directories."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.checkpoints import CheckpointStore
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.open import open_blobs
from orchestrator.storage.run_mirror import RunMirror
from orchestrator.storage.scores import ScoreStore
from orchestrator.storage.uris import object_uri
from tasks.digests import digest


class Store:
    """Opens what lies under one `output`. Raises InputError for a URI that cannot be a store.

    `uri`: as recorded: an absolute path, s3://... or gs://...; `root`: the local folder of token cache and run
    directories, the store itself or a work folder of this machine.
    """

    def __init__(self, uri: str, where: object):
        self.blobs = open_blobs(uri, where)
        if isinstance(self.blobs, LocalBlobs):
            self.root: Path = self.blobs.root
            self.uri = str(self.root)
        else:
            self.uri = object_uri(uri, where)
            self.root = work_folder(self.uri)

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
        """Where the run directory of this name lies, or its mirror."""
        return self.root / name

    def mirror(self, path: Path) -> RunMirror:
        """What keeps the run directory at `path` in the store: does nothing for a local store or a directory elsewhere."""
        is_ours = path.absolute().parent == self.root
        is_kept = is_ours and not isinstance(self.blobs, LocalBlobs)
        return RunMirror(self.blobs if is_kept else None, path.name, path)


def work_folder(uri: str) -> Path:
    """The folder of this machine for a store elsewhere: XDG_CACHE_HOME or ~/.cache, refit/<digest of the URI>."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "refit" / digest(uri)[:16]
