"""Deletion curves: remove the top k of a group, retrain, measure the query (Yeh et al. 2022, section 2.2; Han et al. 2020, section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from influence import ranking
from orchestrator.analysis.cells import Cells
from orchestrator.campaigns.base import Campaign, Scored
from orchestrator.campaigns.plan import Plan, SpecFactory, WorkList, check_unique, distinct_max
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.seeds import generator

if TYPE_CHECKING:
    from orchestrator.experiment import Experiment
    from orchestrator.records import LedgerRow
    from orchestrator.results import Results

Group = Literal["proponents", "opponents", "least"]
Ranking = Callable[[str, int, str], np.ndarray]  # (method label, query position, group) -> TrainIds in removal order


class Deletion(Campaign):
    """The `deletion` block: removal set sizes `k` (counts, or fractions of the train set below 1), groups, and the edit's mode."""

    name: ClassVar[str] = "deletion"
    version: ClassVar[int] = 1

    k: Annotated[tuple[Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)]
    groups: Annotated[tuple[Group, ...], Field(min_length=1)] = ("proponents", "opponents")
    mode: Literal["mask", "drop"] = "mask"

    @field_validator("k", "groups")
    @classmethod
    def _each_once(cls, values: tuple) -> tuple:
        check_unique(values, "values")
        return values

    def counts(self, n_train: int, where: str) -> tuple[int, ...]:
        """The k as counts, ascending; a fraction becomes the whole part of k n_train, at least 1.

        Raises InputError if one does not fit a train set of `n_train`.
        """
        counts = sorted(k if isinstance(k, int) else max(1, math.floor(k * n_train + 1e-9)) for k in self.k)
        if counts[-1] >= n_train:
            raise InputError(f"{where}: deletion.k", f"{counts[-1]} is not below the {n_train} training examples")
        if len(set(counts)) != len(counts):
            raise InputError(
                f"{where}: deletion.k", f"two values give the same count for {n_train} training examples: {counts}"
            )
        return tuple(counts)

    def check(self, experiment: Experiment) -> None:
        """Refuse a k that does not fit the train set."""
        self.counts(len(experiment.train), experiment.config.where)

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """(cells, most distinct retrains) while the scores are unknown."""
        n_methods, n_repeats = len(experiment.methods), len(experiment.seeds)
        cells = n_methods * len(self.groups) * len(self.k) * n_queries * n_repeats
        n_scored = len(experiment.scored)
        return cells, self.distinct_max(n_scored, n_methods - n_scored, n_queries, n_repeats)

    def planned(self, scored: Scored) -> Plan:
        """The plan, from the scores of the one scoring group."""
        experiment = scored.experiment

        def order(label: str, query: int, group: str) -> np.ndarray:
            matrix = scored.matrix("", label)
            if matrix.diverged[query]:
                problem = f"{label} diverged for query {matrix.query_ids[query]} and ranks nothing; raise its damping or scale"
                raise InputError(f"{experiment.config.where}: methods", problem)
            return ranking.ranked(matrix.scores[query], experiment.train.ids, group)  # type: ignore[arg-type]

        return self.plan(
            experiment.controls,
            scored.queries("").ids.tolist(),
            experiment.train.ids,
            experiment.seeds,
            order,
            lambda edit, seed: experiment.spec(scored.numerics, edit, seed),
            where=experiment.config.where,
        )

    def results(self, scored: Scored, plan: Plan, rows: Mapping[str, LedgerRow]) -> Results:
        """Curves, AUC-DEL, contrasts, pairing and holes."""
        from orchestrator.results import deletion_results

        return deletion_results(scored.experiment, plan, scored.queries(""), rows)

    def distinct_max(self, n_scored: int, n_controls: int, n_queries: int, n_repeats: int) -> int:
        """Most distinct retrains while the scores are unknown."""
        return distinct_max(n_scored, n_controls, len(self.k) * len(self.groups), n_queries, n_repeats)

    def plan(
        self,
        methods: Mapping[str, bool],
        query_ids: Sequence[int],
        train_ids: np.ndarray,
        seeds: Sequence[int],
        ranking: Ranking,
        spec: SpecFactory,
        where: str = "config",
    ) -> Plan:
        """Removal sets of every cell and the distinct retrains behind them.

        `methods` maps label -> whether it is the planner's control. `ranking` gives the removal order of a scored method.
        A set is a prefix of its order, so sets are nested over k. One reference a seed serves all cells of its repeat.
        """
        ks = self.counts(len(train_ids), where)
        cell = np.empty((len(methods), len(self.groups), len(ks), len(query_ids), len(seeds)), np.int64)
        reference = np.empty(len(seeds), np.int64)
        works = WorkList(spec)
        edits: dict[tuple[str, int, str], list[Edit]] = {}
        for r, seed in enumerate(seeds):
            reference[r] = works.add(Edit(), seed)
            control = {
                group: self._nested(order, ks) for group, order in control_orders(train_ids, seed, self.groups).items()
            }
            for q in range(len(query_ids)):
                for m, (label, is_control) in enumerate(methods.items()):
                    for g, group in enumerate(self.groups):
                        if is_control:
                            sets = control[group]
                        elif (label, q, group) in edits:
                            sets = edits[label, q, group]
                        else:
                            sets = edits[label, q, group] = self._nested(ranking(label, q, group), ks)
                        cell[m, g, :, q, r] = [works.add(edit, seed) for edit in sets]
        controls = tuple(label for label, is_control in methods.items() if is_control)
        ids = tuple(int(i) for i in query_ids)
        return Plan(
            tuple(methods), tuple(self.groups), ks, ids, tuple(seeds), tuple(works.works), cell, reference, controls
        )

    def _nested(self, order: np.ndarray, ks: Sequence[int]) -> list[Edit]:
        return [Edit.removal(order[:k], self.mode) for k in ks]

    def analyse(self, plan: Plan, values: np.ndarray) -> Cells:
        """Paired deltas f(query; removal) - f(query; reference of the same repeat).

        `values` float64 [n_works, n_queries]: the measurement of every query under every retrain, NaN where there is none.
        """
        queries = np.arange(len(plan.query_ids))[:, None]
        removal = values[plan.cell, queries]
        reference = values[plan.reference].T
        return Cells(
            methods=plan.methods,
            groups=plan.groups,
            ks=plan.ks,
            query_ids=plan.query_ids,
            repeats=tuple(range(len(plan.seeds))),
            delta=removal - reference,
            values=removal,
            reference=reference,
            controls=plan.controls,
        )


def control_orders(train_ids: np.ndarray, seed: int, groups: Sequence[str]) -> dict[str, np.ndarray]:
    """Removal orders of the control `random`: one permutation of the train ids a repeat, shared by all queries.

    Its start is the proponents' order, its end (backwards) the opponents', its middle (outwards) that of `least`.
    """
    order = generator(seed, "random control").permutation(np.sort(train_ids))
    middle = order[np.argsort(np.abs(np.arange(len(order)) - len(order) // 2), kind="stable")]
    return {group: {"proponents": order, "opponents": order[::-1], "least": middle}[group] for group in groups}
