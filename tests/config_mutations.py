"""Deterministic mutations of a config: likely mistakes, and values that no user would write."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Path = tuple[str | int, ...]
JUNK: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 1e-308, float("nan"), float("inf"), 2**31, 2**62, 2**70, -(2**63),
    "", " ", "name", "null", "1", "1.0", "-", ".", "..", "/", "~", "/dev/null", "x" * 5000, "\u202eabc", "Ünïcödé 🤖", "a\tb\nc",
    "a\x00b", "*", "[", "%s{0}", "os:system", "tests:nothing", "package:nothing/x", "s3://", "file://", "sqlite://",
    [], {}, [[]], [{}], [None], [1, "a", None, [2]], {"name": None}, {"name": []}, {"name": "nothing"}, {"a": {"b": [1]}}, [0] * 300,
]  # fmt: skip


def mutants(base: dict[str, Any], seed: int, n: int) -> Iterator[dict[str, Any]]:
    """Yield `n` damaged copies of `base`, the same ones for the same seed; every third copy is damaged twice."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        config = copy.deepcopy(base)
        for _ in range(1 + (number % 3 == 2)):
            config = mutated(config, rng)
        yield config


def mutated(config: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return `config` with one mistake."""
    paths = list(_paths(config))
    if not paths:
        return config
    path, way = paths[int(rng.integers(len(paths)))], WAYS[int(rng.integers(len(WAYS)))]
    parent = _at(config, path[:-1])
    way(parent, path[-1], rng, config)
    return config


def _paths(value: Any, here: Path = ()) -> Iterator[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*here, key)
        yield from _paths(item, (*here, key))


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _delete(parent: Any, key: Any, rng: np.random.Generator, config: Any) -> None:
    del parent[key]


def _junk(parent: Any, key: Any, rng: np.random.Generator, config: Any) -> None:
    parent[key] = copy.deepcopy(JUNK[int(rng.integers(len(JUNK)))])


def _misspell_key(parent: Any, key: Any, rng: np.random.Generator, config: Any) -> None:
    if isinstance(parent, dict):
        parent[_misspelt(str(key), rng)] = parent.pop(key)
    else:
        parent.insert(key, copy.deepcopy(parent[key]))


def _misspell_value(parent: Any, key: Any, rng: np.random.Generator, config: Any) -> None:
    parent[key] = _misspelt(str(parent[key]), rng)


def _other_type(parent: Any, key: Any, rng: np.random.Generator, config: Any) -> None:
    value = parent[key]
    ways = [[value], {"name": value}, {"value": value}, str(value), [value, value], repr([value])]
    parent[key] = ways[int(rng.integers(len(ways)))]


def _other_number(parent: Any, key: Any, rng: np.random.Generator, config: Any) -> None:
    value = parent[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        ways = [-value, value * 10**9, value + 0.5, value / 7, 0, value + 1, 10**6, float(value)]
        parent[key] = ways[int(rng.integers(len(ways)))]
    else:
        parent[key] = int(rng.integers(-3, 10))


def _from_elsewhere(parent: Any, key: Any, rng: np.random.Generator, config: Any) -> None:
    paths = list(_paths(config))
    parent[key] = copy.deepcopy(_at(config, paths[int(rng.integers(len(paths)))]))


def _unknown_key(parent: Any, key: Any, rng: np.random.Generator, config: Any) -> None:
    target = parent[key] if isinstance(parent[key], dict) else config
    target[["extra", "Name", "names", "é", "x" * 300, "a.b"][int(rng.integers(6))]] = 1


def _misspelt(text: str, rng: np.random.Generator) -> str:
    place = int(rng.integers(len(text) + 1))
    ways = [
        text[:place] + text[place + 1 :],
        text[:place] + "x" + text[place:],
        text.upper(),
        text[::-1],
        text[:place] + text[place : place + 1] + text[place:],
        text + " ",
    ]
    return ways[int(rng.integers(len(ways)))]


WAYS: tuple[Callable[[Any, Any, np.random.Generator, Any], None], ...] = (
    _delete, _junk, _junk, _junk, _misspell_key, _misspell_value, _other_type, _other_number, _other_number, _from_elsewhere, _unknown_key,
)  # fmt: skip
