"""Shared by tasks over texts with a known confound: their three splits, and how the splits are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.base import Split
from tasks.components import parse_fitting
from tasks.registry import MODELS, RECIPES
from tasks.task import OpenRequest, TaskConfig
from tasks.text_classification import MeasureConfig, measured_limits
from tasks.text_task import TextTask, first_rows

SPLITS = ("train", "dev", "test")


class ConfoundedText(TaskConfig):
    """A task over texts with the splits train, dev and test, all measured by default.

    Subclasses have a field `data` and build the splits from it.
    """

    model: dict[str, Any]
    recipe: dict[str, Any]
    measure: list[MeasureConfig] = Field(default=[MeasureConfig(split=name) for name in SPLITS], min_length=1)

    def identity(self) -> dict[str, Any]:
        """Return name and version; data, model and recipe are in the task's own identities, by content and never by path."""
        return {"name": self.name, "version": self.version}

    def read_splits(self, base_dir: Path, where: str, key: str) -> dict[str, Split]:
        """Return the splits, with their confounds, of the block `data` whose dotted key is `key`. Raises InputError."""
        raise NotImplementedError

    def open(self, request: OpenRequest) -> TextTask:
        """Read or generate the data, and choose model and recipe. Raises InputError naming file and dotted key."""
        model = parse_fitting(MODELS, self.model, "text", request.at("model"))
        recipe = parse_fitting(RECIPES, self.recipe, "text", request.at("recipe"))
        limits = measured_limits(self.measure, dict.fromkeys(SPLITS), request.where, request.at("measure").key)
        splits = self.read_splits(request.base_dir, request.where, f"{request.key}.data")
        return TextTask(splits, first_rows(splits, limits), model, recipe, request.base_dir, request.cache_dir)
