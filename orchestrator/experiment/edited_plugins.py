"""What a person is told where a plugin is not the one that a run was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.experiment.experiment import Experiment
from tasks.module_files import module_files
from tasks.sources import source_digests

_SHOWN = 12
_PATTERNS = ("freeze", "layers", "parameters")  # options that list patterns of names


def edited_plugins(provenance: Mapping[str, Any]) -> list[str]:
    """A sentence for each plugin module of a run whose source is not here any more as it was; nothing is imported."""
    recorded = provenance.get("plugins")
    if not isinstance(recorded, Mapping):
        return []
    found = []
    for module, before in sorted(recorded.items()):
        files = module_files(module)
        now = source_digests({module: files})[module]
        if module not in files:
            found.append(f"plugin {module} (source {before[:_SHOWN]}) cannot be found here")
        elif now != before:
            found.append(f"plugin {module} was edited since: its source was {before[:_SHOWN]} and is {now[:_SHOWN]}")
    return found


def edited_since_other_runs(experiment: Experiment, root: Path) -> list[str]:
    """The same for the latest run directory of this name in a store, where this config makes another one because of an edit."""
    if not experiment.sources or (root / experiment.run_name / "provenance.json").exists():
        return []
    others = sorted(
        root.glob(f"{experiment.settings.name}-????????????????/provenance.json"), key=lambda path: path.stat().st_mtime
    )
    for path in reversed(others):
        try:
            provenance = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        edited = edited_plugins(provenance) if isinstance(provenance, dict) else []
        if edited:
            return [f"{one} (run {path.parent.name}): what depends on it is computed again" for one in edited]
    return []


def not_this_config(provenance: Mapping[str, Any], experiment: Experiment, run_dir: Path) -> str:
    """Why a run directory does not belong to a config, which may be the one that lies in it."""
    problem = f"holds {provenance.get('run')}, and this config and its data make {experiment.run_name}"
    if edited := edited_plugins(provenance):
        return f"{problem}: {'; '.join(edited)}. Bring that source back to look at this run, or run the config anew"
    if experiment.sources and "plugins" not in provenance:
        return f"{problem}: it was made before the source of plugins was part of what a run is; run the config anew"
    if Path(experiment.config.where) != run_dir / "config.yaml":
        return f"{problem}; give another --run-dir"
    if "plugins" not in provenance and _has_new_ids(experiment.config.raw):
        changed = (
            "the ids of patterns of names and of the exact solver have changed since an older version made this run"
        )
        return f"{problem}: {changed}; look at it with that version, or run the config anew"
    changed = "its data, or this version of Refit, are not those that it was made with"
    return f"{problem}: {changed}; bring them back to look at this run, or run the config anew"


def _has_new_ids(block: object) -> bool:
    """Whether a config has patterns of names or the exact solver, whose ids are others than in version 0.1."""
    if isinstance(block, Mapping):
        has_patterns = any(isinstance(block.get(key), list) and block[key] for key in _PATTERNS)
        is_exact = block.get("name") == "exact" or block.get("solver") == "exact"
        return has_patterns or is_exact or any(map(_has_new_ids, block.values()))
    return isinstance(block, list) and any(map(_has_new_ids, block))
