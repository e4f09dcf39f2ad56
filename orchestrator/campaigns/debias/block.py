"""The config block of a debias campaign: properties, actions, set sizes, passes, and the sets of sentences made from scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from orchestrator.campaigns.base import Campaign
from orchestrator.campaigns.debias.plan import (
    BASE_ARM,
    HARD_ARM,
    Action,
    DebiasPlan,
    Start,
    passes_arm,
    property_labels,
    property_value,
)
from orchestrator.campaigns.plan import check_unique
from orchestrator.campaigns.scored import Scored, UnrankedError
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.scoring_work import ScoringGroup
from tasks.base import Numerics
from tasks.errors import InputError
from tasks.recipes.pair_options import PairOptions
from tasks.seeds import generator
from tasks.suggestions import did_you_mean


class DebiasBlock(Campaign):
    """Fine-tune word vectors on the sentences that influence a property most, and measure every property again.

    `correct`: labels of the properties to change. `halves`: label -> two properties that measure the two halves of its word lists; the
    sets for a half are made from the influence on that half. `bias`: absolute (amplifying means raising |value|; the paper's text) or signed
    (raising the value; the published code). Set A: the `size` sentences with the highest influence on the bias; set M: those with the
    lowest. A holds only sentences with a positive influence on the bias, and M only sentences with a negative one. `finetune`: the recipe,
    whose `passes` come from the grid; its pair options default to those of the task's recipe. The method `random` is a control: it draws A
    and M from the sentences to which the first scored method gives any influence.
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
    def _halves_of_corrected(self) -> DebiasBlock:
        if unknown := [label for label in self.halves if label not in self.correct]:
            raise ValueError(f"halves: {unknown[0]!r} is not among `correct`{did_you_mean(unknown[0], self.correct)}")
        halves = [half for pair in self.halves.values() for half in pair]
        if whole := [half for half in halves if half in self.correct or halves.count(half) > 1]:
            raise ValueError(f"halves: {whole[0]!r} can be a half of one property only, and must not be in `correct`")
        if "passes" in self.finetune:
            raise ValueError("finetune.passes is set by the grid; give debias.passes")
        return self

    @property
    def hard(self) -> bool:
        """Whether hard-debiased vectors are made; fine-tunes start from them, and they are shown as a variant."""
        return "hard_debiased" in self.starts

    @property
    def made_for(self) -> tuple[str, ...]:
        """The properties for which sets are made: the corrected ones and their halves."""
        return tuple(dict.fromkeys([*self.correct, *(half for halves in self.halves.values() for half in halves)]))

    def task_variants(self, task: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
        """Return the arms base and hard_debias, and one arm per number of passes, with their changes of the task block."""
        recipe = task.get("recipe")
        options = PairOptions.model_fields
        pairs = {key: recipe[key] for key in options if key in recipe} if isinstance(recipe, Mapping) else {}
        found: dict[str, dict[str, Any]] = {BASE_ARM: {}}
        if self.hard:
            found[HARD_ARM] = {"recipe": dict(self.hard_debias)}
        return found | {passes_arm(n): {"recipe": {**pairs, **self.finetune, "passes": n}} for n in self.passes}

    def check(self, experiment: Experiment) -> None:
        """Raise InputError for properties that the task does not measure or has refused, and for queries that leave one out."""
        where, task = f"{experiment.config.where}: debias", experiment.task
        labels = property_labels(task)
        if labels is None:
            raise InputError(where, f"task {experiment.settings.task.get('name')!r} has no properties to correct")
        for key, names in (("correct", self.correct), *((f"halves.{k}", v) for k, v in self.halves.items())):
            for name in names:
                if name not in labels:
                    refused = task.refused.get(name)
                    listed = f"{', '.join(labels)}{did_you_mean(name, labels)}"
                    raise InputError(f"{where}.{key}", refused or f"{name!r} is not a property; {listed}")
        if experiment.needs_scoring_outputs:
            problem = "the properties must be fixed by the config; remove `where`, and use no measurement of the predicted label"
            raise InputError(f"{experiment.config.where}: queries", problem)
        asked = experiment.queries(None)
        left_out = [name for name in self.made_for if asked.split != "properties" or labels[name] not in asked.ids]
        if left_out:
            raise InputError(
                f"{experiment.config.where}: queries", f"{left_out[0]!r} is corrected, so it must be a query"
            )
        self._check_checkpoints(experiment)
        if not experiment.scored:
            raise InputError(f"{experiment.config.where}: methods", "no method has scores to make sets from")

    def _check_checkpoints(self, experiment: Experiment) -> None:
        """Raise InputError unless the last checkpoint is the finished model: fine-tunes start from the one and are compared with the other."""
        arm, last = experiment.main, experiment.task.recipe.last_epoch()
        kept = max(experiment.checkpoint_epochs(arm))
        if experiment.checkpoint_step(arm, kept) != experiment.checkpoint_step(arm, last):
            raise InputError(
                f"{experiment.config.where}: scores.checkpoints",
                f"the last one, {kept:g}, is not the end of training, {last:g}, from which fine-tunes start",
            )

    def scoring_groups(self, experiment: Experiment, numerics: Numerics) -> list[ScoringGroup]:
        """Return one group per repeat, with its base model, since the fine-tunes of a repeat use the scores of its own base model."""
        return [
            ScoringGroup(f"r{r}", BASE_ARM, (experiment.scoring_work(experiment.main, numerics, seed),))
            for r, seed in enumerate(experiment.seeds)
        ]

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """Return (number of fine-tunes, largest possible number of distinct retrains)."""
        grid = len(self.actions) * len(self.sizes) * len(self.passes) * len(self.starts)
        cells = len(experiment.seeds) * len(self.made_for) * len(experiment.methods) * grid
        return cells, cells + (1 + self.hard) * len(experiment.seeds)

    def sets(self, scored: Scored, repeat: int, label: str, method: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the train ids of A and of M for a property, strongest first: two int64 arrays.

        For a control, these are alternate elements of a random order of the sentences to which the first scored method gives any
        influence. Raises UnrankedError if the method diverged for the property.
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
        """Return 1 if raising the property's value raises the bias, else -1."""
        if self.bias == "signed":
            return 1.0
        [model] = scored.groups[repeat].models
        value = property_value(scored.experiment, scored.outcome(model.work.spec_id).outputs, label)
        return -1.0 if value < 0 else 1.0

    def asked(self, experiment: Experiment, plan: DebiasPlan) -> list[tuple[str, str]]:
        """Return the question and the design for the report."""
        return [
            (
                "Question",
                "does a property change when the sentences that amplify it are undone and those that mitigate it reinforced?",
            ),
            ("Properties", ", ".join(self.correct)),
            (
                "Settings",
                f"{', '.join(self.actions)}; {_or(self.sizes)} sentences per set; {_or(self.passes)} passes; from {', '.join(self.starts)}",
            ),
            ("Bias", self.bias),
            (
                "Repeats",
                f"{len(experiment.seeds)} (seeds {', '.join(map(str, experiment.seeds))}), each with its own base model and scores",
            ),
        ]


def _or(values: Sequence[int]) -> str:
    return " or ".join(map(str, values))
