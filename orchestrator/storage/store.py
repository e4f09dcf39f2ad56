"""The store that `output` names, which campaigns share: ledger, scores, checkpoints, token cache and run directories."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.checkpoints import CheckpointStore
from orchestrator.storage.diagnoses import DiagnosisStore
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.open import open_blobs
from orchestrator.storage.run_mirror import RunMirror
from orchestrator.storage.scores import ScoreStore
from orchestrator.storage.solutions import SolutionStore
from orchestrator.storage.uris import object_uri
from tasks.digests import digest


class Store:
    """Opens the store at one `output`. Raises InputError if the URI cannot be a store.

    `self.uri` is an absolute path, s3://... or gs://..., and is the form that is recorded. `self.root` is the local
    folder for the token cache and the run directories: the store itself, or a work folder if the store is a bucket.
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
        """The folder of tokenised texts, keyed by content; it may be deleted at any time."""
        return self.root / "cache"

    @cached_property
    def scores(self) -> ScoreStore:
        """The score shards by score id."""
        return ScoreStore(self.blobs)

    @cached_property
    def solutions(self) -> SolutionStore:
        """The solutions for queries, until the scores that need them are complete."""
        return SolutionStore(self.blobs)

    @cached_property
    def checkpoints(self) -> CheckpointStore:
        """The weights by spec id and step."""
        return CheckpointStore(self.blobs)

    @cached_property
    def diagnoses(self) -> DiagnosisStore:
        """The tables of diagnostics by diagnosis id."""
        return DiagnosisStore(self.blobs)

    def ledger(self, task_id: str) -> Ledger:
        """Return the ledger of one task id."""
        return Ledger(self.blobs, task_id)

    def run_path(self, name: str) -> Path:
        """Return the path of the run directory of this name. If the store is a bucket, it is the path of the local copy (see RunMirror)."""
        return self.root / name

    def mirror(self, path: Path) -> RunMirror:
        """Return the mirror of the run directory at `path`; it does nothing for a local store or a directory elsewhere."""
        is_ours = path.absolute().parent == self.root
        is_kept = is_ours and not isinstance(self.blobs, LocalBlobs)
        return RunMirror(self.blobs if is_kept else None, path.name, path)


def work_folder(uri: str) -> Path:
    """Return the local work folder for a bucket: refit/<digest of the URI> under XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "refit" / digest(uri)[:16]
