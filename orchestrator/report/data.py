"""What the report shows, as plain data: the report computes nothing that is not in the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.analysis.checks import Check


@dataclass(frozen=True)
class ShownExample:
    """A training example beside a query. `train_spans`/`query_spans`: (start, end, contribution) into the texts, for methods that decompose word by word."""

    train_id: int
    score: float
    label: str
    text: str
    train_spans: Sequence[tuple[int, int, float]] = ()
    query_spans: Sequence[tuple[int, int, float]] = ()
    words: Sequence[tuple[str, float]] = ()  # token -> contribution, largest magnitude first
    given_id: str = ""  # the id as the data has it, where that is text

    @property
    def shown_id(self) -> str:
        """The id as the user gave it."""
        return self.given_id or str(self.train_id)


@dataclass(frozen=True)
class QueryPage:
    """One query: its text, gold label, what the scoring model says, and its top examples per method and group."""

    query_id: int
    text: str
    label: str
    predicted: str
    probability: float  # of the gold label, by the scoring model
    examples: Mapping[str, Mapping[str, Sequence[ShownExample]]]  # method -> proponents | opponents -> examples
    given_id: str = ""  # the id as the data has it, where that is text

    @property
    def shown_id(self) -> str:
        """The id as the user gave it."""
        return self.given_id or str(self.query_id)


@dataclass(frozen=True)
class Section:
    """A part of the page that only some campaigns have.

    `id` is its anchor, `nav` its name in the list of sections (default the title). `template`: the name of one of the report's
    own templates, or the path of a file of the campaign's; it is rendered with the section as `section`.
    `figures` (name -> SVG text) are also written to figures/<name>.svg, so no two sections may
    share a name.
    """

    id: str
    title: str
    template: str | Path
    data: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    nav: str = ""


@dataclass(frozen=True)
class CampaignPage:
    """What a campaign adds to the common frame: its rows of "What was asked", how to read it, notes, costs, sections."""

    asked: Sequence[tuple[str, str]]
    explained: str = ""
    sections: Sequence[Section] = ()
    notes: Sequence[str] = ()
    cost: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class ReportData:
    """All of report.html. Tables are those of results/*.csv, as data frames with the same columns."""

    name: str
    campaign: str
    asked: Sequence[tuple[str, str]]  # label, value: what was asked
    explained: str  # how to read what was asked
    data_card: Sequence[Mapping[str, Any]]  # one per split: split, n, n_measured, classes {name: count}, digest
    model_card: Sequence[tuple[str, str]]
    accuracies: Sequence[Mapping[str, Any]]  # role (scoring model | reference), split, mean, sd, n
    verdicts: Sequence[str]  # sentences made from the tables
    notes: Sequence[str]  # conditional-on-one-scoring-model, exclusions, warnings
    sections: Sequence[Section]
    failures: pd.DataFrame  # spec_id, status, attempts, error
    holes: pd.DataFrame | None  # the cells that could not be used; None where a campaign keeps no list of them
    cost: Sequence[tuple[str, str]]
    reproduce: Sequence[str]  # shell commands
    provenance: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[Check] = ()  # shown beside the verdicts
