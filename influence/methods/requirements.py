"""Checks of what methods require of a task, made before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.hooks import overrides
from tasks.model import Model
from tasks.task import Task


def require_model(task: Task, hook: Callable[..., Any], where: str, need: str) -> None:
    """Raise InputError unless the task's model overrides `hook`, a method of tasks.model.Model."""
    if not overrides(task.model, hook):
        raise InputError(where, f"{need}; the model {task.model.name} has none")


def require_last_layer(task: Task, base_dir: Path, where: str, need: str) -> None:
    """Raise InputError unless the task's model has a layer onto the logits that gets one vector per example."""
    require_model(task, Model.last_module, where, need)
    if problem := task.model.last_layer_problem(base_dir):
        raise InputError(where, f"{need} with one input vector per example; {problem}")


def require_task(task: Task, hook: Callable[..., Any] | property, where: str, need: str) -> None:
    """Raise InputError unless the task overrides `hook`, a method or property of tasks.task.Task."""
    if not overrides(task, hook):
        raise InputError(where, f"{need}; this task ({type(task).__name__}) has none")
