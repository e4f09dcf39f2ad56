"""Where a path of a config points: beside the config, or inside an installed package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tasks.errors import InputError

PACKAGE = "package:"


def resolve_path(path: str, base_dir: Path, where: object) -> Path:
    """`path` as a Path that exists: relative to `base_dir`, or `package:<module>/<dir>` inside an installed package.

    The package is located, never imported: importing somebody's data package may run anything. Raises InputError.
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


def _in_package(path: str, where: object) -> Path:
    module, _, inside = path.removeprefix(PACKAGE).partition("/")
    if not module.isidentifier():
        raise InputError(where, f"{path!r} is not package:<module>/<dir> with a top-level module")
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise InputError(where, f"{path!r}: the package is not installed; pip install {module.replace('_', '-')}")
    if not spec.submodule_search_locations:
        raise InputError(where, f"{path!r}: {module} is a single module, it holds no data folder")
    return Path(next(iter(spec.submodule_search_locations))) / inside
