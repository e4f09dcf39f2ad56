"""Rules by which Hessian-vector products of a network are computed in less time than in general. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.model import Model
from tasks.module_files import is_built_in
from tasks.task import Task
from tasks.text_task import TextTask

if TYPE_CHECKING:
    from torch import nn


def pooled_layers(task: Task) -> tuple[str, ...]:
    """Return the layers of `Model.pooled_convolutions` if the train loss is the cross-entropy of such a network, else ().

    The task must be a TextTask with the losses and logits of that class. The class that declares the layers must itself
    define `build` and `forward`, because a subclass that overrides one of them may have another network.
    """
    if not _has_plain_losses(task):
        return ()
    kinds = {_owner(type(task.model), hook) for hook in ("build", "forward", "pooled_convolutions")}
    return tuple(task.model.pooled_convolutions()) if len(kinds) == 1 and isinstance(task.model, Model) else ()


def word_parameter(task: Task, network: nn.Module) -> str | None:
    """Return the word embedding's weight if the train losses of a batch depend on the rows of its `input_ids` only, else None.

    This is known for the built-in models of a TextTask with the losses and logits of that class.
    """
    if not _has_plain_losses(task) or not is_built_in(type(task.model).__module__):
        return None
    name = task.model.embedding_module(network)
    return None if name is None else f"{name}.weight"


def _has_plain_losses(task: Task) -> bool:
    hooks = ("losses", "logits")
    return isinstance(task, TextTask) and all(getattr(type(task), h) is getattr(TextTask, h) for h in hooks)


def _owner(kind: type, name: str) -> type | None:
    return next((base for base in kind.__mro__ if name in vars(base)), None)
