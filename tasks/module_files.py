"""Finds the files that a module is made of, without importing anything: its own source and its local imports."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from tasks.digests import DIGEST_LENGTH

ROOMS = ("tasks", "influence", "orchestrator")
_INSTALLED = ("site-packages", "dist-packages")


def is_built_in(module: str) -> bool:
    """Return whether a module is part of Refit, whose parts carry a version of their own."""
    return module.partition(".")[0] in ROOMS


def module_files(module: str) -> dict[str, str]:
    """Map the name of `module`, and of every local module that it imports directly or indirectly, to the digest of its file.

    Local modules are those of the same package, and any other module that is not Python's, not Refit's, and not
    installed from another distribution. Imports are read from the source, at any place in it; a module name that is
    computed while the program runs cannot be found. A module without source (bytecode, a compiled extension) is
    represented by the bytes of its file, without its imports. The result is empty if the module has no readable file.
    """
    found = {spec.name: hashlib.sha256(data).hexdigest()[:DIGEST_LENGTH] for spec, data in _files(module)}
    return dict(sorted(found.items()))


def module_specs(module: str) -> dict[str, ModuleSpec]:
    """Map the same modules as `module_files` to the spec by which Python finds them."""
    return {spec.name: spec for spec, _ in _files(module)}


def module_spec(module: str) -> ModuleSpec | None:
    """Return the spec by which Python finds one module, in any distribution; None if there is no such module."""
    return next((spec for spec in _specs(module, None) if spec.name == module), None)


def file_digest(module: str) -> str | None:
    """Return the digest of the file of one module, in any distribution; None if there is none."""
    found = module_spec(module)
    data = _data(found) if found else None
    return hashlib.sha256(data).hexdigest()[:DIGEST_LENGTH] if data is not None else None


def _files(module: str) -> Iterator[tuple[ModuleSpec, bytes]]:
    """Yield `module` and every local module that it imports, each once, with the bytes of its file."""
    found: set[str] = set()
    waiting, seen, top = [module], {module}, module.partition(".")[0]
    while waiting:
        name = waiting.pop()
        for spec in _specs(name, top):
            if spec.name in found or (data := _data(spec)) is None:
                continue
            found.add(spec.name)
            yield spec, data
            new = _imports(data, spec.name, spec.submodule_search_locations is not None) - seen
            seen |= new
            waiting += sorted(new)


def _specs(name: str, root: str | None) -> Iterator[ModuleSpec]:
    """Yield the specs of the packages above `name` and of `name` itself, up to the first that does not exist.

    With a `root`, nothing is yielded unless `name` is local to it.
    """
    parts = name.split(".")
    spec = _top_spec(parts[0])
    if spec is None or not (root is None or _is_beside(spec, root)):
        return
    yield spec
    for depth in range(2, len(parts) + 1):
        if spec.submodule_search_locations is None:
            return
        spec = _inner_spec(".".join(parts[:depth]), list(spec.submodule_search_locations))
        if spec is None:
            return
        yield spec


def _inner_spec(name: str, folders: list[str]) -> ModuleSpec | None:
    """Return the spec of a module in a package whose folders are given."""
    try:
        return PathFinder.find_spec(name, folders)
    except KeyError:  # `name` is a namespace package whose parent is not in sys.modules
        found = ModuleSpec(name, None, is_package=True)
        inside = [Path(folder, name.rpartition(".")[2]) for folder in folders]
        found.submodule_search_locations = [str(folder) for folder in inside if folder.is_dir()]
        return found


def _top_spec(name: str) -> ModuleSpec | None:
    """Return the spec of a top-level module."""
    if name in ROOMS or name in sys.stdlib_module_names:
        return None
    if name == "__main__":
        file = getattr(sys.modules[name], "__file__", None)
        return importlib.util.spec_from_file_location(name, file) if file else None
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # raised for a module that was created by hand
        return None


def _is_beside(spec: ModuleSpec, root: str) -> bool:
    if spec.name == root:
        return True
    place = (
        spec.origin if spec.submodule_search_locations is None else next(iter(spec.submodule_search_locations), None)
    )
    if place is None or not _is_installation(Path(place).parent):
        return place is not None
    return not _distributions(spec.name).isdisjoint(_distributions(root))


@functools.cache
def _is_installation(folder: Path) -> bool:
    """Return whether a folder holds installed distributions."""
    return folder.name in _INSTALLED or any(folder.glob("*.dist-info"))


@functools.cache
def _distributions(top: str) -> frozenset[str]:
    return frozenset(importlib.metadata.packages_distributions().get(top, ()))


def _data(spec: ModuleSpec) -> bytes | None:
    """Return the bytes of the module's file, in a folder or an archive; None for a namespace package or a missing file."""
    loader: Any = spec.loader
    if not spec.origin or not hasattr(loader, "get_data"):
        return None
    try:
        return loader.get_data(spec.origin)
    except OSError:
        return None


@functools.lru_cache(maxsize=4096)  # a grid of arms looks up the same modules hundreds of times
def _imports(data: bytes, name: str, is_package: bool) -> frozenset[str]:
    """Return the full names that the source of module `name` may import; some are attributes of modules."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):  # not source, but bytecode or machine code
        return frozenset()
    package = name if is_package else name.rpartition(".")[0]
    return frozenset(found for node in ast.walk(tree) for found in _imported_by(node, package) if found)


def _imported_by(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute("." * node.level + (node.module or ""), package)
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names if base and alias.name != "*")
    elif isinstance(node, ast.Call) and node.args and _name_of(node.func) in ("import_module", "__import__"):
        if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            yield _absolute(node.args[0].value, package)
    elif isinstance(node, ast.Assign) and any(_name_of(target) == "__all__" for target in node.targets):
        listed = (one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant))
        yield from (f"{package}.{one}" for one in listed if isinstance(one, str) and package)


def _absolute(name: str, package: str) -> str:
    """Return the full name of a module that is named relative to `package`; "" if it is above all packages."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parents = package.split(".") if package else []
    if level > len(parents):
        return ""
    return ".".join([*parents[: len(parents) - level + 1], *filter(None, [name[level:]])])


def _name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
