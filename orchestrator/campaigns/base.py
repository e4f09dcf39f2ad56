"""What a campaign is: a config block that says which retrains answer its question, and makes tables of their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from orchestrator.records import LedgerRow, Outcome, Work
from tasks.base import Component, Numerics
from tasks.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from influence.base import QueryBlock
    from influence.matrix import ScoreMatrix
    from orchestrator.analysis.checks import Check
    from orchestrator.experiment import Experiment, ScoringGroup
    from orchestrator.results import Results


class UnrankedError(InputError):
    """A method has no scores for a query whose training examples are to be ranked by it: nothing can be planned."""


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
class Scored:
    """What a campaign plans with once scores are there.

    `queries(key)` and `matrix(key, label)` are those of a scoring group and, for the matrix, a method; `outcome(spec_id)` is what a
    scoring model recorded; `rows(spec_ids)` the ledger rows of those that are finished, for campaigns that look before they go on.
    `seen`: spec id -> what such a campaign has taken from a row that is final, so that it reads it once.
    """

    experiment: Experiment
    numerics: Numerics
    groups: Sequence[ScoringGroup]
    queries: Callable[[str], QueryBlock]
    matrix: Callable[[str, str], ScoreMatrix]
    outcome: Callable[[str], Outcome]
    rows: Callable[[Sequence[str]], Mapping[str, LedgerRow]]
    seen: dict[str, np.ndarray] = field(default_factory=dict)


class Campaign(Component):
    """A campaign's config block.

    `asks_queries`: it asks what moves some test points, and by which methods; without, there are no scoring models.
    `judges_own_model`: scores are judged on retrains of the model they came from. `gives_parents`: retrains of arms beyond the
    first start from a parent's weights. `adapts`: it can take as many repeats as `repeats.target_se` needs.
    """

    asks_queries: ClassVar[bool] = True
    judges_own_model: ClassVar[bool] = False
    gives_parents: ClassVar[bool] = False
    adapts: ClassVar[bool] = False

    def task_variants(self, task: Mapping[str, Any], where: str) -> Mapping[str, Mapping[str, Any]]:
        """Label -> what an arm changes in the block `task`: {dotted key: value}. One arm, the task as it stands, by default.

        Raises InputError with `where` (the config file).
        """
        return {"": {}}

    def check(self, experiment: Experiment) -> None:
        """Refuse what does not fit the data, before anything is trained. Raises InputError."""

    def scoring_groups(self, experiment: Experiment, numerics: Numerics) -> list[ScoringGroup]:
        """The models whose scores are asked for; by default `scores.models` references under seeds apart from every repeat's.

        None for a campaign that asks no queries.
        """
        from orchestrator.experiment import ScoringGroup

        if not self.asks_queries:
            return []
        return [ScoringGroup("", experiment.main.label, tuple(experiment.scoring_works(numerics)))]

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """(cells, most distinct retrains) while the scores are unknown."""
        raise NotImplementedError

    def planned(self, scored: Scored) -> CampaignPlan:
        """The plan, exact."""
        raise NotImplementedError

    def results(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow]) -> Results:
        """The tables, from the ledger rows of the plan and of the scoring models by spec id."""
        raise NotImplementedError

    def checks(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow], results: Results) -> Sequence[Check]:
        """What would make a careful reader doubt the verdicts of `results`; every verdict is shown with them."""
        from orchestrator.checking import common_checks

        return common_checks(scored, plan, rows, results)

    def advice(self, scored: Scored, plan: Any, rows: Mapping[str, LedgerRow]) -> str:
        """What would narrow the intervals most cheaply, from the ledger rows there are; "" if there is nothing to say."""
        return ""

    def asked(self, experiment: Experiment, plan: Any) -> list[tuple[str, str]]:
        """What was asked, for the report: (label, value)."""
        return []


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
