"""A config resolved against its data: the opened arms, their identities and the seeds. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from influence.base import Method
from influence.checkpoint import QueryBlock
from orchestrator.config.schema import LoadedConfig
from orchestrator.experiment.arm import Arm, Outputs
from orchestrator.experiment.opening import open_arms
from orchestrator.experiment.scoring_work import ScoringGroup, ScoringWork
from orchestrator.records import RetrainSpec
from tasks.base import Numerics, Split
from tasks.data.edits import Edit
from tasks.digests import digest
from tasks.seeds import purpose_seed, repeat_seed
from tasks.sources import Sources, sources_of, with_sources
from tasks.task import Task


class Experiment:
    """A config resolved against its data: arms, seeds and scoring models.

    `checked_experiment` makes an Experiment and also checks that all parts of the config fit the data.
    An arm is one variant of the task, and most campaigns have one. Members that Arm has too, such as `task`, `spec` and `queries`,
    return those of the first arm.
    """

    def __init__(self, config: LoadedConfig, cache_dir: Path | None):
        self.config, self.settings, self.campaign = config, config.settings, config.campaign
        self.arms = open_arms(config, cache_dir)
        self.main = next(iter(self.arms.values()))

    # --- the first arm -------------------------------------------------------------------------------------------

    @property
    def task(self) -> Task:
        """The task of the first arm."""
        return self.main.task

    @property
    def train(self) -> Split:
        """The train split of the first arm."""
        return self.main.train

    @property
    def train_digest(self) -> str:
        """Digest of the first arm's train set and its preprocessing."""
        return self.main.train_digest

    @property
    def model_identity(self) -> Any:
        """The identity of the first arm's model."""
        return self.main.model_identity

    @property
    def recipe_identity(self) -> Any:
        """The identity of the first arm's recipe."""
        return self.main.recipe_identity

    @property
    def task_id(self) -> str:
        """Digest of the first arm's task record (`Arm.record`), which describes what every retrain records.

        It is the name of the ledger's directory.
        """
        return self.main.task_id

    def spec(self, numerics: Numerics, edit: Edit, seed: int) -> RetrainSpec:
        """Return the spec of one retrain of the first arm."""
        return self.main.spec(numerics, edit, seed)

    def queries(self, outputs: Outputs | None) -> QueryBlock:
        """Return the queries of the first arm; `outputs` are required if `needs_scoring_outputs`."""
        return self.main.queries(outputs)

    @property
    def needs_scoring_outputs(self) -> bool:
        """Whether the queries or their labels depend on the outputs of a scoring model."""
        return self.main.needs_outputs

    # --- methods and seeds ---------------------------------------------------------------------------------------

    @property
    def task_ids(self) -> dict[str, str]:
        """The arms' labels -> the task ids of the ledgers that record their retrains."""
        return {label: arm.task_id for label, arm in self.arms.items()}

    @property
    def methods(self) -> Mapping[str, Method]:
        """Label -> method in the config's order, controls included."""
        return self.config.methods

    @property
    def scored(self) -> dict[str, Method]:
        """Label -> method, for the methods that have scores."""
        return {label: method for label, method in self.methods.items() if not method.is_control}

    @cached_property
    def stored_scores(self) -> dict[str, Method]:
        """Label -> everything that the score stage computes and stores: the scored methods, and what the campaign needs besides."""
        return {**self.scored, **self.campaign.also_scored(self.methods)}

    @property
    def controls(self) -> dict[str, bool]:
        """Label -> whether the method is a control, whose removal sets the planner draws."""
        return {label: method.is_control for label, method in self.methods.items()}

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all possible repeats, one per repeat."""
        repeats = self.settings.repeats
        return (
            repeats.seeds
            if repeats.seeds is not None
            else tuple(repeat_seed(repeats.base_seed, r) for r in range(repeats.most))
        )

    @cached_property
    def scoring_seeds(self) -> tuple[int, ...]:
        """The seeds of the scoring models, none of which is the seed of a repeat; empty for a campaign without queries."""
        taken, seeds, draw = set(self.seeds), [], 0
        while self.campaign.asks_queries and len(seeds) < self.settings.scores.models:
            seed = purpose_seed(self.settings.scores.seed, "scoring model", draw) % 2**32
            draw += 1
            if seed not in taken:
                taken.add(seed)
                seeds.append(seed)
        return tuple(seeds)

    @cached_property
    def run_hex(self) -> str:
        """16 hex digits that identify what the run computes. They do not depend on `compute`, `tracking` and `output` of the config, nor on budgets."""
        asked = {
            "train": self.train_digest,
            "model": self.model_identity,
            "recipe": self.recipe_identity,
            "record": self.task_id,
            "campaign": with_sources(self.campaign.identity(), self.campaign),
            "seeds": list(self.seeds),
            **(
                self.settings.repeats.model_dump(include={"min", "target_se"})
                if self.settings.repeats.is_adaptive
                else {}
            ),
            **(self._asked_queries() if self.campaign.asks_queries else {}),
        }
        if self.task.properties is not None:  # a property's identity lacks its label, but campaigns use the label
            asked["properties"] = {p.label: i for i, p in enumerate(self.task.properties)}
        if len(self.arms) > 1:
            asked["arms"] = {
                label: [arm.train_digest, arm.model_identity, arm.recipe_identity, arm.task_id]
                for label, arm in self.arms.items()
            }
        return digest(asked)[:16]

    def _asked_queries(self) -> dict[str, Any]:
        """Return the part of the run's identity that concerns queries, methods and diagnostics."""
        diagnostics = self.config.diagnostics.items()
        return {
            "queries": self.main.asked.model_dump(mode="json"),
            "measurement": with_sources(self.config.measurement.identity(), self.config.measurement),
            "scores": self.settings.scores.model_dump(mode="json"),
            "methods": {label: self.main.method_identity(method) for label, method in self.methods.items()},
            "order": list(self.methods),
            # only if there are some, so that a config without the block keeps the name of its run directory
            **(
                {"diagnose": [[label, with_sources(d.identity(), *d.made_of)] for label, d in diagnostics]}
                if diagnostics
                else {}
            ),
        }

    @cached_property
    def sources(self) -> Sources:
        """The modules of all plugin components, with the digests of their files."""
        diagnosing = (part for diagnostic in self.config.diagnostics.values() for part in diagnostic.made_of)
        scored = (*self.methods.values(), *diagnosing)
        others = (self.campaign, self.config.measurement, *scored)
        parts = (*others, *(part for arm in self.arms.values() for part in arm.parts))
        return sources_of(*(part for part in parts if part is not None))

    @property
    def run_name(self) -> str:
        """The name of the run directory."""
        return f"{self.settings.name}-{self.run_hex}"

    # --- scoring models ------------------------------------------------------------------------------------------

    def checkpoint_epochs(self, arm: Arm) -> tuple[float, ...]:
        """Return the epochs whose weights are kept: `scores.checkpoints`, or the last epoch."""
        epochs = self.settings.scores.checkpoints
        return epochs if epochs is not None else (arm.task.recipe.last_epoch(),)

    def checkpoint_step(self, arm: Arm, epoch: float) -> int:
        """Return the number of updates made by the end of `epoch`; epoch 0 is before the first update. Raises ValueError past the last epoch."""
        return arm.task.recipe.checkpoint_step(len(arm.train), epoch) if epoch else 0

    def scoring_work(self, arm: Arm, numerics: Numerics, seed: int) -> ScoringWork:
        """Return the training of one scoring model: on the unedited train set of an arm, with this seed.

        It keeps the weights at the steps that methods use.
        """
        n, recipe = len(arm.train), arm.task.recipe
        steps = tuple(sorted({self.checkpoint_step(arm, epoch) for epoch in self.checkpoint_epochs(arm)}))
        # Step 0 ends no update; the update that starts from its weights is the first one.
        rates = {step: recipe.learning_rate_at(n, max(step, 1)) for step in steps}
        return ScoringWork(arm.work(numerics, Edit(), seed, keep_steps=steps), rates)

    def scoring_works(self, numerics: Numerics) -> list[ScoringWork]:
        """Return the scoring models of the first arm, one per scoring seed."""
        return [self.scoring_work(self.main, numerics, seed) for seed in self.scoring_seeds]

    def scoring_groups(self, numerics: Numerics) -> list[ScoringGroup]:
        """Return the scoring models in groups; the campaign decides which models form a group and share one score matrix per method."""
        return self.campaign.scoring_groups(self, numerics)
