"""Three base classes: Component (named options with an identity), Split (data) and Numerics (machine and build).

This module imports no torch, so that `refit plan`, `list` and `--help` stay fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.digests import digest, digest_arrays, digest_texts

if TYPE_CHECKING:
    from torch import Tensor

Batch = dict[str, "Tensor"]
Text = str | tuple[str, str]  # the text of an example, or the two segments of a pair
BETWEEN = " | "  # separates the two segments of a pair wherever they are shown as one text


class Component(BaseModel):
    """A named, versioned part that a config can choose; its fields are its options.

    Subclasses set `version`, and increase it whenever a change of their code makes the same options give other numbers.
    Modules that hold components import torch inside methods only. `selects` has one entry for each option that is a
    list of name patterns. The value says which names the patterns are compared with: `layers` (modules with weights) or
    `trained` (trained parameters). The identity of the component then contains the selected names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    name: ClassVar[str]
    version: ClassVar[int] = 1
    selects: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def identity(self) -> dict[str, Any]:
        """Return name, version and options. The digests that depend on this component are computed from them."""
        return {"name": self.name, "version": self.version, **self.model_dump(mode="json")}


@dataclass(frozen=True)
class Split:
    """A named part of the data.

    `ids` int64 [n] are stable ids, never positions. `labels` int64 [n] are indices into `classes`. `texts` are the
    raw texts: the report shows them, and text models and some methods read them (as tokens).

    If the examples are pairs of texts, `texts` joins the two segments of each pair by BETWEEN, and `pair_starts` holds
    the position in the joined text at which the second segment starts. All splits of a task have pairs, or none has.
    """

    ids: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    texts: tuple[str, ...] | None = None
    features: np.ndarray | None = None  # tasks without text: float [n, ...]
    confounds: np.ndarray | None = None  # int64 [n], the spurious attribute, as indices into `confound_names`
    confound_names: tuple[str, ...] = ()
    given_ids: tuple[str, ...] | None = (
        None  # the ids in the user's data if they are text; `ids` then holds an integer for each of them
    )
    pair_starts: np.ndarray | None = None  # int64 [n]

    def __len__(self) -> int:
        return len(self.ids)

    def segments(self) -> tuple[Text, ...]:
        """Return the text of every example: a string, or two strings if the examples are pairs."""
        if self.pair_starts is None or self.texts is None:
            return self.texts or ()
        starts = self.pair_starts.tolist()
        return tuple(
            (text[: start - len(BETWEEN)], text[start:]) for text, start in zip(self.texts, starts, strict=True)
        )

    def content_digest(self) -> str:
        """Return the digest of ids, content, labels and class order, and of the confounds if they are known."""
        content = digest_texts(self.texts) if self.texts is not None else digest_arrays(features=self.features)  # type: ignore[arg-type]
        parts: list[Any] = [digest_arrays(ids=self.ids, labels=self.labels), content, list(self.classes)]
        if self.confounds is not None:
            parts += [digest_arrays(confounds=self.confounds), list(self.confound_names)]
        if self.pair_starts is not None:
            parts.append(digest_arrays(pair_starts=self.pair_starts))
        return digest(parts)

    def shown_id(self, number: int | np.integer) -> str:
        """Return an id of this split as the user gave it. Raises KeyError if the split has no such id."""
        if self.given_ids is None:
            return str(int(number))
        rows = np.flatnonzero(self.ids == number)
        if not len(rows):
            raise KeyError(f"id {int(number)} is not in this split")
        return self.given_ids[int(rows[0])]

    def shown_ids(self) -> dict[int, str]:
        """Map every id of this split to the id as the user gave it; empty if the user's ids are whole numbers."""
        return {} if self.given_ids is None else dict(zip(self.ids.tolist(), self.given_ids, strict=True))

    def rows_of(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the positions of `ids`: int64 [len(ids)]. Raises KeyError naming the first unknown id."""
        order = np.argsort(self.ids, kind="stable")
        wanted = np.asarray(ids, np.int64)
        rows = (
            order[np.searchsorted(self.ids, wanted, sorter=order).clip(max=len(self.ids) - 1)]
            if len(self.ids)
            else np.zeros(0, np.int64)
        )
        if len(rows) != len(wanted) or (self.ids[rows] != wanted).any():
            missing = wanted[self.ids[rows] != wanted] if len(rows) == len(wanted) else wanted
            raise KeyError(f"id {int(missing[0])} is not in this split")
        return rows


@dataclass(frozen=True)
class Numerics:
    """All properties of the machine and the build that can change a result, even by a single bit.

    Refit never takes a difference between retrains that have different numerics. `environment` holds (name, value) of
    those environment variables that are set and can change a result, sorted by name; a mapping is accepted too. Usually
    no such variable is set.
    """

    device: str = "cpu"  # cpu | cuda
    device_model: str = ""
    dtype: str = "float32"
    threads: int = 1
    stack: int = 1  # always 1 at present; it stays a field because it is part of the identity of every retrain
    micro_batch: int = 0  # 0 means whole batches
    compile: bool = False
    torch: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    length_group_cost: int = 0  # 0 means no length groups (tasks.length_groups)
    frozen_trunk: str = "computed"  # outputs of frozen layers: computed in every pass, or once and then stored (cached; cached_half: stored in float16)

    def __post_init__(self) -> None:
        object.__setattr__(self, "environment", tuple(sorted(dict(self.environment).items())))

    def identity(self) -> dict[str, Any]:
        """Return the numerics as plain JSON values.

        `environment`, `length_group_cost` and `frozen_trunk` are included only if they are not at their defaults, so that
        ids made before these fields existed stay valid.
        """
        found = {**self.__dict__, "environment": dict(self.environment)}
        defaults = {"environment": {}, "length_group_cost": 0, "frozen_trunk": "computed"}
        return {key: value for key, value in found.items() if key not in defaults or value != defaults[key]}
