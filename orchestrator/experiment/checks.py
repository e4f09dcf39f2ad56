"""Checks of a resolved config against its data and its networks, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from influence.base import Method
from influence.diagnostic import Diagnostic
from influence.selections import has_selections
from orchestrator.config.schema import LoadedConfig
from orchestrator.config.yaml_files import ConfigError
from orchestrator.experiment.arm import Arm, placed, where_of
from orchestrator.experiment.experiment import Experiment
from tasks.base import Numerics
from tasks.digests import canonical_json
from tasks.hooks import overrides
from tasks.length_groups import check_length_groups
from tasks.model import Model
from tasks.observer import TrainingPart
from tasks.suggestions import listed
from tasks.training import check_micro_batch


def checked_experiment(config: LoadedConfig, cache_dir: Path | None) -> Experiment:
    """Resolve a config against its data and check that everything fits. Needs no torch. Raises InputError."""
    experiment = Experiment(config, cache_dir)
    _check_queries(experiment)
    _check_settings(experiment)
    experiment.campaign.check(experiment)
    _check_recipes(experiment)
    _check_observers(experiment)
    _check_ledgers(experiment)
    _check_methods(experiment)
    _check_diagnostics(experiment)
    return experiment


def _check_queries(experiment: Experiment) -> None:
    for arm in experiment.arms.values() if experiment.campaign.asks_queries else ():
        arm.check_queries()


def _check_settings(experiment: Experiment) -> None:
    """Check settings that not every campaign takes. Raises ConfigError."""
    if experiment.campaign.judges_own_model and (n_models := experiment.settings.scores.models) > 1:
        problem = (
            f"{n_models} is not allowed: {experiment.settings.campaign} computes the scores of each repeat from one model, "
            "the reference of that repeat; allowed: 1"
        )
        raise ConfigError(f"{experiment.config.where}: scores.models", problem)
    measurement = experiment.config.measurement  # None in a campaign without queries
    if measurement and measurement.label == "reference" and not experiment.campaign.has_references:
        problem = (
            f"{measurement.name!r} needs a reference of every seed; {experiment.settings.campaign} trains none; "
            "allowed: predicted_probability"
        )
        raise ConfigError(f"{experiment.config.where}: measurement", problem)
    if experiment.settings.repeats.is_adaptive and not experiment.campaign.adapts:
        problem = f"{experiment.settings.campaign} needs a fixed number of repeats; allowed: count or seeds"
        raise ConfigError(f"{experiment.config.where}: repeats.target_se", problem)


def _check_methods(experiment: Experiment) -> None:
    """Check that every method fits every arm whose models are scored. Raises InputError."""
    try:
        scored_arms = _scored_arms(experiment)
    except ValueError as error:
        problem = f"{error}; 0 is allowed, too, for the weights before the first update"
        raise ConfigError(f"{experiment.config.where}: scores.checkpoints", problem) from error
    for position, method in enumerate(experiment.methods.values()):
        for arm in scored_arms:
            method.check(arm.task, experiment.config.base_dir, f"{experiment.config.where}: methods[{position}]")
            _check_explained(experiment, method, arm, position)
        if not method.needs and not experiment.needs_scoring_outputs:
            # `prepare` raises InputError if the method reads its scores from a file that lacks one of these queries.
            method.prepare(experiment.task, experiment.config.base_dir, experiment.queries(None))


def _check_diagnostics(experiment: Experiment) -> None:
    """Check that every diagnostic fits the scored arms, the methods and the number of checkpoints. Raises InputError."""
    for position, diagnostic in enumerate(experiment.config.diagnostics.values()):
        for arm in _scored_arms(experiment):
            where = f"{experiment.config.where}: diagnose.{position}"
            n_checkpoints = len({experiment.checkpoint_step(arm, epoch) for epoch in experiment.checkpoint_epochs(arm)})
            diagnostic.check(arm.task, experiment.config.base_dir, experiment.scored, n_checkpoints, where)


def _check_explained(experiment: Experiment, method: Method, arm: Arm, position: int) -> None:
    """Check that the rows of the queries' split have the loss that a method explains. Raises ConfigError."""
    allowed, split = method.explained_splits(arm.task), arm.asked.split
    if allowed is not None and split not in allowed:
        problem = (
            f"{method.name} explains a loss that rows of {split!r} do not have; "
            f"allowed: queries of {listed(sorted(allowed))}"
        )
        raise ConfigError(f"{experiment.config.where}: methods[{position}]", problem)


def _check_recipes(experiment: Experiment) -> None:
    """Check that each recipe fits its task and the first arm's kind of task, and gets the parent that it needs.

    Raises ConfigError.
    """
    wanted = experiment.task.recipe.fits
    for label, arm in experiment.arms.items():
        has_parent = experiment.campaign.gives_parents and arm is not experiment.main
        if arm.task.recipe.needs_parent and not has_parent:
            problem = f"{arm.task.recipe.name!r} changes a parent's weights, and this arm has no parent"
            raise ConfigError(f"{experiment.config.where}: task.recipe.name", problem)
        if (fits := arm.task.recipe.fits) != wanted:
            problem = f"{arm.task.recipe.name!r} fits tasks of {fits}, not of {wanted}"
            raise ConfigError(f"{experiment.config.where} (arm {label}): task.recipe.name", problem)
        compute, where = experiment.settings.compute, f"{where_of(label, experiment.config)}: compute"
        check_micro_batch(arm.task.recipe, compute.micro_batch, f"{where}.micro_batch")
        check_length_groups(arm.task.recipe, arm.task, compute.length_group_cost, f"{where}.length_group_cost")
        _check_frozen_trunk(experiment, label, arm)
        arm.task.recipe.check_task(arm.task, f"{where_of(label, experiment.config)}: task.recipe")


def _check_frozen_trunk(experiment: Experiment, label: str, arm: Arm) -> None:
    """Refuse `compute.frozen_trunk` for an arm whose frozen layers may have other outputs in another retrain. Raises ConfigError."""
    if (chosen := experiment.settings.compute.frozen_trunk) == "computed":
        return
    problem = arm.task.frozen_trunk_problem()
    if experiment.campaign.gives_parents:
        name = experiment.settings.campaign
        problem = f"retrains of {name} start from a parent, which may have other frozen layers"
    if problem:
        where = f"{where_of(label, experiment.config)}: compute.frozen_trunk"
        raise ConfigError(where, f"{chosen!r} is not allowed: {problem}; allowed: computed")


def _check_observers(experiment: Experiment) -> None:
    """Check that the data of every arm has what each observer needs. Raises InputError."""
    for position, observer in enumerate(experiment.config.observers):
        for label, arm in experiment.arms.items():
            observer.check_task(arm.task, f"{where_of(label, experiment.config)}: observe.{position}")


def check_networks(experiment: Experiment) -> None:
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

    _check_names(experiment)
    for label, arm in experiment.arms.items():
        parts: dict[str, TrainingPart] = {"task.recipe": arm.task.recipe}
        parts |= {f"observe.{position}": one for position, one in enumerate(experiment.config.observers)}
        for key, part in parts.items():
            if overrides(part, TrainingPart.check_network):  # a network is built only if a part checks it
                part.check_network(arm.task, network_of(arm), f"{where_of(label, experiment.config)}: {key}")
    for arm in _scored_arms(experiment):
        queries = None if arm.needs_outputs else arm.queries(None)
        for position, method in enumerate(experiment.methods.values()):
            if method.needs:
                method.check_network(arm.task, network_of(arm), queries, f"{arm.where}: methods[{position}]")
        for position, diagnostic in enumerate(experiment.config.diagnostics.values()):
            if overrides(diagnostic, Diagnostic.check_network):
                diagnostic.check_network(arm.task, network_of(arm), f"{arm.where}: diagnose.{position}")


def _scored_arms(experiment: Experiment) -> list[Arm]:
    """Return the arms whose models are scored."""
    groups = experiment.campaign.scoring_groups(experiment, Numerics())
    return [experiment.arms[label] for label in dict.fromkeys(group.arm for group in groups)]


def _check_names(experiment: Experiment) -> None:
    """Check that the parameter names which a model declares without torch are those of its network. Raises RefitError.

    A component with name patterns in its options has the selected names in its identity. They are selected from the declared
    names, so wrong names would give a wrong identity. Arms without such a component are not checked.
    """
    for arm in experiment.arms.values():
        parts = (arm.task.recipe, *experiment.config.observers, *experiment.methods.values())
        if overrides(arm.task.model, Model.require_names) and any(map(has_selections, parts)):
            names = [name for name, _ in arm.task.network(0).named_parameters()]
            arm.task.model.require_names(experiment.config.base_dir, names)


def _check_ledgers(experiment: Experiment) -> None:
    """Check that arms whose trainings are equal record the same splits. Raises ConfigError.

    Such arms have the same spec ids, and every spec id has one ledger row, so one retrain serves both arms.
    """
    first: dict[str, Arm] = {}
    for label, arm in experiment.arms.items():
        trained = canonical_json([arm.train_digest, arm.model_identity, arm.recipe_identity])
        other = first.setdefault(trained, arm)
        if other.task_id != arm.task_id:
            problem = (
                f"arms {other.label} and {label} train the same models but record different splits; "
                "let them record the same splits"
            )
            raise ConfigError(f"{experiment.config.where}: {experiment.config.settings.campaign}", problem)
