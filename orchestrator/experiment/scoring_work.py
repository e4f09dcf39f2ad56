"""The retrains whose weights are scored, and the groups that make one score matrix per method together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.records import Work


@dataclass(frozen=True)
class ScoringWork:
    """One scoring model: its retrain with the steps whose weights are kept, and the learning rate at each."""

    work: Work
    learning_rates: Mapping[int, float]


@dataclass(frozen=True)
class ScoringGroup:
    """Scoring models of one arm that make one score matrix per method together. `key`: "" where there is one group."""

    key: str
    arm: str
    models: tuple[ScoringWork, ...]
