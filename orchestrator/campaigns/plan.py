"""Plans, which say which retrains a campaign needs and for what.

A cell is one entry of the campaign's design, such as one combination of method, group, k, query and repeat. Each cell needs one retrain. A
work is a retrain to do; cells that need the same retrain share one work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from orchestrator.analysis.stopping import Stopping
from orchestrator.records import RetrainSpec, Work
from tasks.data.edits import Edit

SpecFactory = Callable[[Edit, int], RetrainSpec]
NOT_ASKED = -1  # in Plan.cell: the design does not ask for this repeat of this curve


class CampaignPlan(Protocol):
    """The distinct retrains of a campaign and the cells they serve.

    `works` is in dispatch order. If the weights from which a work starts come from another work in `works` (its parent), the parent
    runs first. `is_final`: no further works follow; if it is False, the campaign plans again when `works` are finished.
    """

    @property
    def works(self) -> tuple[Work, ...]: ...

    @property
    def is_final(self) -> bool: ...

    @property
    def n_requested(self) -> int:
        """The number of cells."""
        ...

    def columns(self) -> dict[str, list]:
        """Return the cells as the columns of plan.parquet, including `spec_id`."""
        ...

    def references(self) -> list[str]:
        """Return the spec ids of the retrains with which others are compared."""
        ...


@dataclass(frozen=True)
class Plan:
    """All cells of a deletion campaign, and the distinct retrains that serve them.

    A curve is a pair (method, group); a group (influence.ranking.Group) says which examples of a ranking are removed first.
    `works` is in dispatch order, repeat by repeat, so that every curve can be computed after the first repeat.
    `cell` int64 [n_methods, n_groups, n_ks, n_queries, n_repeats] and `reference` int64 [n_repeats] index `works`; `cell` is
    NOT_ASKED in repeats that a curve does not have. `stopping`: the rule that decides how many repeats a curve has, None in a
    fixed design. `is_final`: no repeat will be added. `n_full_repeat`: number of distinct retrains in a repeat that every
    curve has (later repeats of an adaptive design may lack some curves).
    """

    methods: tuple[str, ...]
    groups: tuple[str, ...]
    ks: tuple[int, ...]
    query_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    works: tuple[Work, ...]
    cell: np.ndarray
    reference: np.ndarray
    controls: tuple[str, ...] = ()
    is_final: bool = True
    stopping: Stopping | None = None
    n_full_repeat: int = 0

    @property
    def n_requested(self) -> int:
        """The number of cells: methods x groups x ks x queries x repeats, counting for every curve only its own repeats."""
        return int((self.cell != NOT_ASKED).sum())

    @property
    def n_asked(self) -> np.ndarray:
        """The number of repeats of every curve: int [n_methods, n_groups]. A curve with n repeats has the repeats 0 to n - 1."""
        return (self.cell[:, :, 0, 0, :] != NOT_ASKED).sum(axis=-1)

    def references(self) -> list[str]:
        """Return the spec ids of the references, one per repeat."""
        return [self.works[i].spec_id for i in self.reference]

    def columns(self) -> dict[str, list]:
        """Return the cells as the columns of plan.parquet, in dispatch order."""
        cell = self.cell.transpose(4, 3, 0, 1, 2)
        repeat, query, method, group, k = np.nonzero(cell != NOT_ASKED)
        spec_ids = np.array([work.spec_id for work in self.works], object)
        columns = {
            "method": np.array(self.methods, object)[method],
            "query_id": np.array(self.query_ids, np.int64)[query],
            "group": np.array(self.groups, object)[group],
            "k": np.array(self.ks, np.int64)[k],
            "repeat": repeat,
            "spec_id": spec_ids[cell[repeat, query, method, group, k]],
        }
        return {name: column.tolist() for name, column in columns.items()}


@dataclass(frozen=True)
class CellTable:
    """A simple plan for user-defined campaigns: distinct works, and a table of cells that each need one of them.

    `work` [n_cells] and `reference` index `works`; `labels`: column -> [n_cells] values that identify a cell.
    """

    works: tuple[Work, ...]
    work: Sequence[int]
    labels: Mapping[str, Sequence]
    reference: Sequence[int] = ()

    is_final: ClassVar[bool] = True

    @property
    def n_requested(self) -> int:
        """The number of cells."""
        return len(self.work)

    def references(self) -> list[str]:
        """Return the spec ids of the references."""
        return [self.works[i].spec_id for i in self.reference]

    def columns(self) -> dict[str, list]:
        """Return the labels and the spec id of every cell."""
        columns = {name: list(values) for name, values in self.labels.items()}
        return {**columns, "spec_id": [self.works[i].spec_id for i in self.work]}


@dataclass
class DistinctWorks:
    """Collects works of any arms and returns their positions; works with the same spec become one."""

    works: list[Work] = field(default_factory=list)
    _position: dict[str, int] = field(default_factory=dict)

    def add(self, work: Work) -> int:
        """Return the position of `work`, or of an earlier work with the same spec."""
        if work.spec_id not in self._position:
            self._position[work.spec_id] = len(self.works)
            self.works.append(work)
        return self._position[work.spec_id]


@dataclass
class WorkList:
    """Collects works of one arm and returns their positions; equal edits with equal seeds become one work."""

    spec: SpecFactory
    works: list[Work] = field(default_factory=list)
    _position: dict[int, dict[tuple[str, str], int]] = field(default_factory=dict)  # by seed

    def add(self, edit: Edit, seed: int) -> int:
        """Return the position of the work that trains `edit` with `seed`."""
        known = self._position.setdefault(seed, {})
        if edit.key not in known:
            known[edit.key] = len(self.works)
            self.works.append(Work(self.spec(edit, seed), edit))
        return known[edit.key]


def distinct_max(n_scored: int, n_draws: int, n_sets: int, n_queries: int, n_repeats: int) -> int:
    """Return the largest possible number of distinct retrains of a campaign whose scores are not known yet.

    It is n_repeats (1 + n_sets (n_scored n_queries + n_draws)): in every repeat, one reference, and `n_sets` removal sets (groups x ks)
    for every pair of scored method and query and for every removal order that a control draws. Several queries can share one drawn
    order, so drawn orders are counted by `n_draws` and not by query.
    """
    return n_repeats * (1 + n_sets * (n_scored * n_queries + n_draws))


def check_unique(values: Sequence, what: str) -> None:
    """Raise ValueError if a value occurs twice."""
    if len(set(values)) != len(values):
        raise ValueError(f"{what}: each may occur only once")


def waves(works: Sequence[Work]) -> list[list[Work]]:
    """Split `works` into waves: the parent of a work is in an earlier wave. The order within a wave is that of `works`."""
    depth: dict[str, int] = {}
    by_id = {work.spec_id: work for work in works}

    def depth_of(work: Work) -> int:
        if work.spec_id not in depth:
            parent = by_id.get((work.spec.parent or {}).get("spec_id", ""))
            depth[work.spec_id] = 0 if parent is None else 1 + depth_of(parent)
        return depth[work.spec_id]

    found: list[list[Work]] = [[] for _ in range(1 + max(map(depth_of, works), default=-1))]
    for work in works:
        found[depth_of(work)].append(work)
    return found
