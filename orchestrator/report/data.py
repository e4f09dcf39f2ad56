"""The content of the report as plain data. The report computes no numbers; all of them are in the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.analysis.checks import Check


@dataclass(frozen=True)
class ShownExample:
    """A training example that is shown for a query.

    `train_spans` and `query_spans`: (start, end, contribution) of words in the two texts, for methods whose scores are
    sums over words.
    """

    train_id: int
    score: float
    label: str
    text: str
    train_spans: Sequence[tuple[int, int, float]] = ()
    query_spans: Sequence[tuple[int, int, float]] = ()
    words: Sequence[
        tuple[str, str, float]
    ] = ()  # (word of the query, word of this training example, contribution of the pair), largest magnitude first
    given_id: str = ""  # the id in the user's data, if it is text

    @property
    def shown_id(self) -> str:
        """The id in the user's data."""
        return self.given_id or str(self.train_id)


@dataclass(frozen=True)
class QueryPage:
    """One query: its text, gold label, the scoring model's prediction, and its top examples per method and group."""

    query_id: int
    text: str
    label: str
    predicted: str
    probability: float  # of the gold label, by the scoring model
    examples: Mapping[str, Mapping[str, Sequence[ShownExample]]]  # method -> proponents | opponents -> examples
    given_id: str = ""  # the id in the user's data, if it is text

    @property
    def shown_id(self) -> str:
        """The id in the user's data."""
        return self.given_id or str(self.query_id)


@dataclass(frozen=True)
class Section:
    """A section of the page that a campaign adds.

    `id` is its anchor, `nav` its name in the list of sections (default: the title). `template` is the name of one of
    the report's own templates, or the absolute path of a file of the campaign; the template reads this object from its
    variable `section`. `figures` (name -> SVG text) are also written to figures/<name>.svg, so their names must differ
    between sections.
    """

    id: str
    title: str
    template: str | Path
    data: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    nav: str = ""


@dataclass(frozen=True)
class CampaignPage:
    """A campaign's own part of the report.

    `asked`: rows (label, value) of the table "What was asked"; `explained`: how to read these rows; `sections` and `notes`:
    those that the campaign adds; `cost`: rows (label, value) that it adds to the table "Cost".
    """

    asked: Sequence[tuple[str, str]]
    explained: str = ""
    sections: Sequence[Section] = ()
    notes: Sequence[str] = ()
    cost: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class ReportData:
    """The whole content of report.html. Data frames have the columns of results/*.csv."""

    name: str
    campaign: str
    asked: Sequence[tuple[str, str]]  # rows (label, value) of "What was asked"
    explained: str  # how to read these rows
    data_card: Sequence[Mapping[str, Any]]  # one per split: split, n, n_measured, classes {name: count}, digest
    model_card: Sequence[tuple[str, str]]
    accuracies: Sequence[Mapping[str, Any]]  # role (scoring model | reference), split, mean, sd, n
    verdicts: Sequence[str]  # sentences derived from the tables
    notes: Sequence[str]  # limits of the verdicts (such as results for one scoring model only), exclusions, warnings
    sections: Sequence[Section]
    failures: pd.DataFrame  # spec_id, status, attempts, error
    holes: pd.DataFrame | None  # the cells without a usable result; None if the campaign keeps no list of them
    cost: Sequence[tuple[str, str]]
    reproduce: Sequence[str]  # shell commands
    provenance: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[Check] = ()  # shown together with the verdicts
    in_short: Sequence[str] = ()  # a few sentences for a reader who reads nothing else
