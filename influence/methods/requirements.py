"""What methods ask of a task before anything starts."""

from __future__ import annotations

from pathlib import Path

from tasks.base import Task
from tasks.errors import InputError


def require_model(task: Task, attribute: str, where: str, need: str) -> None:
    """Raises InputError unless the task's model offers `attribute`."""
    if not hasattr(task.model, attribute):
        raise InputError(where, f"{need}; the model {getattr(task.model, 'name', type(task.model).__name__)} has none")


def require_last_layer(task: Task, base_dir: Path, where: str, need: str) -> None:
    """Raises InputError unless the task's model has a layer onto the logits that sees one vector an example."""
    require_model(task, "last_module", where, need)
    asked = getattr(task.model, "last_layer_problem", None)
    if asked is not None and (problem := asked(base_dir)):
        raise InputError(where, f"{need} of one vector an example; {problem}")


def require_task(task: Task, attribute: str, where: str, need: str) -> None:
    """Raises InputError unless the task offers `attribute`."""
    if not (hasattr(type(task), attribute) or hasattr(task, attribute)):  # a property may need the task prepared
        raise InputError(where, f"{need}; this task ({type(task).__name__}) has none")
