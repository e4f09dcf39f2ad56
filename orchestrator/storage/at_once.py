"""Many reads of a store at a time: in a bucket each waits for an answer, and waiting costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(function: Callable[[Item], Result], items: Sequence[Item], at_once: int) -> Iterator[Result]:
    """`function` of every item, in their order, up to `at_once` at a time.

    The first error is raised in its turn; what has not begun by then, or when nobody asks for more, is not done.
    """
    if at_once == 1 or len(items) < 2:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="refit-store")
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
