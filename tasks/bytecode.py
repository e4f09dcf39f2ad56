"""Cached bytecode that is not that of its source.

Python takes the bytecode of a module from `__pycache__` where it records the size of the source and the whole second in which
the source was written. An edit that keeps both (`cp -p`, `rsync -t`, two edits in one second) leaves bytecode there that Python
still runs, while the digest of the module is that of the edited source.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path


def is_stale(spec: ModuleSpec) -> bool:
    """Whether Python takes the code of a module from bytecode that is not that of its source."""
    if not isinstance(spec.loader, SourceFileLoader):
        return False
    loader, cached = spec.loader, spec.cached
    if not cached or not Path(cached).exists():
        return False
    try:
        wanted = loader.source_to_code(loader.get_data(loader.path), loader.path)
    except (OSError, SyntaxError, ValueError):  # the import itself tells what is wrong with the source
        return False
    try:
        return loader.get_code(spec.name) != wanted
    except (ImportError, EOFError, ValueError, TypeError):  # the bytecode is damaged
        return True


def remove(spec: ModuleSpec) -> str:
    """Remove the cached bytecode of a module. Returns "", or a sentence that says why it is still there."""
    try:
        Path(spec.cached or "").unlink(missing_ok=True)
    except OSError as error:
        problem = f"{spec.cached} is not the bytecode of {spec.origin}"
        return f"{problem}, and it cannot be removed ({error.strerror}); remove it, and start the command again"
    return ""
