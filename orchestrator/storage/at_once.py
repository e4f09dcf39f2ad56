"""Runs several store requests at a time in threads, because a request to a bucket spends most of its time waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(function: Callable[[Item], Result], items: Sequence[Item], at_once: int) -> Iterator[Result]:
    """Yield `function(item)` for every item, in the order of `items`, with up to `at_once` calls at a time.

    If a call raises, its exception is raised when its turn comes. Calls that have not started are then cancelled, as they
    are when the caller stops iterating.
    """
    if at_once == 1 or len(items) < 2:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="refit-store")
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
