"""The queue of waiting specs, ordered by dispatch order and separated by kind.

This module reads no clock and does no I/O.

The kinds are separate because one kind may fit into the time left when another does not.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence

Fits = Callable[[str], bool]
KindOf = Callable[[str], str]


class Waiting:
    """Waiting specs of several kinds in one order. `place` maps a spec to its position in `order`, `kind_of` to its kind.

    Adding and popping cost O(log n), counting O(kinds). A popped spec may be added again, a discarded one may not.
    """

    def __init__(self, order: Sequence[str], place: Mapping[str, int], kind_of: KindOf):
        self._order, self._place, self._kind_of = order, place, kind_of
        self._heaps: dict[str, list[int]] = {}  # kind -> places
        self._n: dict[str, int] = {}
        self._gone: set[int] = set()  # places of discarded specs that are still in a heap

    def __iter__(self) -> Iterator[str]:
        return (self._order[place] for heap in self._heaps.values() for place in heap if place not in self._gone)

    def add(self, spec_id: str) -> None:
        """Add a spec at its place in the order."""
        kind = self._kind_of(spec_id)
        self._n[kind] = self._n.get(kind, 0) + 1
        heapq.heappush(self._heaps.setdefault(kind, []), self._place[spec_id])

    def discard(self, spec_id: str) -> None:
        """Remove a waiting spec from any position."""
        self._n[self._kind_of(spec_id)] -= 1
        self._gone.add(self._place[spec_id])

    def count(self, fits: Fits) -> int:
        """Return the number of waiting specs whose kind fits into the time left."""
        return sum(n for kind, n in self._n.items() if n and fits(kind))

    def pop(self, fits: Fits) -> str | None:
        """Remove and return the first spec whose kind fits into the time left; None if there is none."""
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
    """All waiting specs: `shared` ones may run while others use the same device, `alone` ones may not.

    A spec moves from `shared` to `alone` (it is then in `needs_device`) when it has run out of device memory.
    """

    def __init__(self, order: Sequence[str], waiting: Iterator[str], kind_of: KindOf):
        order, place = tuple(order), {spec_id: place for place, spec_id in enumerate(order)}
        self.shared, self.alone = Waiting(order, place, kind_of), Waiting(order, place, kind_of)
        self.needs_device: set[str] = set()
        for spec_id in waiting:
            self.shared.add(spec_id)

    def add(self, spec_id: str) -> None:
        """Add a spec at its place in its queue."""
        self._of(spec_id).add(spec_id)

    def discard(self, spec_id: str) -> None:
        """Remove a waiting spec."""
        self._of(spec_id).discard(spec_id)

    def count(self, fits: Fits) -> int:
        """Return the number of waiting specs whose kind fits into the time left."""
        return self.shared.count(fits) + self.alone.count(fits)

    def _of(self, spec_id: str) -> Waiting:
        return self.alone if spec_id in self.needs_device else self.shared
