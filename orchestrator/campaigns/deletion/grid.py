"""The cells of a deletion campaign, built repeat by repeat together with the list of distinct works."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.analysis.stopping import Stopping
from orchestrator.campaigns.deletion.word_edits import SIDES, WordEdits, side_of
from orchestrator.campaigns.plan import NOT_ASKED, Plan, SpecFactory, WorkList
from tasks.data.edits import Edit, Mode

Ranking = Callable[[str, int, str], np.ndarray]  # (method label, query position, group) -> TrainIds in removal order
Draw = Callable[[str, int, str, int], np.ndarray]  # (control, draw key, group, seed) -> TrainIds in removal order


@dataclass
class DeletionGrid:
    """The edits of all cells in the repeats added so far, and their distinct retrains.

    `methods`: label -> whether it is a control. `ranking` returns the removal order of a scored method. `draw` returns that of a control
    for the draw key of a query (`draw_keys` int64 [n_queries]) and the seed of a repeat. Queries with equal draw keys share the sets of a
    control; the key is the label of the query, or its position if every query has its own candidates. A removal set is a prefix of
    its order, so sets are nested over k. For groups of words (word_edits.SIDES), `words` makes the edits from the order of their side.
    One reference per seed serves all cells of its repeat.
    """

    methods: Mapping[str, bool]
    groups: Sequence[str]
    ks: Sequence[int]
    query_ids: Sequence[int]
    draw_keys: np.ndarray
    seeds: Sequence[int]
    ranking: Ranking
    draw: Draw
    spec: SpecFactory
    mode: Mode
    words: WordEdits | None = None
    _works: WorkList = field(init=False)
    _cells: list[np.ndarray] = field(default_factory=list)
    _references: list[int] = field(default_factory=list)
    _edits: dict[tuple[str, int, str], list[Edit]] = field(default_factory=dict)
    _n_first: int = 0

    def __post_init__(self) -> None:
        self._works = WorkList(self.spec)

    @property
    def n_curves(self) -> tuple[int, int]:
        """Numbers of methods and of groups."""
        return len(self.methods), len(self.groups)

    def add(self, asked: np.ndarray | None = None) -> None:
        """Add one repeat for the curves in `asked` bool [n_methods, n_groups], by default for all."""
        seed = self.seeds[len(self._cells)]
        asked = np.ones(self.n_curves, bool) if asked is None else asked
        cell = np.full((*self.n_curves, len(self.ks), len(self.query_ids)), NOT_ASKED, np.int64)
        self._references.append(self._works.add(Edit(), seed))
        drawn: dict[tuple[str, int, str], list[Edit]] = {}  # queries with equal keys share the sets of a control
        for q, draw_key in enumerate(self.draw_keys.tolist()):
            for m, (label, is_control) in enumerate(self.methods.items()):
                for g, group in enumerate(self.groups):
                    if asked[m, g]:
                        if not is_control:
                            sets = self._sets(label, q, group)
                        elif (sets := drawn.get((label, draw_key, group))) is None:
                            sets = self._drawn(label, draw_key, group, seed)
                            drawn[label, draw_key, group] = sets
                        cell[m, g, :, q] = [self._works.add(edit, seed) for edit in sets]
        self._cells.append(cell)
        self._n_first = self._n_first or len(self._works.works)

    def plan(self, stopping: Stopping | None = None, *, is_final: bool = True) -> Plan:
        """Return the plan of the repeats added so far."""
        return Plan(
            methods=tuple(self.methods),
            groups=tuple(self.groups),
            ks=tuple(self.ks),
            query_ids=tuple(int(i) for i in self.query_ids),
            seeds=tuple(self.seeds[: len(self._cells)]),
            works=tuple(self._works.works),
            cell=np.stack(self._cells, axis=-1),
            reference=np.array(self._references, np.int64),
            controls=tuple(label for label, is_control in self.methods.items() if is_control),
            is_final=is_final,
            stopping=stopping,
            n_full_repeat=self._n_first,
        )

    def _sets(self, label: str, query: int, group: str) -> list[Edit]:
        key = (label, query, group)
        if key not in self._edits:
            first = self._first(self.ranking(label, query, side_of(group)))
            self._edits[key] = (
                self.words.ranked(group, query, first, self.ks)
                if self.words and group in SIDES
                else self._nested(first)
            )
        return self._edits[key]

    def _drawn(self, label: str, draw_key: int, group: str, seed: int) -> list[Edit]:
        first = self._first(self.draw(label, draw_key, side_of(group), seed))
        return self.words.drawn(seed, first, self.ks) if self.words and group in SIDES else self._nested(first)

    def _first(self, order: np.ndarray) -> list[int]:
        return order[: max(self.ks)].tolist()  # plain integers, shared by the sets of all k

    def _nested(self, first: list[int]) -> list[Edit]:
        return [Edit.removal(first[:k], self.mode) for k in self.ks]
