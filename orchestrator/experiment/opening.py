"""Opens the arms of a config on their data. Needs no torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.config.schema import LoadedConfig
from orchestrator.config.yaml_files import ConfigError, changed_task
from orchestrator.experiment.arm import Arm, placed, where_of
from tasks.components import parse_named
from tasks.digests import canonical_json
from tasks.registry import RECIPES, TASKS
from tasks.task import OpenRequest, Task


def open_arms(config: LoadedConfig, cache_dir: Path | None) -> dict[str, Arm]:
    """Return label -> opened arm, in the config's order. Raises InputError."""
    opener = _Opener(config, cache_dir)
    return {label: opener.arm(label, changes) for label, changes in config.arms.items()}


class _Opener:
    """Opens tasks; arms that differ only in the recipe share their data."""

    def __init__(self, config: LoadedConfig, cache_dir: Path | None):
        self.config, self.cache_dir = config, cache_dir
        self.opened: dict[str, tuple[Task, Any]] = {}

    def arm(self, label: str, changes: Mapping[str, Any]) -> Arm:
        task, part = self._open(label, changes)
        return Arm(label, task, self.config, part)

    def _open(self, label: str, changes: Mapping[str, Any]) -> tuple[Task, Any]:
        """Open the task of an arm; return it and the parsed block. Arms that differ only in the recipe share the data."""
        config, where = self.config, where_of(label, self.config)
        block = changed_task(config.settings.task, changes, where)
        data = canonical_json({key: value for key, value in block.items() if key != "recipe"})
        if data in self.opened and "recipe" in block:
            task, part = self.opened[data]
            return self._with_recipe(task, block["recipe"], where), part
        parsed = parse_named(TASKS, block, where, "task", self.config.settings.plugins) if changes else config.task
        with placed(where):
            task = parsed.open(self._request(where))
        if not isinstance(task, Task):
            problem = f"{block['name']!r} opens a {type(task).__name__}, which does not derive from tasks.task.Task"
            raise ConfigError(f"{where}: task.name", problem)
        self.opened[data] = task, parsed
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
        return OpenRequest(self.config.base_dir, self.cache_dir, where, plugins=self.config.settings.plugins)
