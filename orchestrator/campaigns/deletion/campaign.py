"""Deletion curves: remove the top k of a group, retrain, measure the query (Yeh et al. 2022, section 2.2; Han et al. 2020, section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from influence.base import Method
from influence.checkpoint import QueryBlock
from orchestrator.analysis.checks import Check
from orchestrator.analysis.stopping import Stopping
from orchestrator.campaigns.base import Campaign
from orchestrator.campaigns.deletion.adaptive import adaptive_plan
from orchestrator.campaigns.deletion.candidates import Candidates
from orchestrator.campaigns.deletion.cells import deletion_cells
from orchestrator.campaigns.deletion.checks import deletion_checks
from orchestrator.campaigns.deletion.grid import DeletionGrid
from orchestrator.campaigns.deletion.orders import Draws, controls_of, drawn, ranked
from orchestrator.campaigns.deletion.results import deletion_advice, deletion_results
from orchestrator.campaigns.deletion.tracking import deletion_record
from orchestrator.campaigns.deletion.word_edits import SIDES, WordEdits, check_words, key_words_of, side_of
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.outcomes import measured_values, reference_ids
from orchestrator.campaigns.plan import Plan, check_unique, distinct_max
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.config.blocks import RepeatsConfig
from orchestrator.experiment.experiment import Experiment
from orchestrator.records import LedgerRow, Work
from orchestrator.report.data import CampaignPage
from orchestrator.tracking.record import CampaignRecord
from tasks.data.edits import ReplaceBy
from tasks.errors import InputError

Group = Literal["proponents", "opponents", "least", "proponent_words", "opponent_words"]


class Deletion(Campaign):
    """The `deletion` block: removal set sizes `k` (counts, or fractions of the train set below 1), groups, and the edit's mode.

    `candidates`: the training examples that may be removed for a query, by default all. The groups `opponent_words` and
    `proponent_words` keep the examples and replace only their key words, by the special token that `replace_by` names.
    """

    name: ClassVar[str] = "deletion"
    version: ClassVar[int] = 1
    adapts: ClassVar[bool] = True
    has_references: ClassVar[bool] = True

    k: Annotated[tuple[Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)]
    groups: Annotated[tuple[Group, ...], Field(min_length=1)] = ("proponents", "opponents")
    mode: Literal["mask", "drop"] = "mask"
    candidates: Candidates | None = None
    replace_by: ReplaceBy = "pad"

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> Deletion:
        words = [group for group in self.groups if group in SIDES]
        if self.replace_by != "pad" and not words:
            raise ValueError(f"replace_by {self.replace_by!r} needs one of the groups {', '.join(SIDES)}")
        if self.mode != "mask" and len(words) == len(self.groups):
            raise ValueError(f"mode {self.mode!r} needs a group that removes examples; {', '.join(words)} remove none")
        return self

    @field_validator("k", "groups")
    @classmethod
    def _each_once(cls, values: tuple) -> tuple:
        check_unique(values, "values")
        return values

    def counts(self, n_train: int, where: str) -> tuple[int, ...]:
        """Return the k as ascending counts; a fraction becomes k n_train rounded down, and at least 1.

        Raises InputError if a count is not below `n_train`, or two values give the same count.
        """
        counts = sorted(k if isinstance(k, int) else max(1, math.floor(k * n_train + 1e-9)) for k in self.k)
        if counts[-1] >= n_train:
            raise InputError(f"{where}: deletion.k", f"{counts[-1]} is not below the {n_train} training examples")
        if len(set(counts)) != len(counts):
            raise InputError(
                f"{where}: deletion.k", f"two values give the same count for {n_train} training examples: {counts}"
            )
        return tuple(counts)

    def identity(self) -> dict[str, Any]:
        """Return name, version and options. Options that did not exist before are left out if unused, so that older runs keep their name."""
        unused = [("candidates", self.candidates is None), ("replace_by", SIDES.keys().isdisjoint(self.groups))]
        return {key: value for key, value in super().identity().items() if (key, True) not in unused}

    def also_scored(self, methods: Mapping[str, Method]) -> Mapping[str, Method]:
        """Return the key words that groups of words need."""
        return key_words_of(self.groups, methods)

    def check(self, experiment: Experiment) -> None:
        """Raise InputError for a k or candidates that do not fit the data, or for which a control has too few examples to draw from."""
        most = self._most(experiment)
        if self.candidates is not None:
            self.candidates.check(experiment, most, experiment.config.where)
        check_words(experiment, self.groups, self.replace_by)
        by_label = [label for label, control in controls_of(experiment).items() if control.by_label]
        if not by_label:
            return
        if experiment.needs_scoring_outputs:
            # `planned` checks each query, since labels are known once a model is trained
            self._check_any_label(experiment, by_label, most)
            return
        draws = Draws.of(experiment, experiment.queries(None), most, self.candidates)
        for key, label, group in product(np.unique(draws.keys).tolist(), by_label, self.groups):
            draws.order(label, key, side_of(group), experiment.seeds[0])

    def _check_any_label(self, experiment: Experiment, by_label: Sequence[str], most: int) -> None:
        """Raise InputError for a k if there is no label that a query may have for which all controls have enough examples."""
        refusals = []
        for query_label in range(len(experiment.train.classes)):
            try:
                for label, group in product(by_label, self.groups):
                    drawn(experiment, label, query_label, side_of(group), experiment.seeds[0], most)
                return
            except InputError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]

    def _most(self, experiment: Experiment) -> int:
        """Return the largest k. Raises InputError for a k that does not fit the train set."""
        return self.counts(len(experiment.train), experiment.config.where)[-1]

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """Return (number of cells, largest possible number of distinct retrains), for the time before scores are known."""
        n_methods, n_repeats = len(experiment.methods), len(experiment.seeds)
        cells = n_methods * len(self.groups) * len(self.k) * n_queries * n_repeats
        n_labels = min(n_queries, len(np.unique(experiment.train.labels)))
        controls = controls_of(experiment).values()
        n_draws = sum(n_labels if control.by_label else 1 for control in controls)
        if self.candidates is not None:
            n_draws = len(controls) * n_queries  # every query has its own candidates, so no draws are shared
        return cells, self.distinct_max(len(experiment.scored), n_draws, n_queries, n_repeats)

    def removable(self, experiment: Experiment, queries: QueryBlock) -> np.ndarray | None:
        """Return the candidates of each query; None if all train rows may be removed."""
        return self.candidates.rows(experiment, queries) if self.candidates else None

    def planned(self, scored: Scored) -> Plan:
        """Return the plan from the scores of the only scoring group; with `target_se`, as far as the finished retrains determine it."""
        experiment, queries = scored.experiment, scored.queries("")
        draws = Draws.of(experiment, queries, self._most(experiment), self.candidates)
        grid = DeletionGrid(
            methods=experiment.controls,
            groups=self.groups,
            ks=self.counts(len(experiment.train), experiment.config.where),
            query_ids=queries.ids.tolist(),
            draw_keys=draws.keys,
            seeds=experiment.seeds,
            ranking=lambda label, query, group: ranked(scored, label, query, group, draws.of_query(query)),
            draw=draws.order,
            spec=lambda edit, seed: experiment.spec(scored.numerics, edit, seed),
            mode=self.mode,
            words=WordEdits(scored, self.replace_by),
        )
        stopping = stopping_of(experiment.settings.repeats)
        if stopping is not None:
            return adaptive_plan(grid, stopping, lambda works: finished_values(scored, works), deletion_cells)
        return fixed_plan(grid)

    def results(self, scored: Scored, plan: Plan, rows: Mapping[str, LedgerRow]) -> Results:
        """Return the tables of curves, AUC-DEL, contrasts, pairing and holes, with the verdicts."""
        return deletion_results(scored.experiment, plan, scored.queries(""), rows)

    def checks(self, scored: Scored, plan: Plan, rows: Mapping[str, LedgerRow], results: Results) -> Sequence[Check]:
        """Return the common checks, and those for controls that change the measurement and removals that break the model."""
        return deletion_checks(scored, plan, rows, results)

    def page(self, finished: FinishedRun) -> CampaignPage:
        """Return the report sections: curves, AUC-DEL, contrasts, pairing, and a page per query."""
        from orchestrator.campaigns.deletion.page import deletion_page  # on demand, since it imports matplotlib

        return deletion_page(finished, self.mode, self.candidates, self.replace_by)

    def tracking(self, finished: FinishedRun) -> CampaignRecord:
        """Return the tracking record: the design as parameters, and a child run per curve."""
        return deletion_record(finished)

    def advice(self, scored: Scored, plan: Plan, rows: Mapping[str, LedgerRow]) -> str:
        """Return a sentence if more queries would narrow the widest interval more cheaply than more repeats."""
        return deletion_advice(scored.experiment, plan, scored.queries(""), rows, shares_draws=self.candidates is None)

    def distinct_max(self, n_scored: int, n_draws: int, n_queries: int, n_repeats: int) -> int:
        """Return the largest possible number of distinct retrains; `n_draws`: removal orders that the controls draw per repeat."""
        return distinct_max(n_scored, n_draws, len(self.k) * len(self.groups), n_queries, n_repeats)


def fixed_plan(grid: DeletionGrid) -> Plan:
    """Return the plan of every curve in every repeat."""
    for _ in grid.seeds:
        grid.add()
    return grid.plan()


def stopping_of(repeats: RepeatsConfig) -> Stopping | None:
    """Return the stopping rule that `repeats` configures; None for a fixed number of repeats."""
    if repeats.min is None or repeats.max is None or repeats.target_se is None:
        return None
    return Stopping(repeats.min, repeats.max, repeats.target_se)


def finished_values(scored: Scored, works: Sequence[Work]) -> np.ndarray | None:
    """Return the measurement of every query under every work [n_works, n_queries]; None if a work is not finished.

    A result is final, so it is cached in `scored.seen`. A quarantined row is not, since the retrain may still be repeated.
    """
    new = [work for work in works if work.spec_id not in scored.seen]
    references = dict.fromkeys(reference_ids(scored.experiment, new))
    rows = scored.rows([*(work.spec_id for work in new), *references])
    if any(work.spec_id not in rows for work in new):
        return None
    queries = scored.queries("")
    values = measured_values(scored.experiment, new, queries, rows)
    measured = {work.spec_id: of_work for work, of_work in zip(new, values, strict=True)}
    final = {spec_id: v for spec_id, v in measured.items() if rows[spec_id].outcome.status != "quarantined"}
    scored.seen.update(final)
    found = [scored.seen[i] if i in scored.seen else measured[i] for i in (work.spec_id for work in works)]
    return np.reshape(found, (len(works), len(queries.ids)))
