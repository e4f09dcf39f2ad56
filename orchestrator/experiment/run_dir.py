"""The run directory, which holds the resolved config, provenance with pinned numerics, scores, plan, results and report."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.config.load import dump_config, parse_config
from orchestrator.config.schema import LoadedConfig
from orchestrator.config.yaml_files import read_yaml
from orchestrator.runtime.environment import differences
from orchestrator.storage.blobs import write_file
from orchestrator.storage.refusals import describe_os_error
from orchestrator.storage.store import Store
from orchestrator.storage.uris import is_object_uri, parent_uri
from tasks.base import Numerics
from tasks.errors import InputError, RefitError

PACKAGES = (
    "refit",
    "torch",
    "transformers",
    "ray",
    "mlflow",
    "pyarrow",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pydantic",
)

# The keys of provenance.json that Refit reads -> their type, and its description for errors.
_PROVENANCE: dict[str, tuple[type, str]] = {
    "run": (str, "a name"),
    "task_id": (str, "an id"),
    "task_ids": (list, "a list of ids"),
    "references": (list, "a list of ids"),
    "store": (str, "a path or URI"),
    "config_dir": (str, "a path"),
    "overrides": (list, "a list of dotted.key=value"),
    "resumed_with": (list, "a list of versions"),
    "plugins": (dict, "a mapping of modules to digests"),
}


class NumericsMismatchError(InputError):
    """The campaign is pinned to other numerics, and no delta is ever taken across numerics."""


@dataclass(frozen=True)
class RunDir:
    """The paths and small files of one run directory. `home`: the URI of the store that it was fetched from, or None."""

    path: Path
    home: str | None = None

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def plan(self) -> Path:
        return self.path / "plan.parquet"

    @property
    def story(self) -> Path:
        """What happened to every retrain of this run, attempt by attempt."""
        return self.path / "story.jsonl"

    @property
    def provenance_path(self) -> Path:
        return self.path / "provenance.json"

    def scores(self, label: str, group: str = "") -> Path:
        """Return the path of the scores of one method; `group` names the scoring group if there are several."""
        return self.path / "scores" / group / f"{label}.parquet"

    def provenance(self) -> dict[str, Any]:
        """Read provenance.json; it is empty before the first retrain. Raises InputError if it is damaged."""
        if not os.path.lexists(self.provenance_path):
            return {}
        try:
            value = json.loads(self.provenance_path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            problem = describe_os_error(error) if isinstance(error, OSError) else str(error)
            raise self._damaged(f"cannot be read ({problem})") from error
        if not isinstance(value, dict):
            raise self._damaged("does not hold a mapping")
        for key, (kind, in_words) in _PROVENANCE.items():
            texts = value[key] if kind is list and key in value else ()
            if key in value and not (isinstance(value[key], kind) and all(isinstance(text, str) for text in texts)):
                raise self._damaged(f"{key}: {str(value[key])[:80]!r} is not {in_words}")
        for module, digest in value.get("plugins", {}).items():
            if not isinstance(digest, str):
                raise self._damaged(f"plugins.{module}: {str(digest)[:80]!r} is not a digest")
        return value

    def _damaged(self, problem: str) -> InputError:
        return InputError(self.provenance_path, f"{problem}; move the run directory away to start again")

    def numerics(self) -> Numerics | None:
        """Return the numerics that this campaign is pinned to; None before its first retrain."""
        pinned = self.provenance().get("numerics")
        if pinned is not None and not isinstance(pinned, dict):
            raise self._damaged(f"numerics: {str(pinned)[:80]!r} is not a mapping")
        try:
            return Numerics(**pinned) if pinned else None
        except (TypeError, ValueError) as error:  # an unknown field, or a value of another type
            raise self._damaged(f"numerics: {error}") from error

    def write(self, config: LoadedConfig, task: Any, provenance: Mapping[str, Any]) -> None:
        """Write config.yaml, and add `provenance` to provenance.json, whose other keys stay."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_file(self.path / "config.yaml", dump_config(config, task).encode())
        self.note(provenance)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add facts to provenance.json. It keeps the code version that began the run, and lists those that resumed it."""
        before = self.provenance()
        merged = {**before, **facts}
        if "code_version" in before and before["code_version"] != merged["code_version"]:
            kept = {key: before[key] for key in ("code_version", "git_commit", "versions") if key in before}
            merged |= kept
            resumed = [*before.get("resumed_with", []), facts["code_version"]]
            merged["resumed_with"] = list(dict.fromkeys(resumed))
        write_file(self.provenance_path, (json.dumps(merged, indent=2, sort_keys=True) + "\n").encode())

    def config(self) -> LoadedConfig:
        """Return the config of this run; data paths are relative to the directory of the original config file."""
        path = self.path / "config.yaml"
        if not os.path.lexists(path):
            raise InputError(self.path, "is not a run directory (no config.yaml)")
        provenance, raw = self.provenance(), read_yaml(path)
        original = Path(provenance["config_dir"]) / "config.yaml" if "config_dir" in provenance else path
        overrides = provenance.get("overrides", ())
        return parse_config({**raw, "output": self.store(raw.get("output"))}, original, overrides, where=str(path))

    def store(self, default: Any) -> Any:
        """Return the store of this run.

        This is the store that the run directory was fetched from; otherwise the store that contains it, if the run was
        made inside its store, so that a copy of a store is read and not the original; otherwise the recorded store. A run
        directory that was made elsewhere (`--run-dir`) or copied alone uses the store around it only if the recorded
        store is gone.
        """
        if self.home is not None:
            return self.home
        provenance = self.provenance()
        recorded = provenance.get("store", default)
        around = self.path.absolute().parent
        if not _is_store(around) or _is_same(around, recorded):
            return recorded
        is_in_its_store = provenance.get("in_store", self.path.absolute().name == provenance.get("run"))
        return str(around) if is_in_its_store or _is_gone(recorded) else recorded

    def store_note(self, looked_at: str) -> str:
        """Return a message if the store that was read, `looked_at` (a Store's `uri`), is not the recorded one; else ""."""
        recorded = self.provenance().get("store")
        if not isinstance(recorded, str) or recorded == looked_at or _is_same(Path(looked_at), recorded):
            return ""
        state = "does not exist any more" if _is_gone(recorded) else "was not read"
        return f"the store {looked_at} was read; the run was made in {recorded}, which {state}"


def _is_store(folder: Path) -> bool:
    """Return whether a folder is a store: it has a ledger, or at least two of a store's other folders if that was lost.

    One of them does not suffice, since other training programs also have a folder `checkpoints`.
    """
    n_others = sum((folder / name).is_dir() for name in ("checkpoints", "scores", "spend"))
    return (folder / "ledger").is_dir() or n_others > 1


def _is_gone(recorded: Any) -> bool:
    """Return whether the recorded store is a local folder that does not exist."""
    return isinstance(recorded, str) and not is_object_uri(recorded) and not Path(recorded).exists()


def _is_same(folder: Path, recorded: Any) -> bool:
    """Return whether a folder is the recorded store, possibly under another path."""
    try:
        return isinstance(recorded, str) and folder.samefile(recorded)
    except OSError:
        return False


def require_same_numerics(pinned: Numerics | None, now: Numerics, where: object) -> None:
    """Check that the numerics equal the pinned ones. Raises NumericsMismatchError with every difference."""
    if pinned is None or pinned == now:
        return
    old, new = dict(pinned.__dict__), dict(now.__dict__)
    before, here = dict(old.pop("environment")), dict(new.pop("environment"))
    fields = [f"{key} was {old[key]!r} and is {new[key]!r}" for key in old if old[key] != new[key]]
    changed = ", ".join(filter(None, [*fields, differences(before, here)]))
    raise NumericsMismatchError(
        where,
        f"this campaign is pinned to other numerics: {changed}; "
        "resume it on a machine with the same numerics, or give another --run-dir to retrain with these",
    )


def require_same_settings(recorded: Any, now: Mapping[str, str], where: object) -> None:
    """Check that numpy's environment variables equal the recorded ones. Raises NumericsMismatchError with the differences.

    Runs of older versions have recorded none and pass.
    """
    changed = differences(recorded, now) if isinstance(recorded, Mapping) else ""
    if changed:
        problem = f"this campaign was begun with other settings of numpy: {changed}"
        remedy = "resume it with the same settings, or give another --run-dir to retrain with these"
        raise NumericsMismatchError(where, f"{problem}; {remedy}")


def code_version() -> str:
    """Return the version of the package, and the commit if it runs from a git checkout."""
    commit = git_commit()
    version = metadata.version("refit")
    return f"{version}+{commit[:12]}" if commit else version


def git_commit() -> str | None:
    """Return the commit of the git checkout that this code runs from; None if it was installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and the packages in PACKAGES."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def existing(path: str | Path) -> RunDir:
    """Open the run directory at `path`; for an s3:// or gs:// URI its local mirror is fetched. Raises InputError."""
    if isinstance(path, str) and is_object_uri(path):
        return _fetched(path)
    path = Path(path)
    if not path.is_dir():
        raise InputError(path, "no such run directory")
    return RunDir(path)


def _fetched(uri: str) -> RunDir:
    parent, name = parent_uri(uri, "run directory")
    store = Store(parent, "run directory")
    path = store.run_path(name)
    store.mirror(path).fetch()
    if not path.is_dir():
        raise InputError(f"{store.uri}/{name}", "no such run directory")
    return RunDir(path, store.uri)


__all__ = [
    "NumericsMismatchError",
    "RefitError",
    "RunDir",
    "code_version",
    "existing",
    "git_commit",
    "require_same_numerics",
    "require_same_settings",
    "versions",
]
