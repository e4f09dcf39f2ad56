"""Debias: undo the sentences that amplify an association, reinforce those that mitigate it, and measure it again.

Silva et al. 2022, section 4.4 (Table 3) and appendix D (over-biasing, Tables 5 and 6).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from orchestrator.campaigns.base import Campaign, Scored, UnrankedError
from orchestrator.campaigns.plan import DistinctWorks, check_unique
from orchestrator.records import LedgerRow, Work
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.seeds import generator
from tasks.suggestions import did_you_mean

if TYPE_CHECKING:
    from orchestrator.analysis.checks import Check
    from orchestrator.experiment import Experiment, ScoringGroup
    from orchestrator.results import Results
    from tasks.base import Numerics

Action = Literal["undo", "reinforce", "both", "amplify"]
Start = Literal["original", "hard_debiased"]
# What an action does to the amplifying set A and the mitigating set M: the weights of their sentences (0: not shown).
WEIGHTS: Mapping[str, tuple[int, int]] = {"undo": (-1, 0), "reinforce": (0, 1), "both": (-1, 1), "amplify": (1, -1)}
HARD_ARM = "hard_debias"
HARD_STEP = 1
BASE_ARM = "base"


@dataclass(frozen=True)
class FineTune:
    """One fine-tune of the grid: made for property `corrected`, by `method`'s sets, under repeat `repeat`.

    `n_amplifying`, `n_mitigating`: sentences shown of A and M, fewer than `size` where the method scores fewer of that sign.
    """

    corrected: str
    method: str
    action: str
    size: int
    passes: int
    start: str
    repeat: int
    work: int
    n_amplifying: int
    n_mitigating: int


@dataclass(frozen=True)
class DebiasPlan:
    """Base models, hard-debiased ones (position -1 without), and every fine-tune, over distinct works."""

    works: tuple[Work, ...]
    base: tuple[int, ...]  # per repeat
    hard: tuple[int, ...]
    fine_tunes: tuple[FineTune, ...]

    is_final: ClassVar[bool] = True

    @property
    def n_requested(self) -> int:
        """Fine-tunes asked for."""
        return len(self.fine_tunes)

    def references(self) -> list[str]:
        """Spec ids of the base models."""
        return [self.works[i].spec_id for i in self.base]

    def columns(self) -> dict[str, list]:
        """corrected, method, action, size, passes, start, repeat, n_amplifying, n_mitigating, spec_id; hard-debiasing as an action of its own."""
        names = ("corrected", "method", "action", "size", "passes", "start", "repeat", "n_amplifying", "n_mitigating")
        hard = [("", "", HARD_ARM, 0, 0, "original", r, 0, 0, i) for r, i in enumerate(self.hard) if i >= 0]
        rows = [*hard, *((*(getattr(one, name) for name in names), one.work) for one in self.fine_tunes)]
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=False))
        return {**columns, "spec_id": [self.works[row[-1]].spec_id for row in rows]}


class Debias(Campaign):
    """Fine-tune word vectors on the sentences that influence a property most, and measure every property again.

    `correct`: labels of the properties to move; `halves`: label -> two properties that test the two halves of its word lists; the sets
    for a half are made from that half's own influence. `bias`: absolute (A raises |value|; the paper's text) or signed (A raises the
    value; the published code). A: the `size` sentences with the highest influence on the bias, M: those with the lowest; sentences of
    the wrong sign are never shown. `finetune`: the recipe, its `passes` are the grid's; pair options default to the task recipe's.
    `random`, listed among the methods, draws A and M among the sentences that the first method scores, as a control.
    """

    name: ClassVar[str] = "debias"
    version: ClassVar[int] = 1
    judges_own_model: ClassVar[bool] = True
    gives_parents: ClassVar[bool] = True

    correct: Annotated[tuple[str, ...], Field(min_length=1)]
    halves: dict[str, tuple[str, str]] = Field({})
    bias: Literal["absolute", "signed"] = "absolute"
    actions: Annotated[tuple[Action, ...], Field(min_length=1)] = ("undo", "reinforce", "both")
    sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (10, 100)
    passes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 10)
    starts: Annotated[tuple[Start, ...], Field(min_length=1)] = ("original", "hard_debiased")
    finetune: dict[str, Any] = Field({"name": "reinforce"})
    hard_debias: dict[str, Any] = Field({"name": "hard_debias"})
    permutations: int = Field(10_000, ge=1)
    sentences: int = Field(5, ge=0)

    @field_validator("correct", "actions", "sizes", "passes", "starts")
    @classmethod
    def _each_once(cls, values: tuple) -> tuple:
        check_unique(values, "values")
        return values

    @model_validator(mode="after")
    def _halves_of_corrected(self) -> Debias:
        if unknown := [label for label in self.halves if label not in self.correct]:
            raise ValueError(f"halves: {unknown[0]!r} is not among `correct`{did_you_mean(unknown[0], self.correct)}")
        halves = [half for pair in self.halves.values() for half in pair]
        if whole := [half for half in halves if half in self.correct or halves.count(half) > 1]:
            raise ValueError(f"halves: {whole[0]!r} can be a half of one property only, and is not corrected itself")
        if "passes" in self.finetune:
            raise ValueError("finetune.passes is set by the grid; give debias.passes")
        return self

    @property
    def hard(self) -> bool:
        """Whether hard-debiased vectors are made: shown as a variant, and started from."""
        return "hard_debiased" in self.starts

    @property
    def made_for(self) -> tuple[str, ...]:
        """Properties whose influence makes sets: the corrected ones and their halves."""
        return tuple(dict.fromkeys([*self.correct, *(half for halves in self.halves.values() for half in halves)]))

    def task_variants(self, task: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
        """base, hard_debias, and one arm per number of passes."""
        recipe = task.get("recipe")
        from tasks.recipes.skip_gram import PairOptions

        options = PairOptions.model_fields
        pairs = {key: recipe[key] for key in options if key in recipe} if isinstance(recipe, Mapping) else {}
        found: dict[str, dict[str, Any]] = {BASE_ARM: {}}
        if self.hard:
            found[HARD_ARM] = {"recipe": dict(self.hard_debias)}
        return found | {passes_arm(n): {"recipe": {**pairs, **self.finetune, "passes": n}} for n in self.passes}

    def check(self, experiment: Experiment) -> None:
        """Refuse properties the task does not measure or refused, and queries that leave one out."""
        where, task = f"{experiment.config.where}: debias", experiment.task
        labels = property_labels(task)
        if labels is None:
            raise InputError(where, f"task {experiment.settings.task.get('name')!r} has no properties to correct")
        for key, names in (("correct", self.correct), *((f"halves.{k}", v) for k, v in self.halves.items())):
            for name in names:
                if name not in labels:
                    refused = getattr(task, "refused", {}).get(name)
                    listed = f"{', '.join(labels)}{did_you_mean(name, labels)}"
                    raise InputError(f"{where}.{key}", refused or f"{name!r} is not a property; {listed}")
        if experiment.needs_scoring_outputs:
            problem = "where, or a measurement of the predicted label, leaves open which properties are asked about"
            raise InputError(f"{experiment.config.where}: queries", problem)
        asked = experiment.queries(None)
        left_out = [name for name in self.made_for if asked.split != "properties" or labels[name] not in asked.ids]
        if left_out:
            raise InputError(f"{experiment.config.where}: queries", f"{left_out[0]!r} is corrected, and is no query")
        self._check_checkpoints(experiment)
        if not experiment.scored:
            raise InputError(f"{experiment.config.where}: methods", "no method has scores to make sets from")

    def _check_checkpoints(self, experiment: Experiment) -> None:
        """Fine-tunes start from the last checkpoint, and are compared with the finished model: they must be the same."""
        recipe, n = experiment.task.recipe, len(experiment.train)
        last = float(getattr(recipe, "epochs", 1))
        kept = max(experiment.checkpoint_epochs(experiment.main))
        if recipe.checkpoint_step(n, kept) != recipe.checkpoint_step(n, last):
            raise InputError(
                f"{experiment.config.where}: scores.checkpoints",
                f"the last one, {kept:g}, is not the end of training, {last:g}, from which fine-tunes start",
            )

    def scoring_groups(self, experiment: Experiment, numerics: Numerics) -> list[ScoringGroup]:
        """The base model of every repeat: its own fine-tunes are made from its own scores."""
        from orchestrator.experiment import ScoringGroup

        return [
            ScoringGroup(f"r{r}", BASE_ARM, (experiment.scoring_work(experiment.main, numerics, seed),))
            for r, seed in enumerate(experiment.seeds)
        ]

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """(fine-tunes, most distinct retrains)."""
        grid = len(self.actions) * len(self.sizes) * len(self.passes) * len(self.starts)
        cells = len(experiment.seeds) * len(self.made_for) * len(experiment.methods) * grid
        return cells, cells + (1 + self.hard) * len(experiment.seeds)

    def planned(self, scored: Scored) -> DebiasPlan:
        """Base and hard-debiased models, then the grid of fine-tunes, repeat by repeat."""
        experiment, works = scored.experiment, DistinctWorks()
        base, hard, fine_tunes = [], [], []
        for r, seed in enumerate(experiment.seeds):
            [model] = scored.groups[r].models
            base.append(works.add(model.work))
            parents = {"original": {"spec_id": model.work.spec_id, "step": model.work.keep_steps[-1]}}
            hard.append(-1)
            if self.hard:
                debiased = experiment.arms[HARD_ARM].work(
                    scored.numerics, Edit(), seed, keep_steps=(HARD_STEP,), parent=parents["original"]
                )
                hard[r] = works.add(debiased)
                parents["hard_debiased"] = {"spec_id": debiased.spec_id, "step": HARD_STEP}
            for cell, edit in self._cells(scored, r):
                arm = experiment.arms[passes_arm(cell["passes"])]
                work = arm.work(scored.numerics, edit, seed, parent=parents[cell["start"]])
                fine_tunes.append(FineTune(**cell, repeat=r, work=works.add(work)))
        return DebiasPlan(tuple(works.works), tuple(base), tuple(hard), tuple(fine_tunes))

    def _cells(self, scored: Scored, repeat: int) -> Iterator[tuple[dict[str, Any], Edit]]:
        for label in self.made_for:
            for method in scored.experiment.methods:
                amplifying, mitigating = self.sets(scored, repeat, label, method)
                for action in self.actions:
                    for size in self.sizes:
                        weight_a, weight_m = WEIGHTS[action]
                        a, m = (amplifying[:size] if weight_a else []), (mitigating[:size] if weight_m else [])
                        shown = {int(i): float(weight_a) for i in a} | {int(i): float(weight_m) for i in m}
                        edit = Edit.selection(shown) if shown else Edit()
                        for passes in self.passes:
                            for start in self.starts:
                                cell = {"corrected": label, "method": method, "action": action, "size": size}
                                cell |= {"passes": passes, "start": start}
                                yield {**cell, "n_amplifying": len(a), "n_mitigating": len(m)}, edit

    def sets(self, scored: Scored, repeat: int, label: str, method: str) -> tuple[np.ndarray, np.ndarray]:
        """Train ids of A and M for a property, strongest first: int64 each.

        Of a control: a random order of the sentences that the first scored method gives any influence, its two halves.
        """
        experiment, key = scored.experiment, scored.groups[repeat].key
        is_control = experiment.methods[method].is_control
        source = next(iter(experiment.scored)) if is_control else method
        matrix = scored.matrix(key, source)
        labels = property_labels(experiment.task) or {}
        row = matrix.row(labels[label]).astype(np.float64) * self.sign(scored, repeat, label)
        if np.isnan(row).any():
            raise UnrankedError(
                f"{experiment.config.where}: methods[{list(experiment.methods).index(source)}]",
                f"{source} diverged for {label} in repeat {repeat}: raise damping or scale",
            )
        if is_control:
            ids = matrix.train_ids[row != 0]
            order = generator(experiment.seeds[repeat], "random sentences", labels[label]).permutation(ids)
            return order[::2], order[1::2]
        order = np.lexsort((matrix.train_ids, -row))
        ranked, values = matrix.train_ids[order], row[order]
        return ranked[values > 0], ranked[::-1][values[::-1] < 0]

    def sign(self, scored: Scored, repeat: int, label: str) -> float:
        """1 where raising the property's value is raising the bias, else -1."""
        if self.bias == "signed":
            return 1.0
        [model] = scored.groups[repeat].models
        value = property_value(scored.experiment, scored.outcome(model.work.spec_id).outputs, label)
        return -1.0 if value < 0 else 1.0

    def results(self, scored: Scored, plan: DebiasPlan, rows: Mapping[str, LedgerRow]) -> Results:
        """Effects before and after, directions, the grid and the chosen settings."""
        from orchestrator.debiasing import debias_results

        return debias_results(self, scored, plan, rows)

    def checks(
        self, scored: Scored, plan: DebiasPlan, rows: Mapping[str, LedgerRow], results: Results
    ) -> Sequence[Check]:
        """Seeds, fine-tunes on random sentences, and scores; word vectors have no accuracy."""
        from orchestrator.checking import debias_checks

        return debias_checks(scored, results)

    def asked(self, experiment: Experiment, plan: DebiasPlan) -> list[tuple[str, str]]:
        """What was asked."""
        return [
            (
                "Question",
                "does undoing the sentences that amplify a property, and reinforcing those that mitigate it, move it?",
            ),
            ("Properties", ", ".join(self.correct)),
            (
                "Settings",
                f"{', '.join(self.actions)}; {_or(self.sizes)} sentences a set; {_or(self.passes)} passes; from {', '.join(self.starts)}",
            ),
            ("Bias", self.bias),
            (
                "Repeats",
                f"{len(experiment.seeds)} (seeds {', '.join(map(str, experiment.seeds))}), each with its own base model and scores",
            ),
        ]


def _or(values: Sequence[int]) -> str:
    return " or ".join(map(str, values))


def passes_arm(passes: int) -> str:
    """The arm that fine-tunes with so many passes."""
    return f"passes-{passes}"


def property_labels(task: Any) -> dict[str, int] | None:
    """Label -> id of every measured property; None for a task that has none."""
    properties = getattr(task, "properties", None)
    if properties is None:
        return None
    return {p.label: int(i) for p, i in zip(properties, task.splits["properties"].ids, strict=True)}


def property_value(experiment: Experiment, outputs: Mapping[str, np.ndarray], label: str) -> float:
    """The recorded value of a property."""
    task = experiment.task
    labels = property_labels(task) or {}
    rows = task.splits["properties"].rows_of([labels[label]])
    return float(outputs["properties"][np.searchsorted(task.measured["properties"], rows)[0], 0])
