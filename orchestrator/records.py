"""RetrainSpec, Work, Outcome, LedgerRow: what is asked, and what came of it. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np

from tasks.data.edits import Edit
from tasks.digests import canonical_json, digest

Status = Literal["ok", "diverged", "quarantined"]


@dataclass(frozen=True, slots=True)
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
    # What siblings have in common as text, and the id: a campaign has a million specs, and the text of each would take a gigabyte.
    _common: tuple[str, str] | None = field(default=None, init=False, repr=False, compare=False)
    _spec_id: str | None = field(default=None, init=False, repr=False, compare=False)

    def sibling(self, edit: Any, seed: int) -> RetrainSpec:
        """The same training under another edit (its identity) and seed."""
        other = RetrainSpec(self.train, self.model, self.recipe, edit, seed, self.numerics, self.parent)
        object.__setattr__(other, "_common", self._common_text())
        return other

    @property
    def json(self) -> str:
        """Canonical JSON of the spec."""
        between, after = self._common_text()
        return f'{{"edit":{canonical_json(self.edit)}{between}{canonical_json(self.seed)}{after}'

    @property
    def spec_id(self) -> str:
        """sha256 of the canonical JSON, 32 hex digits."""
        if self._spec_id is None:
            object.__setattr__(self, "_spec_id", digest_json(self.json))
        return cast(str, self._spec_id)

    def _common_text(self) -> tuple[str, str]:
        """The canonical JSON between edit and seed, and after the seed: keys are sorted."""
        if self._common is None:
            between = {name: getattr(self, name) for name in ("model", "numerics", "parent", "recipe")}
            texts = f',{canonical_json(between)[1:-1]},"seed":', f",{canonical_json({'train': self.train})[1:]}"
            object.__setattr__(self, "_common", texts)
        return cast(tuple[str, str], self._common)


def digest_json(text: str) -> str:
    """Digest of a text that is canonical JSON already."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
    "RetrainSpec",
    "Status",
    "Work",
    "canonical_json",
    "digest",
    "digest_json",
]
