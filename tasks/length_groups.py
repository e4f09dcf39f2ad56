"""Cuts a batch into parts of similar length, so that little padding is computed (`compute.length_group_cost`)."""

from __future__ import annotations

import numpy as np

from tasks.errors import InputError
from tasks.hooks import overrides
from tasks.recipe import Recipe
from tasks.task import Task

WHERE = "compute.length_group_cost"


def length_groups(lengths: np.ndarray, cost: int, most: int = 0) -> list[np.ndarray]:
    """Cut the rows of a batch, sorted by length, into the groups with the least total cost.

        cost of a group = number of rows x longest row + `cost`

    The first term is the number of tokens that a padded group has. The second is the fixed cost of one more forward and
    backward pass, in tokens. `lengths` int64 [n]. `most` is the largest number of rows of a group; 0 means no limit.
    The result holds the positions of each group's rows, int64 [n_rows], longest group first; rows of equal length keep
    their order. It is exact (dynamic programming over the sorted lengths, in integers) and depends on the arguments alone.
    """
    order = np.argsort(-lengths, kind="stable")
    longest = lengths[order]  # position i holds the longest row of a group that starts there
    least = np.zeros(len(order) + 1, np.int64)  # the least cost of the first i rows
    starts = np.zeros(len(order) + 1, np.int64)  # the start of the last group in that solution
    for stop in range(1, len(order) + 1):
        start = np.arange(max(0, stop - most) if most else 0, stop)
        total = least[start] + (stop - start) * longest[start] + cost
        starts[stop] = start[total.argmin()]
        least[stop] = total.min()
    groups, stop = [], len(order)
    while stop:
        groups.append(order[starts[stop] : stop])
        stop = int(starts[stop])
    return groups[::-1]


def batch_parts(task: Task, split: str, rows: np.ndarray, blank: np.ndarray, most: int = 0) -> list[np.ndarray]:
    """Return the positions of the rows of each part of a batch: int64 [n_rows] each, at most `most` rows (0: no limit).

    With length groups these are the groups of `length_groups`. A row where `blank` (bool [len(rows)]) is true has the
    length of an empty text, so that the length of a removed text changes no part. Otherwise they are consecutive rows.
    """
    lengths = task.row_lengths(split, rows, blank) if task.length_group_cost else None
    if lengths is not None:
        return length_groups(lengths, task.length_group_cost, most)
    size = most or max(len(rows), 1)
    return [np.arange(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]


def by_length(task: Task, split: str, rows: np.ndarray) -> np.ndarray:
    """Return the order in which batches are cut from `rows` for one pass over them: a permutation int64 [len(rows)].

    With length groups the rows are sorted by length, longest first, so that batches have little padding; rows of equal
    length keep their order. Otherwise the order is that of `rows`.
    """
    lengths = task.row_lengths(split, rows, np.zeros(len(rows), bool)) if task.length_group_cost else None
    return np.arange(len(rows)) if lengths is None else np.argsort(-lengths, kind="stable")


def check_length_groups(recipe: Recipe | type[Recipe], task: Task | None, cost: int, where: str = WHERE) -> None:
    """Raise InputError if `cost` is set and the recipe cannot split a batch, or the task has no texts. Uses no torch."""
    if not cost:
        return
    if recipe.whole_batches:
        raise InputError(where, f"{cost}: recipe {recipe.name!r} cannot split its batches; allowed: 0")
    if task is not None and not overrides(task, Task.row_lengths):
        problem = f"the examples of this task ({type(task).__name__}) have no lengths by which to group them"
        raise InputError(where, f"{cost}: {problem}; allowed: 0")
