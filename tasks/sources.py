"""Digests the source of parts that are not built in, and makes sure that the code that runs is the code that was digested.

A part is a class that a config can choose by name, such as a task, a recipe or a method (tasks.registry). The digest of
a part's source enters every identity that depends on the part.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from tasks import bytecode
from tasks.digests import digest
from tasks.errors import InputError, RefitError, SourceChangedError
from tasks.module_files import file_digest, is_built_in, module_files, module_spec, module_specs
from tasks.process_start import process_start

Files = Mapping[str, str]  # module name -> digest of its file
Sources = Mapping[str, Files]  # module of a part -> the files that it is made of
_BEGAN = process_start()  # start of the process: no module was imported earlier
_CLOCKS_DIFFER_BY_S = 60.0  # the clock of a file server and that of this machine may differ
_imported_at: dict[str, float] = {}  # module name -> when its import began, for modules imported from now on


class _ImportTimes:
    """The first of Python's finders: it finds nothing, and records when the import of each module began."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        _imported_at[name] = time.time()


sys.meta_path.insert(0, _ImportTimes)


@dataclass(frozen=True)
class _Loaded:
    """A module as it was imported, with digests of files: only its own file (in `_modules`), or all files of a part (in `_parts`).

    `spec` distinguishes an import from a later reload, which creates a new spec.
    """

    module: ModuleType
    spec: ModuleSpec | None
    files: Files

    def is_still(self, name: str) -> bool:
        """Return whether the module of this name is still the one that was digested."""
        here = sys.modules.get(name)
        return here is self.module and getattr(here, "__spec__", None) is self.spec


_modules: dict[str, _Loaded] = {}  # imported modules, each with the digest of its own file
_parts: dict[str, _Loaded] = {}  # modules that define parts, with the digests of all their files


def loaded_files(module: str, where: object, already: Container[str] | None = None) -> Files:
    """Return the files of an imported module that is not built in, after checking that this process runs what is on disk.

    `already` names the modules that had been imported before the import of `module` began; None means all that are
    imported now. Raises InputError naming `where` if `module` has no file, or if one of the files was edited after its
    import.
    """
    files = module_files(module)
    if module not in files:
        problem = f"module {module!r} has no file, so that an edit of it could not be noticed"
        raise InputError(where, f"{problem}; put the part in a file of its own")
    part = _parts.get(module)
    if part is not None and part.is_still(module):
        refuse_edited(module, part.files, files, where)
        return files
    for name in files.keys() & sys.modules.keys():
        known = _modules.get(name)
        if known is None or not known.is_still(name):
            is_older = already is None or name in already
            if is_older and (problem := _stale_problem(name)):
                raise InputError(where, problem)
            is_unsure = is_older and _may_be_stale(name)
            if is_unsure:
                _refuse_future(name, where)
            known = _modules[name] = _remembered(name, {name: "" if is_unsure else files[name]})
        refuse_edited(module, known.files, {name: files[name]}, where)
    _parts[module] = _remembered(module, files)
    return files


def drop_stale_bytecode(module: str, where: object) -> None:
    """Remove stale cached bytecode of a part's files before its module is imported.

    Python then compiles the source that is digested. Raises InputError if bytecode cannot be removed.
    """
    for name, spec in module_specs(module).items():
        if name not in sys.modules and bytecode.is_stale(spec) and (problem := bytecode.remove(spec)):
            raise InputError(where, problem)


def _stale_problem(name: str) -> str:
    """Return what is wrong if an imported module came from bytecode of another source; "" if it did not.

    The bytecode is removed, so that the next process imports the source.
    """
    spec = getattr(sys.modules[name], "__spec__", None)
    if spec is None or not bytecode.is_stale(spec):
        return ""
    problem = f"this process had imported module {name!r} from cached bytecode of another version of its source"
    return f"{problem}; {bytecode.remove(spec) or 'the bytecode has been removed: start the command again'}"


def refuse_edited(module: str, before: Files, now: Files, where: object) -> None:
    """Raise InputError if the files of a part's module are not those that were imported."""
    edited = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if edited:
        part = "" if edited[0] == module else f", which {module} imports,"
        problem = f"module {edited[0]!r}{part} was edited after this process had imported it"
        raise InputError(where, f"{problem}; start the command again (in Python: a new process)")


def _remembered(name: str, files: Files) -> _Loaded:
    module = sys.modules[name]
    return _Loaded(module, getattr(module, "__spec__", None), files)


def source_of(part: Any, where: str = "plugins") -> dict[str, Files]:
    """Return {module: the files of this module, as they were imported} for the module that defines `part` or its class.

    The module is the one that defines `part` if it is a class or a function, and otherwise the one that defines its class. Raises InputError.

    The result is empty for a built-in part.
    """
    module = (part if isinstance(part, type | FunctionType) else type(part)).__module__
    if is_built_in(module) or module == "builtins":
        return {}
    known = _parts.get(module)
    return {module: known.files if known and known.is_still(module) else loaded_files(module, where)}


def sources_of(*parts: Any) -> dict[str, Files]:
    """Map the modules of several parts to their files, as `source_of` does."""
    return {module: files for part in parts for module, files in source_of(part).items()}


def source_digests(sources: Sources) -> dict[str, str]:
    """Map each module to the digest of all its files, which identities hold and messages show."""
    return {module: digest(dict(files)) for module, files in sorted(sources.items())}


def with_sources(identity: dict[str, Any], *parts: Any) -> dict[str, Any]:
    """Add to `identity` the digests of the sources of those `parts` that are not built in, if there are any."""
    digests = source_digests(sources_of(*parts))
    return {**identity, "sources": digests} if digests else identity


def require_sources(sources: Sources) -> None:
    """In a worker: raise RefitError if a file of the parts' modules differs from the driver's copy, or exists on one side only.

    Only the contents are compared; the two copies may lie at different paths.
    """
    for module, wanted in sources.items():
        if module == "__main__":  # its classes are sent to the worker, not imported
            continue
        found = {name: _digest_when_imported(name) or file_digest(name) for name in {*wanted, *module_files(module)}}
        other = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
        if other:
            here, there = _short(found.get(other[0])), _short(wanted.get(other[0]))
            problem = f"module {other[0]!r} is {here} on this worker, and {there} where the run was started"
            raise RefitError(f"plugins: {problem}; all nodes must have the same source")
        _require_fresh_bytecode(wanted)
        for name in wanted.keys() & sys.modules.keys():
            _modules[name] = _remembered(name, {name: wanted[name]})


def _require_fresh_bytecode(names: Iterable[str]) -> None:
    """In a worker: raise RefitError if a module was imported from stale bytecode; remove stale bytecode of modules not yet imported."""
    for name in names:
        if name in sys.modules:
            problem = "" if _digest_when_imported(name) else _stale_problem(name)
        else:
            spec = module_spec(name)
            problem = bytecode.remove(spec) if spec and bytecode.is_stale(spec) else ""
        if problem:
            raise RefitError(f"plugins: {problem}")


def require_late_imports(sources: Sources) -> None:
    """Raise SourceChangedError if a module that a part imports while it runs was edited after the run had started."""
    for module, wanted in sources.items():
        late = [name for name in wanted if name in sys.modules and not _digest_when_imported(name)]
        for name in late:
            if file_digest(name) != wanted[name]:
                problem = f"module {name!r} was edited before {module} imported it"
                raise SourceChangedError(
                    "plugins",
                    f"{problem}, so the results that were just computed are not kept; start the command again",
                )
            _modules[name] = _remembered(name, {name: wanted[name]})


def _digest_when_imported(name: str) -> str | None:
    """Return the digest of a module's file at the time of its import; None if no digest is known for this import."""
    known = _modules.get(name)
    return known.files[name] if known and known.is_still(name) else None


def _short(file_digest: str | None) -> str:
    return f"of digest {file_digest[:12]}" if file_digest else "missing"


def _may_be_stale(name: str) -> bool:
    """Return whether the file of a module, imported before it was digested, is newer than the import.

    If the module was imported before Refit, the time of its import is unknown; its file must then be older than the
    process.
    """
    written = _written(name)
    return written is not None and written > _imported_at.get(name, _BEGAN)


def _refuse_future(name: str, where: object) -> None:
    """Raise InputError if the modification time of a module's file lies in the future.

    Refit regards a file that is newer than its import as edited. A file from the future is newer than any import, so a new
    process would refuse it as well.
    """
    written, now = _written(name), time.time()
    if written is not None and written > now + _CLOCKS_DIFFER_BY_S:
        file, date = sys.modules[name].__file__, datetime.fromtimestamp(written).isoformat(" ", "seconds")
        problem = f"module {name!r}: the modification time of {file} lies in the future ({date})"
        raise InputError(where, f"{problem}, so that an edit of it could not be noticed; set it to now (touch {file})")


def _written(name: str) -> float | None:
    """Return when the file of an imported module was written, in seconds since the epoch.

    The result is None if the module has no file of its own, because it is inside an archive or is a namespace package.
    """
    try:
        return Path(sys.modules[name].__file__ or "").stat().st_mtime
    except (OSError, AttributeError):
        return None
