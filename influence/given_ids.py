"""Converts ids of text in a score file to the numbers that stand for them, and shows them as text in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tasks.base import Split
from tasks.data.ids import number_of
from tasks.data.wording import shown
from tasks.errors import InputError

_WHOLE = re.compile(r"-?[0-9]{1,19}")
_IN_MESSAGE = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class GivenIds:
    """The ids of a task's splits that are text.

    `train` and `query` map the text to the number; they are empty if those ids are numbers.
    """

    train: Mapping[str, int] = field(default_factory=dict)
    query: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(splits: Mapping[str, Split], names: Iterable[str]) -> GivenIds:
        """Return the ids of the train split and of the splits `names`, which hold the queries."""
        found = {name: dict(zip(s.given_ids or (), s.ids.tolist(), strict=False)) for name, s in splits.items()}
        of_queries = {text: number for name in names for text, number in found[name].items()}
        return GivenIds(found.get("train", {}), of_queries)

    def names(self, column: str) -> Mapping[str, int]:
        """Return text -> number for the ids of `query_id` or `train_id` (`query_ids`, `train_ids`)."""
        return self.train if column.startswith("train") else self.query

    def numbers(self, values: np.ndarray, column: str, where: object) -> np.ndarray:
        """Convert the ids of a file to int64, same shape; text that no split has gets its own number.

        Raises InputError for a train id that the train set does not have.
        """
        names = self.names(column)
        codes, distinct = _distinct(np.asarray(values).ravel())
        texts, positions = np.unique(distinct.astype(str), return_inverse=True)
        found = [self._number(text.strip(), names, column, where) for text in texts.tolist()]
        return np.asarray(found, np.int64)[positions[codes]].reshape(np.shape(values))

    def _number(self, text: str, names: Mapping[str, int], column: str, where: object) -> int:
        if text in names:
            return names[text]
        if _WHOLE.fullmatch(text) and -(2**63) <= int(text) < 2**63:  # the number itself, as in Refit's tables
            return int(text)
        if names is self.train:
            raise InputError(where, f"{column} {shown(text)} is not in the train set")
        return number_of(text)

    def in_text(self, message: str) -> str:
        """Return a message in which the numbers that stand for ids are replaced by the ids as text."""
        texts = {str(number): text for names in (self.train, self.query) for text, number in names.items()}
        return _IN_MESSAGE.sub(lambda found: shown(texts[found[0]]) if found[0] in texts else found[0], message)


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, distinct) with values = distinct[codes].

    A table names each id in many rows, and sorting text takes long. Values of mixed types must be converted to text
    first, because 1 and 1.0 are equal but their texts are not.
    """
    import pandas as pd

    if values.dtype.kind not in "iu" and pd.api.types.infer_dtype(values, skipna=False) != "string":
        values = values.astype(str)
    codes, distinct = pd.factorize(values, use_na_sentinel=False)
    return codes, np.asarray(distinct)


NO_TEXT = GivenIds()  # for tasks whose ids are all whole numbers
