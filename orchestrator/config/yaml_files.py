"""Reads YAML files and --set options as mappings of text keys to plain values; everything else is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config.yaml_limits import MOST_BYTES, check_size
from tasks.errors import InputError

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is five times as fast
LARGEST = 2**63  # integers must be below it, since ids are 64-bit


class ConfigError(InputError):
    """An invalid config; the message names the file, the dotted key, the value and what is allowed."""


class _Loader(_SafeLoader):
    """A SafeLoader that reads 1e-3 as a number and refuses duplicate keys."""


class _Dumper(yaml.SafeDumper):
    """A SafeDumper that quotes text which _Loader would read as a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
_Loader.yaml_implicit_resolvers = {  # 2026-11-01 is read as text, and the block that holds it parses the date
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in _Loader.yaml_implicit_resolvers.items()
}


_NO_TEXT = re.compile("[\x00\ud800-\udfff]")  # NUL and lone surrogates


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    keys = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in keys:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
        keys.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        check_size(text, _Loader)
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: no objects are built
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}", f"not valid YAML: {getattr(error, 'problem', None) or error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file. Raises ConfigError if it cannot be read or holds no mapping."""
    if path.is_dir():
        raise ConfigError(path, "is a directory; give a config file")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(path, "no such file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(path, error.strerror or str(error)) from error
    if len(data) > MOST_BYTES:
        raise ConfigError(path, f"is too large for a config; allowed: at most {MOST_BYTES} bytes")
    value = _parse_yaml(text, str(path))
    if not isinstance(value, dict):
        raise ConfigError(
            path, f"holds {'nothing' if value is None else type(value).__name__}; a config must be a mapping of keys"
        )
    _check_keys(value, str(path))
    return value


def _check_keys(value: Any, where: str, key: str = "") -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ConfigError(f"{where}: {key or 'top level'}", f"key {name!r} is not text; quote it")
            if _NO_TEXT.search(name):
                raise ConfigError(
                    f"{where}: {key or 'top level'}", f"key {name!r} contains a character that is not allowed in names"
                )
            _check_keys(item, where, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _check_keys(item, where, f"{key}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {key}", f"{value} is not a finite number")
    elif isinstance(value, int) and not -LARGEST <= value < LARGEST:
        raise ConfigError(f"{where}: {key}", f"this integer has {value.bit_length()} bits; allowed: 64 bits")
    elif isinstance(value, str) and (found := _NO_TEXT.search(value)):
        raise ConfigError(
            f"{where}: {key}",
            f"the text contains the character {found.group()!r}, which is not allowed in names or paths",
        )
    elif not isinstance(value, (str, int, float, bool, type(None))):
        raise ConfigError(f"{where}: {key}", f"{value!r} is a {type(value).__name__}; quote it to make it text")


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str], path: Path) -> dict[str, Any]:
    """Apply `dotted.key=value` overrides to a copy of `raw`, in order; values are YAML, list items have numbers as keys."""
    result = json.loads(json.dumps(raw))
    for override in overrides:
        key, equals, text = override.partition("=")
        where = f"{path}: --set {key}"
        if not equals or not re.fullmatch(r"[^.\s]+(\.[^.\s]+)*", key):
            raise ConfigError(f"{path}: --set", "is not of the form dotted.key=value")
        value = _parse_yaml(text, where)
        _check_keys(value, where)
        _set(result, key.split("."), value, where)
    return result


def changed_task(task: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Apply `changes`, {dotted key: value}, to a copy of the task block. Raises ConfigError for a key without a place."""
    result = json.loads(json.dumps(task))
    for key, value in changes.items():
        _set(result, key.split("."), value, f"{where}: task.{key}")
    return result


def _set(target: Any, parts: list[str], value: Any, where: str) -> None:
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(target, list):
            if not part.isdigit() or int(part) >= len(target):
                raise ConfigError(where, f"{part!r} is not a position in a list of {len(target)}")
            index: Any = int(part)
        elif isinstance(target, dict):
            index = part
        else:
            raise ConfigError(where, f"{'.'.join(parts[:depth])} is {target!r}, not a mapping or list")
        if last:
            target[index] = value
        else:
            if isinstance(target, dict):
                target.setdefault(index, {})
            target = target[index]


def write_yaml(value: Mapping[str, Any]) -> str:
    """Return YAML text that `read_yaml` reads as the same mapping, with keys in the same order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
