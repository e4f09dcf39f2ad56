"""Which workers of an elastic backend have joined, and which GPUs they hold."""

from __future__ import annotations

from orchestrator.runtime.elastic import ElasticBackend


def device_ids(backend: ElasticBackend) -> dict[str, tuple[str, ...]]:
    """Return joined worker -> the GPUs it holds, as `<node>:<id>`."""
    slots = backend._pool.slots.values() if backend._pool else ()
    return {slot.name: slot.place.gpus for slot in slots if slot.has_joined and slot.place}
