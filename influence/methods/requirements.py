"""What methods ask of a task before anything starts."""

from __future__ import annotations

from tasks.base import Task
from tasks.errors import InputError


def require_model(task: Task, attribute: str, where: str, need: str) -> None:
    """Raises InputError unless the task's model offers `attribute`."""
    if not hasattr(task.model, attribute):
        raise InputError(where, f"{need}; the model {getattr(task.model, 'name', type(task.model).__name__)} has none")


def require_task(task: Task, attribute: str, where: str, need: str) -> None:
    """Raises InputError unless the task offers `attribute`."""
    if not (hasattr(type(task), attribute) or hasattr(task, attribute)):  # a property may need the task prepared
        raise InputError(where, f"{need}; this task ({type(task).__name__}) has none")
