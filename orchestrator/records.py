"""RetrainSpec, RemovalRequest, Outcome, LedgerRow: what is asked, and what came of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np

from tasks.data.edits import Edit
from tasks.digests import canonical_json, digest

Status = Literal["ok", "diverged", "quarantined"]


@dataclass(frozen=True)
class RetrainSpec:
    """Identity of a retrain: what is trained, not why. Method, query, k, paths, hosts, attempt and time stay out.

    `train`, `model` and `numerics` are digests or plain JSON; `edit` is Edit.identity(); `parent` is {spec_id, step} of the checkpoint a fine-tune starts from.
    """

    train: str
    model: Any
    recipe: Any
    edit: Any
    seed: int
    numerics: Any
    parent: Any = None

    @cached_property
    def json(self) -> str:
        """Canonical JSON of the spec."""
        return canonical_json({field.name: getattr(self, field.name) for field in fields(self)})

    @cached_property
    def spec_id(self) -> str:
        """sha256 of the canonical JSON, 32 hex digits."""
        return digest_json(self.json)


def digest_json(text: str) -> str:
    """Digest of a text that is canonical JSON already."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Work:
    """One retrain to do: its spec and the edit it names.

    Not identity: `keep_steps`, the updates whose weights are stored (scoring models and parents), and the `arm` of the
    campaign whose task is trained.
    """

    spec: RetrainSpec
    edit: Edit
    keep_steps: tuple[int, ...] = ()
    arm: str = ""

    @property
    def spec_id(self) -> str:
        return self.spec.spec_id


@dataclass(frozen=True)
class RemovalRequest:
    """One cell of a campaign: remove the top `k` of `group` for `query_id` by `method`, in repeat `repeat`; many requests may share a spec."""

    method: str
    query_id: int
    group: str
    k: int
    repeat: int
    spec_id: str


@dataclass(frozen=True)
class Outcome:
    """What one retrain recorded. `outputs` maps a measured split, or `<observer>/<key>@<step>`, to a float32 array.

    status ok: complete; diverged: NaN or infinite loss, a result, never retried; quarantined: failed beyond its budget, `error` says why.
    """

    spec_id: str
    status: Status
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    worker: str = ""
    device: str = ""


@dataclass(frozen=True)
class LedgerRow:
    """One finished retrain as the ledger keeps it: outcome, spec and edit, so that a row alone says how to repeat it."""

    outcome: Outcome
    spec: str  # canonical JSON
    edit: Edit
    attempts: int
    committed_at: str  # ISO 8601, UTC
    code_version: str

    @property
    def spec_id(self) -> str:
        return self.outcome.spec_id


__all__ = [
    "Edit",
    "LedgerRow",
    "Outcome",
    "RemovalRequest",
    "RetrainSpec",
    "Status",
    "Work",
    "canonical_json",
    "digest",
    "digest_json",
]
