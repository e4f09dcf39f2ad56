"""Messages for the case that a plugin's source differs from that with which a run was made."""

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
    """Return a message for each plugin module of a run whose source is missing or has changed; nothing is imported."""
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
            found.append(f"plugin {module} has been edited: its source was {before[:_SHOWN]} and is {now[:_SHOWN]}")
    return found


def edited_since_other_runs(experiment: Experiment, root: Path) -> list[str]:
    """Return such messages for the latest run of this name, if an edited plugin makes this config start another run."""
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
            return [f"{one} (run {path.parent.name}): results that depend on it are computed again" for one in edited]
    return []


def not_this_config(provenance: Mapping[str, Any], experiment: Experiment, run_dir: Path) -> str:
    """Return why a run directory does not belong to a config, which may be the run directory's own config.yaml."""
    problem = f"holds {provenance.get('run')}, and this config and its data make {experiment.run_name}"
    if edited := edited_plugins(provenance):
        return f"{problem}: {'; '.join(edited)}. Restore that source to read this run, or run the config again"
    if experiment.sources and "plugins" not in provenance:
        return f"{problem}: it was made by a version that did not record the source of plugins; run the config again"
    if Path(experiment.config.where) != run_dir / "config.yaml":
        return f"{problem}; give another --run-dir"
    if "plugins" not in provenance and _has_new_ids(experiment.config.raw):
        changed = "an older version made this run, in which patterns of names and the exact solver had other ids"
        return f"{problem}: {changed}; read it with that version, or run the config again"
    changed = "the data or the version of Refit differ from those that it was made with"
    return f"{problem}: {changed}; restore them to read this run, or run the config again"


def _has_new_ids(block: object) -> bool:
    """Return whether a config has patterns of names or the exact solver, whose ids differ from those of version 0.1."""
    if isinstance(block, Mapping):
        has_patterns = any(isinstance(block.get(key), list) and block[key] for key in _PATTERNS)
        is_exact = block.get("name") == "exact" or block.get("solver") == "exact"
        return has_patterns or is_exact or any(map(_has_new_ids, block.values()))
    return isinstance(block, list) and any(map(_has_new_ids, block))
