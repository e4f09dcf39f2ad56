"""The option `leave_out` of the tracin_we methods: words whose gradients do not count."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from influence.methods.requirements import require_task
from tasks.errors import InputError
from tasks.task import Task


class MostFrequent(BaseModel):
    """Leave out the `most_frequent` tokens of the train split, and all special tokens besides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most_frequent: int = Field(ge=1)


LeftOut = MostFrequent | tuple[str, ...]


def check_words(left_out: LeftOut, task: Task, name: str, where: str) -> None:
    """Raise InputError if the task cannot count tokens, or if a listed word does not stand for one token. Uses no torch."""
    if isinstance(left_out, MostFrequent):
        for hook in (Task.token_counts, Task.special_ids):
            require_task(task, hook, where, f"{name} with most_frequent needs a task with tokens")
        return
    require_task(task, Task.word_tokens, where, f"{name} with a list of words needs a task with text")
    for word in left_out:
        try:
            task.word_tokens(word)
        except ValueError as error:
            raise InputError(where, str(error)) from error


def left_out_tokens(left_out: LeftOut, task: Task) -> frozenset[int]:
    """Return the ids of the tokens that are left out.

    With `most_frequent` N: the special tokens, and the N other tokens that occur most often in the train split; of
    tokens with equal counts, those with the smaller ids come first. The special tokens do not count towards N. Raises
    InputError if no token of the train split would be left.
    """
    if not isinstance(left_out, MostFrequent):
        return frozenset(token for word in left_out for token in task.word_tokens(word))
    counts = np.asarray(task.token_counts("train").sum(axis=0)).ravel()
    special = sorted(task.special_ids)
    counts[[token for token in special if token < len(counts)]] = 0
    if left_out.most_frequent >= (n_words := int((counts > 0).sum())):
        problem = f"{left_out.most_frequent} leaves out every word; the train split has {n_words} different ones"
        raise InputError("leave_out.most_frequent", problem)
    by_count = np.argsort(-counts, kind="stable")
    return frozenset(special) | frozenset(by_count[: left_out.most_frequent].tolist())
