"""From removal sets to deduplicated retrains: a full grid of cells over a list of distinct works."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from orchestrator.analysis.stopping import Stopping
from orchestrator.records import RetrainSpec, Work
from tasks.data.edits import Edit

SpecFactory = Callable[[Edit, int], RetrainSpec]
NOT_ASKED = -1  # in Plan.cell: a repeat that this curve did not need


class CampaignPlan(Protocol):
    """The distinct retrains of a campaign and the cells they serve.

    `works` is the dispatch order. A work whose spec names a parent in `works` runs once the parent is done. `is_final`: nothing
    is added once `works` are finished; otherwise the campaign is asked again then, and plans on.
    """

    @property
    def works(self) -> tuple[Work, ...]: ...

    @property
    def is_final(self) -> bool: ...

    @property
    def n_requested(self) -> int:
        """Cells asked for."""
        ...

    def columns(self) -> dict[str, list]:
        """The cells as the columns of plan.parquet, `spec_id` among them."""
        ...

    def references(self) -> list[str]:
        """Spec ids of the retrains that others are compared with."""
        ...


@dataclass(frozen=True)
class Plan:
    """Every cell a campaign asks for, and the distinct retrains that serve them.

    `works` is the dispatch order: breadth-first over repeats, so that after the first repeat every curve exists.
    `cell` int64 [n_methods, n_groups, n_ks, n_queries, n_repeats], NOT_ASKED where a curve did not need the repeat, and
    `reference` int64 [n_repeats] index `works`. `stopping`: the rule that decides how many repeats a curve has; none in a fixed
    design. `is_final`: no repeat is added any more. `n_full_repeat`: distinct retrains of a repeat that every curve is asked for.
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
        """Cells asked for: methods x groups x ks x queries x repeats, without the repeats a curve did not need."""
        return int((self.cell != NOT_ASKED).sum())

    @property
    def n_asked(self) -> np.ndarray:
        """How many repeats every curve is asked for, its first ones: int [n_methods, n_groups]."""
        return (self.cell[:, :, 0, 0, :] != NOT_ASKED).sum(axis=-1)

    def references(self) -> list[str]:
        """Spec ids of the references, one a repeat."""
        return [self.works[i].spec_id for i in self.reference]

    def columns(self) -> dict[str, list]:
        """The cells as the columns of plan.parquet, in the order of dispatch."""
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
    """A plan in its simplest form, for campaigns of one's own: distinct works, and a table of cells that each need one of them.

    `work` [n_cells] and `reference` index `works`; `labels`: column -> [n_cells] values that tell a cell from the others.
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
        """Spec ids of the references."""
        return [self.works[i].spec_id for i in self.reference]

    def columns(self) -> dict[str, list]:
        """The labels and the spec id of every cell."""
        columns = {name: list(values) for name, values in self.labels.items()}
        return {**columns, "spec_id": [self.works[i].spec_id for i in self.work]}


@dataclass
class DistinctWorks:
    """Collects works of any arms and hands out their positions; what is trained alike is one work."""

    works: list[Work] = field(default_factory=list)
    _position: dict[str, int] = field(default_factory=dict)

    def add(self, work: Work) -> int:
        """The position of `work`, or of the one before it with its spec."""
        if work.spec_id not in self._position:
            self._position[work.spec_id] = len(self.works)
            self.works.append(work)
        return self._position[work.spec_id]


@dataclass
class WorkList:
    """Collects works and hands out their positions; equal edits under equal seeds are one work."""

    spec: SpecFactory
    works: list[Work] = field(default_factory=list)
    _position: dict[int, dict[tuple[str, str], int]] = field(default_factory=dict)  # by seed

    def add(self, edit: Edit, seed: int) -> int:
        """The position of the work that trains `edit` under `seed`."""
        known = self._position.setdefault(seed, {})
        if edit.key not in known:
            known[edit.key] = len(self.works)
            self.works.append(Work(self.spec(edit, seed), edit))
        return known[edit.key]


def distinct_max(n_scored: int, n_draws: int, n_sets: int, n_queries: int, n_repeats: int) -> int:
    """Most distinct retrains of a campaign whose scores are not known yet.

    n_repeats (1 + n_sets (n_scored n_queries + n_draws)): one reference a repeat; `n_sets` removal sets (groups x ks) for every
    query of a scored method and for every order that a control draws, which queries share.
    """
    return n_repeats * (1 + n_sets * (n_scored * n_queries + n_draws))


def check_unique(values: Sequence, what: str) -> None:
    """Raise ValueError if a value stands twice."""
    if len(set(values)) != len(values):
        raise ValueError(f"{what}: each once")


def waves(works: Sequence[Work]) -> list[list[Work]]:
    """`works` in groups: each after the groups that hold its parents; order within a group is kept."""
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
