"""What a person is told where a plugin is not the one that a run was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.experiment import Experiment
from tasks.module_files import module_files
from tasks.sources import source_digests

_SHOWN = 12


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


def not_this_config(provenance: Mapping[str, Any], experiment: Experiment) -> str:
    """Why a run directory does not belong to a config."""
    problem = f"holds {provenance.get('run')}, and this config and its data make {experiment.run_name}"
    if edited := edited_plugins(provenance):
        return f"{problem}: {'; '.join(edited)}. Bring that source back to look at this run, or run the config anew"
    if experiment.sources and "plugins" not in provenance:
        return f"{problem}: it was made before the source of plugins was part of what a run is; run the config anew"
    return f"{problem}; give another --run-dir"
