"""Resolves a path of a config, relative to the config's folder or inside an installed package."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from tasks.errors import InputError

PACKAGE = "package:"


def resolve_path(path: str, base_dir: Path, where: object) -> Path:
    """Return `path` as a Path that exists: relative to `base_dir`, or `package:<module>/<dir>` in an installed package.

    The package is located but never imported, because importing a data package could run any code. Raises InputError.
    """
    if not path:
        raise InputError(where, "an empty path; allowed: a path, or package:<module>/<dir>")
    found = _in_package(path, where) if path.startswith(PACKAGE) else base_dir / Path(path).expanduser()
    try:
        exists = found.exists()
    except (OSError, ValueError) as error:
        raise InputError(where, f"{path!r} is not a usable path: {error}") from error
    if not exists:
        raise InputError(
            where, f"{path!r} does not exist (looked at {found}); relative paths start at the config's folder"
        )
    return found


def resolve_paths(paths: str | Sequence[str], base_dir: Path, where: object, folders: bool = False) -> list[Path]:
    """Return the files that one path, a list of paths, or a pattern with `*`, `?` or `[...]` names.

    The files of a pattern are sorted by name, without hidden ones. A path that exists is never read as a pattern.
    `folders`: the paths are folders, not files. Raises InputError if a path does not exist, a pattern matches nothing,
    or a file is named twice.
    """
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str) else paths:
        found += _matches(path, base_dir, where, folders) or [resolve_path(path, base_dir, where)]
    seen: set[Path] = set()
    for file in found:
        if file.resolve() in seen:
            raise InputError(where, f"{str(file)!r} is listed twice; list every file once")
        seen.add(file.resolve())
    return found


def _matches(path: str, base_dir: Path, where: object, folders: bool) -> list[Path]:
    """Return the files of a pattern; none for a path that is no pattern."""
    if not any(sign in path for sign in "*?["):
        return []
    whole = _in_package(path, where) if path.startswith(PACKAGE) else base_dir / Path(path).expanduser()
    try:
        if whole.exists():
            return []
        fixed = next(index for index, part in enumerate(whole.parts) if any(sign in part for sign in "*?["))
        folder = Path(*whole.parts[:fixed])
        inside = folder.glob(str(Path(*whole.parts[fixed:])))
        fitting = [
            entry for entry in inside if (entry.is_dir() if folders else entry.is_file()) and not _is_hidden(entry)
        ]
    except (OSError, ValueError, NotImplementedError, re.error) as error:
        raise InputError(where, f"{path!r} is not a usable path or pattern: {error}") from error
    if not fitting:
        kind = "folder" if folders else "file"
        raise InputError(
            where, f"{path!r} matches no {kind} (looked in {folder}); relative paths start at the config's folder"
        )
    return sorted(fitting)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _in_package(path: str, where: object) -> Path:
    module, _, inside = path.removeprefix(PACKAGE).partition("/")
    if not module.isidentifier():
        raise InputError(where, f"{path!r} is not package:<module>/<dir> with a top-level module")
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise InputError(where, f"{path!r}: the package is not installed; pip install {module.replace('_', '-')}")
    if not spec.submodule_search_locations:
        raise InputError(where, f"{path!r}: {module} is a single module, which has no data folder")
    return Path(next(iter(spec.submodule_search_locations))) / inside
