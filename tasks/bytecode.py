"""Detects and removes cached bytecode that does not match its source file.

Python uses the bytecode in `__pycache__` if it records the size of the source and the second in which the source was
written. An edit that changes neither (`cp -p`, `rsync -t`, two edits in one second) leaves old bytecode, which Python
still runs although the digest of the module is that of the edited source.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path


def is_stale(spec: ModuleSpec) -> bool:
    """Return whether Python would run bytecode that was compiled from another source than the module's file."""
    if not isinstance(spec.loader, SourceFileLoader):
        return False
    loader, cached = spec.loader, spec.cached
    if not cached or not Path(cached).exists():
        return False
    try:
        wanted = loader.source_to_code(loader.get_data(loader.path), loader.path)
    except (OSError, SyntaxError, ValueError):  # the import itself will report what is wrong with the source
        return False
    try:
        return loader.get_code(spec.name) != wanted
    except (ImportError, EOFError, ValueError, TypeError):  # the bytecode is damaged
        return True


def remove(spec: ModuleSpec) -> str:
    """Remove the cached bytecode of a module. Returns "" or, if it could not be removed, a sentence that says why."""
    try:
        Path(spec.cached or "").unlink(missing_ok=True)
    except OSError as error:
        problem = f"{spec.cached} was not compiled from the present {spec.origin}"
        return f"{problem}, and it cannot be removed ({error.strerror}); delete it and start the command again"
    return ""
