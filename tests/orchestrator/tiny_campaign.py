"""A whole in-process campaign of a few dozen trainings of some milliseconds each, shared by the tests of this folder."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator import api
from orchestrator.config.schema import LoadedConfig
from orchestrator.stages.pipeline import Pipeline

CONFIG: dict[str, Any] = {
    "name": "small",
    "campaign": "deletion",
    "task": {
        "name": "planted",
        "n_train": 40,
        "n_queries": 6,
        "deciders": 4,
        "model": {"name": "text_cnn", "embedding_dim": 4, "filters": 4, "max_length": 16},
        "recipe": {"name": "finetune", "epochs": 2, "batch_size": 10, "optimizer": "adam", "learning_rate": 0.05},
    },
    "queries": {"split": "test", "count": 3},
    "measurement": "gold_probability",
    "scores": {"models": 1, "checkpoints": [1, 2], "rows_per_shard": 16},
    "methods": [{"name": "tracin_last"}, {"name": "tracin_last", "bias": True, "as": "with_bias"}, {"name": "random"}],
    "deletion": {"k": [2, 5], "groups": ["proponents", "opponents"], "mode": "mask"},
    "repeats": {"count": 2, "base_seed": 2021},
    "compute": {"workers": 1, "retries": 1},
    "tracking": None,
    "output": "runs",
}


def options(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return CONFIG with `changes`, {dotted key: value}."""
    found = copy.deepcopy(CONFIG)
    for dotted, value in (changes or {}).items():
        *parents, last = dotted.split(".")
        here = found
        for part in parents:
            here = here[part]
        here[last] = value
    return found


def write_config(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write the config under `folder`; its store is `folder`/runs. Return its path."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(options({"output": str(folder / "runs"), **(changes or {})}), sort_keys=False))
    return path


def small_config(folder: Path, **changes: Any) -> LoadedConfig:
    """Return the config, written and loaded; `a__b=1` sets a.b."""
    return api.load_config(write_config(folder, {key.replace("__", "."): value for key, value in changes.items()}))


def small_lds(folder: Path, **changes: Any) -> LoadedConfig:
    """Return an LDS campaign on the same task, with 6 subsets; `a__b=1` sets a.b."""
    path = write_config(folder)
    raw = yaml.safe_load(path.read_text())
    del raw["deletion"]
    raw |= {"name": "small-lds", "campaign": "lds", "lds": {"subsets": 6}}
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        here = raw
        for part in parents:
            here = here[part]
        here[last] = value
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return api.load_config(path)


def run_here(config: LoadedConfig, until: str = "analyse") -> api.RunResult:
    """Run in this process."""
    return api.run(config, until=until, address="local")


def pipeline_of(config: LoadedConfig) -> Pipeline:
    """Return a pipeline over the config's store that runs in this process."""
    return api.open_pipeline(config, address="local")


def result_bytes(run_dir: Path) -> dict[str, bytes]:
    """Return results/*.csv of a run directory."""
    return {path.name: path.read_bytes() for path in sorted((run_dir / "results").glob("*.csv"))}


def committed(config: LoadedConfig) -> dict[str, str]:
    """Return spec id -> when it was committed, for every row of the ledger."""
    rows = pipeline_of(config).ledger.index().rows
    return {spec_id: row.committed_at for spec_id, row in rows.items()}


@dataclass(frozen=True)
class Finished:
    """A finished campaign."""

    folder: Path
    config: LoadedConfig
    result: api.RunResult

    @property
    def run_dir(self) -> Path:
        """Its run directory."""
        return self.result.run_dir

    @property
    def pipeline(self) -> Pipeline:
        """Return a new pipeline over its store."""
        return pipeline_of(self.config)
