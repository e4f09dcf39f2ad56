"""Scoring models, which are models trained on the whole train set from whose weights methods compute their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.records import Work


@dataclass(frozen=True)
class ScoringWork:
    """One scoring model: its retrain, and the learning rate at each step whose weights are kept."""

    work: Work
    learning_rates: Mapping[int, float]


@dataclass(frozen=True)
class ScoringGroup:
    """Scoring models of one arm that together give one score matrix per method. `key` is "" if there is one group.

    `judges`: further models, trained with the scoring models, from whose outputs the campaign chooses the queries (its hook
    `chosen_queries`). Without them the queries are those of the config.
    """

    key: str
    arm: str
    models: tuple[ScoringWork, ...]
    judges: tuple[Work, ...] = ()
