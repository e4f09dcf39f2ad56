"""Counts rows, classes, empty texts, duplicate texts, and texts that also occur in train. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tasks.base import Split, Text
from tasks.data.wording import shown

CLASSES_SHOWN = 8
_MANY_CLASSES = 20  # so few classes are never suspicious, however few rows there are


@dataclass(frozen=True)
class SplitCensus:
    """The contents of one split in numbers of rows.

    `n_measured` is the number of rows whose outputs every retrain records. `classes` maps each name to its number of
    rows, in the order of the logits; it is empty if the split has at most one class. `n_empty` counts texts of white
    space only, and pairs of which one text is. `n_duplicate` counts rows whose exact text occurs in an earlier row of the split. `n_in_train` and
    `n_measured_in_train` count rows, and measured rows, whose exact text occurs in train; they are None for train
    itself. All text counts are None if the split has no texts.
    """

    split: str
    n: int
    n_measured: int
    classes: Mapping[str, int] = field(default_factory=dict)
    n_empty: int | None = None
    n_duplicate: int | None = None
    n_in_train: int | None = None
    n_measured_in_train: int | None = None

    def json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def line(self) -> str:
        """Describe the split in one line for people."""
        parts = [_count(self.n, "row") + (f" ({self.n_measured} measured)" if self.n_measured else "")]
        if self.classes:
            listed = [f"{shown(name)} {n}" for name, n in list(self.classes.items())[:CLASSES_SHOWN]]
            more = [f"{len(self.classes) - CLASSES_SHOWN} more classes"] if len(self.classes) > CLASSES_SHOWN else []
            parts.append(", ".join([*listed, *more]))
        if self.n_empty:
            parts.append(_count(self.n_empty, "empty text"))
        if self.n_duplicate:
            parts.append(_count(self.n_duplicate, "duplicate text"))
        if self.n_in_train:
            measured = f" ({self.n_measured_in_train} of them measured)" if self.n_measured_in_train else ""
            parts.append(f"{self.n_in_train} with a text that also occurs in train{measured}")
        return "; ".join(parts)

    def warnings(self) -> list[str]:
        """Return what a careful reader would want to know before a campaign starts, one sentence each."""
        found = []
        if self.n_empty:
            found.append(f"{self.split}: {self.n_empty} of {_count(self.n, 'text')} are empty")
        if self.n_measured_in_train:
            found.append(
                f"{self.split}: the exact text of {self.n_measured_in_train} of {_count(self.n_measured, 'measured row')} "
                "also occurs in train"
            )
        for names in _alike(self.classes):
            listed = " and ".join(f"{shown(name)} ({_count(self.classes[name], 'row')})" for name in names)
            found.append(
                f"{self.split}: the labels {listed} differ only in upper and lower case and are separate classes"
            )
        if len(self.classes) > max(_MANY_CLASSES, self.n // 2):
            found.append(
                f"{self.split}: {len(self.classes)} classes for {self.n} rows; is the label column the right one?"
            )
        return found


def take_census(splits: Mapping[str, Split], measured: Mapping[str, np.ndarray]) -> tuple[SplitCensus, ...]:
    """Return the census of every split, train first; `measured` maps a split to the rows that every retrain records."""
    order = sorted(splits, key=lambda name: name != "train")
    return tuple(_census(name, splits[name], measured.get(name), splits.get("train")) for name in order)


def exact_overlap(split: Split, train: Split) -> np.ndarray:
    """Return the rows of `split` whose exact text occurs in `train`: int64, ascending; empty for splits without texts."""
    if split.texts is None or train.texts is None:
        return np.zeros(0, np.int64)
    there = set(train.segments())
    return np.asarray([row for row, text in enumerate(split.segments()) if text in there], np.int64)


def _census(name: str, split: Split, measured: np.ndarray | None, train: Split | None) -> SplitCensus:
    rows = np.zeros(0, np.int64) if measured is None else measured
    counts = np.bincount(split.labels, minlength=len(split.classes)).tolist()
    classes = dict(zip(split.classes, counts, strict=True)) if len(split.classes) > 1 else {}
    if split.texts is None:
        return SplitCensus(name, len(split), len(rows), classes)
    overlap = None if name == "train" or train is None else exact_overlap(split, train)
    return SplitCensus(
        name,
        len(split),
        len(rows),
        classes,
        n_empty=sum(_is_empty(text) for text in split.segments()),
        n_duplicate=len(split) - len(set(split.segments())),
        n_in_train=None if overlap is None else len(overlap),
        n_measured_in_train=None if overlap is None else int(np.isin(overlap, rows).sum()),
    )


def _is_empty(text: Text) -> bool:
    return any(not part or part.isspace() for part in ((text,) if isinstance(text, str) else text))


def _alike(classes: Mapping[str, int]) -> list[list[str]]:
    """Return groups of classes that differ only in upper and lower case; classes without rows in the split are left out."""
    forms: dict[str, list[str]] = {}
    for name, n in classes.items():
        if n:
            forms.setdefault(name.casefold(), []).append(name)
    return [names for names in forms.values() if len(names) > 1]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
