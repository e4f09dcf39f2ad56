"""A config resolved against its data: the opened arms, their identities and the seeds. Needs no torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from influence.base import Method
from influence.checkpoint import QueryBlock
from influence.diagnostic import Diagnostic
from influence.selections import has_selections
from orchestrator.config.schema import LoadedConfig
from orchestrator.config.yaml_files import ConfigError, changed_task
from orchestrator.experiment.arm import Arm, Outputs, placed, where_of
from orchestrator.experiment.scoring_work import ScoringGroup, ScoringWork
from orchestrator.records import RetrainSpec
from tasks.base import Numerics, Split
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.digests import canonical_json, digest
from tasks.hooks import overrides
from tasks.model import Model
from tasks.observer import TrainingPart
from tasks.registry import RECIPES, TASKS
from tasks.seeds import purpose_seed, repeat_seed
from tasks.sources import Sources, sources_of, with_sources
from tasks.suggestions import listed
from tasks.task import OpenRequest, Task
from tasks.training import check_micro_batch


class Experiment:
    """A config resolved against its data: arms, seeds and scoring models.

    An arm is one variant of the task, and most campaigns have one. Members that Arm has too, such as `task`, `spec` and `queries`,
    return those of the first arm.
    """

    def __init__(self, config: LoadedConfig, cache_dir: Path | None):
        self.config, self.settings, self.campaign = config, config.settings, config.campaign
        self._cache_dir = cache_dir
        self._opened: dict[str, tuple[Task, Any]] = {}
        self.arms = {label: self._arm(label, changes) for label, changes in config.arms.items()}
        self.main = next(iter(self.arms.values()))
        self._check()

    def _where(self, label: str) -> str:
        return where_of(label, self.config)

    def _arm(self, label: str, changes: Mapping[str, Any]) -> Arm:
        task, part = self._open(label, changes)
        return Arm(label, task, self.config, part)

    def _open(self, label: str, changes: Mapping[str, Any]) -> tuple[Task, Any]:
        """Open the task of an arm; return it and the parsed block. Arms that differ only in the recipe share the data."""
        config, where = self.config, self._where(label)
        block = changed_task(config.settings.task, changes, where)
        data = canonical_json({key: value for key, value in block.items() if key != "recipe"})
        if data in self._opened and "recipe" in block:
            task, part = self._opened[data]
            return self._with_recipe(task, block["recipe"], where), part
        parsed = parse_named(TASKS, block, where, "task", self.settings.plugins) if changes else config.task
        with placed(where):
            task = parsed.open(self._request(where))
        if not isinstance(task, Task):
            problem = f"{block['name']!r} opens a {type(task).__name__}, which does not derive from tasks.task.Task"
            raise ConfigError(f"{where}: task.name", problem)
        self._opened[data] = task, parsed
        return task, parsed

    def _with_recipe(self, task: Task, options: Any, where: str) -> Task:
        """Return the same task with another recipe.

        `Task.with_recipe` makes it if the recipe must be adapted to the data; otherwise the recipe is set on a copy of the task.
        """
        request = self._request(where).at("recipe")
        fitted = task.with_recipe(options, request)
        if fitted is not None:
            return fitted
        other = copy.copy(task)
        other.recipe = parse_named(RECIPES, options, where, request.key, request.plugins)
        return other

    def _request(self, where: str) -> OpenRequest:
        return OpenRequest(self.config.base_dir, self._cache_dir, where, plugins=self.settings.plugins)

    def _check(self) -> None:
        """Refuse what does not fit the data, before anything is trained. Raises InputError."""
        checks = (
            self._check_queries,
            self._check_settings,
            lambda: self.campaign.check(self),
            self._check_recipes,
            self._check_observers,
            self._check_ledgers,
            self._check_methods,
            self._check_diagnostics,
        )
        for check in checks:
            check()

    def _check_queries(self) -> None:
        for arm in self.arms.values() if self.campaign.asks_queries else ():
            arm.check_queries()

    def _check_settings(self) -> None:
        """Check settings that not every campaign takes. Raises ConfigError."""
        if self.campaign.judges_own_model and (n_models := self.settings.scores.models) > 1:
            problem = (
                f"{n_models} is not allowed: {self.settings.campaign} computes the scores of each repeat from one model, "
                "the reference of that repeat; allowed: 1"
            )
            raise ConfigError(f"{self.config.where}: scores.models", problem)
        if self.settings.repeats.is_adaptive and not self.campaign.adapts:
            problem = f"{self.settings.campaign} needs a fixed number of repeats; allowed: count or seeds"
            raise ConfigError(f"{self.config.where}: repeats.target_se", problem)

    def _check_methods(self) -> None:
        """Check that every method fits every arm whose models are scored. Raises InputError."""
        try:
            scored_arms = self._scored_arms()
        except ValueError as error:
            problem = f"{error}; 0 is allowed, too, for the weights before the first update"
            raise ConfigError(f"{self.config.where}: scores.checkpoints", problem) from error
        for position, method in enumerate(self.methods.values()):
            for arm in scored_arms:
                method.check(arm.task, self.config.base_dir, f"{self.config.where}: methods[{position}]")
                self._check_explained(method, arm, position)
            if not method.needs and not self.needs_scoring_outputs:
                # `prepare` raises InputError if the method reads its scores from a file that lacks one of these queries.
                method.prepare(self.task, self.config.base_dir, self.queries(None))

    def _check_diagnostics(self) -> None:
        """Check that every diagnostic fits the scored arms, the methods and the number of checkpoints. Raises InputError."""
        for position, diagnostic in enumerate(self.config.diagnostics.values()):
            for arm in self._scored_arms():
                where = f"{self.config.where}: diagnose.{position}"
                n_checkpoints = len({self.checkpoint_step(arm, epoch) for epoch in self.checkpoint_epochs(arm)})
                diagnostic.check(arm.task, self.config.base_dir, self.scored, n_checkpoints, where)

    def _check_explained(self, method: Method, arm: Arm, position: int) -> None:
        """Check that the rows of the queries' split have the loss that a method explains. Raises ConfigError."""
        allowed, split = method.explained_splits(arm.task), arm.asked.split
        if allowed is not None and split not in allowed:
            problem = (
                f"{method.name} explains a loss that rows of {split!r} do not have; "
                f"allowed: queries of {listed(sorted(allowed))}"
            )
            raise ConfigError(f"{self.config.where}: methods[{position}]", problem)

    def _check_recipes(self) -> None:
        """Check that each recipe fits its task and the first arm's kind of task, and gets the parent that it needs.

        Raises ConfigError.
        """
        wanted = self.task.recipe.fits
        for label, arm in self.arms.items():
            has_parent = self.campaign.gives_parents and arm is not self.main
            if arm.task.recipe.needs_parent and not has_parent:
                problem = f"{arm.task.recipe.name!r} changes a parent's weights, and this arm has no parent"
                raise ConfigError(f"{self.config.where}: task.recipe.name", problem)
            if (fits := arm.task.recipe.fits) != wanted:
                problem = f"{arm.task.recipe.name!r} fits tasks of {fits}, not of {wanted}"
                raise ConfigError(f"{self.config.where} (arm {label}): task.recipe.name", problem)
            micro_batch = self.settings.compute.micro_batch
            check_micro_batch(arm.task.recipe, micro_batch, f"{self._where(label)}: compute.micro_batch")
            arm.task.recipe.check_task(arm.task, f"{self._where(label)}: task.recipe")

    def _check_observers(self) -> None:
        """Check that the data of every arm has what each observer needs. Raises InputError."""
        for position, observer in enumerate(self.config.observers):
            for label, arm in self.arms.items():
                observer.check_task(arm.task, f"{self._where(label)}: observe.{position}")

    def check_networks(self) -> None:
        """Check options that need a network, such as names of layers; called in the driver once the tasks are prepared.

        Raises InputError.
        """
        networks: dict[str, Any] = {}

        def network_of(arm: Arm) -> Any:
            built = canonical_json([arm.train_digest, arm.model_identity])
            if built not in networks:
                with placed(arm.where):
                    networks[built] = arm.task.network(0)
            return networks[built]

        self._check_names()
        for label, arm in self.arms.items():
            parts: dict[str, TrainingPart] = {"task.recipe": arm.task.recipe}
            parts |= {f"observe.{position}": one for position, one in enumerate(self.config.observers)}
            for key, part in parts.items():
                if overrides(part, TrainingPart.check_network):  # a network is built only if a part checks it
                    part.check_network(arm.task, network_of(arm), f"{self._where(label)}: {key}")
        for arm in self._scored_arms():
            queries = None if arm.needs_outputs else arm.queries(None)
            for position, method in enumerate(self.methods.values()):
                if method.needs:
                    method.check_network(arm.task, network_of(arm), queries, f"{arm.where}: methods[{position}]")
            for position, diagnostic in enumerate(self.config.diagnostics.values()):
                if overrides(diagnostic, Diagnostic.check_network):
                    diagnostic.check_network(arm.task, network_of(arm), f"{arm.where}: diagnose.{position}")

    def _scored_arms(self) -> list[Arm]:
        """Return the arms whose models are scored."""
        groups = self.campaign.scoring_groups(self, Numerics())
        return [self.arms[label] for label in dict.fromkeys(group.arm for group in groups)]

    def _check_names(self) -> None:
        """Check that the parameter names which a model declares without torch are those of its network. Raises RefitError.

        A component with name patterns in its options has the selected names in its identity. They are selected from the declared
        names, so wrong names would give a wrong identity. Arms without such a component are not checked.
        """
        for arm in self.arms.values():
            parts = (arm.task.recipe, *self.config.observers, *self.methods.values())
            if overrides(arm.task.model, Model.require_names) and any(map(has_selections, parts)):
                names = [name for name, _ in arm.task.network(0).named_parameters()]
                arm.task.model.require_names(self.config.base_dir, names)

    def _check_ledgers(self) -> None:
        """Check that arms whose trainings are equal record the same splits. Raises ConfigError.

        Such arms have the same spec ids, and every spec id has one ledger row, so one retrain serves both arms.
        """
        first: dict[str, Arm] = {}
        for label, arm in self.arms.items():
            trained = canonical_json([arm.train_digest, arm.model_identity, arm.recipe_identity])
            other = first.setdefault(trained, arm)
            if other.task_id != arm.task_id:
                problem = (
                    f"arms {other.label} and {label} train the same models but record different splits; "
                    "let them record the same splits"
                )
                raise ConfigError(f"{self.config.where}: {self.config.settings.campaign}", problem)

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
        """Digest of the first arm's task record, which is the name of its ledger's directory."""
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
