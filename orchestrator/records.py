"""The records of a retrain: RetrainSpec (its identity), Work (a retrain to do), Outcome (its result), LedgerRow (the stored form).

They are plain data: nothing in this module reads or writes files or starts anything.
"""

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
    """The identity of a retrain: it describes what is trained, not why.

    Method, query, k (the number of removed examples), paths, hosts, attempt and time are not part of it.
    `train` is the digest of the train set and its preprocessing. `model`, `recipe` and `numerics` are the identities of these parts, as
    plain JSON values. `edit` is Edit.identity(). `parent` is {spec_id, step} of the checkpoint from which a fine-tune starts.
    """

    train: str
    model: Any
    recipe: Any
    edit: Any
    seed: int
    numerics: Any
    parent: Any = None
    # The part of the JSON text that is the same for all siblings, which are specs that differ only in edit and seed (see `sibling`).
    # Siblings share one copy. In a campaign with a million specs, storing the full text of every spec would take a gigabyte.
    _common: tuple[str, str] | None = field(default=None, init=False, repr=False, compare=False)
    _spec_id: str | None = field(default=None, init=False, repr=False, compare=False)

    def sibling(self, edit: Any, seed: int) -> RetrainSpec:
        """Return the spec of the same training with another edit (given by its identity) and seed."""
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
        """The first 32 hex digits of the SHA-256 of the canonical JSON."""
        if self._spec_id is None:
            object.__setattr__(self, "_spec_id", digest_json(self.json))
        return cast(str, self._spec_id)

    def _common_text(self) -> tuple[str, str]:
        """Return the canonical JSON between edit and seed, and after the seed; its keys are sorted."""
        if self._common is None:
            between = {name: getattr(self, name) for name in ("model", "numerics", "parent", "recipe")}
            texts = f',{canonical_json(between)[1:-1]},"seed":', f",{canonical_json({'train': self.train})[1:]}"
            object.__setattr__(self, "_common", texts)
        return cast(tuple[str, str], self._common)


def digest_json(text: str) -> str:
    """Return the digest of a text that is already canonical JSON."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Work:
    """One retrain to do: its spec and the edit that the spec identifies.

    `keep_steps`: the training steps whose weights are stored (for scoring models and parents). `arm`: the label of the arm whose task is
    trained; an arm is one variant of the campaign's task (orchestrator.experiment.arm). `keep_steps` and `arm` are not part of the
    identity.
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
    """The result of one retrain.

    `outputs` holds float32 arrays by name. Under the name of a measured split are the trained model's outputs on the measured rows of that
    split. Under `<observer>/<key>@<step>` is what an observer recorded during the training (tasks.observer.Observer).

    `status` ok: training was completed. diverged: the loss was NaN or infinite; this is a result and is never retried. quarantined: the
    retrain failed more often than its budget allows, with the last error in `error`.
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
    """One finished retrain as the ledger stores it: outcome, spec and edit, so that the row alone suffices to repeat it."""

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
