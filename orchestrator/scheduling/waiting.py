"""The queue: specs that wait, by their places in the order, and by kind, since one kind may fit into the time left and another not. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence

Fits = Callable[[str], bool]
KindOf = Callable[[str], str]


class Waiting:
    """Specs of several kinds in one order. `place`: spec -> its place in `order`, `kind_of`: spec -> its kind.

    O(log n) to add and pop, O(kinds) to count. A spec may be added again after it was popped, never after it was discarded.
    """

    def __init__(self, order: Sequence[str], place: Mapping[str, int], kind_of: KindOf):
        self._order, self._place, self._kind_of = order, place, kind_of
        self._heaps: dict[str, list[int]] = {}  # kind -> places
        self._n: dict[str, int] = {}
        self._gone: set[int] = set()  # discarded, and still somewhere in a heap

    def __iter__(self) -> Iterator[str]:
        return (self._order[place] for heap in self._heaps.values() for place in heap if place not in self._gone)

    def add(self, spec_id: str) -> None:
        """Put a spec at its place."""
        kind = self._kind_of(spec_id)
        self._n[kind] = self._n.get(kind, 0) + 1
        heapq.heappush(self._heaps.setdefault(kind, []), self._place[spec_id])

    def discard(self, spec_id: str) -> None:
        """Take a spec that is waiting out, wherever it stands."""
        self._n[self._kind_of(spec_id)] -= 1
        self._gone.add(self._place[spec_id])

    def count(self, fits: Fits) -> int:
        """How many specs of kinds that fit are waiting."""
        return sum(n for kind, n in self._n.items() if n and fits(kind))

    def pop(self, fits: Fits) -> str | None:
        """The first spec whose kind fits, taken out; None if there is none."""
        heads = [(self._head(kind), kind) for kind, n in self._n.items() if n and fits(kind)]
        if not heads:
            return None
        place, kind = min(heads)
        heapq.heappop(self._heaps[kind])
        self._n[kind] -= 1
        return self._order[place]

    def _head(self, kind: str) -> int:
        heap = self._heaps[kind]
        while heap[0] in self._gone:
            self._gone.remove(heapq.heappop(heap))
        return heap[0]


class Queue:
    """All that wait: `beside` others, or for a device `alone`, once they ran out of memory."""

    def __init__(self, order: Sequence[str], waiting: Iterator[str], kind_of: KindOf):
        order, place = tuple(order), {spec_id: place for place, spec_id in enumerate(order)}
        self.beside, self.alone = Waiting(order, place, kind_of), Waiting(order, place, kind_of)
        self.needs_device: set[str] = set()
        for spec_id in waiting:
            self.beside.add(spec_id)

    def add(self, spec_id: str) -> None:
        """Put a spec at its place in the queue it belongs to."""
        self._of(spec_id).add(spec_id)

    def discard(self, spec_id: str) -> None:
        """Take a spec that is waiting out."""
        self._of(spec_id).discard(spec_id)

    def count(self, fits: Fits) -> int:
        """How many specs of kinds that fit are waiting."""
        return self.beside.count(fits) + self.alone.count(fits)

    def _of(self, spec_id: str) -> Waiting:
        return self.alone if spec_id in self.needs_device else self.beside
