"""The task `text_classification`: a text classifier on the user's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.base import Split
from tasks.components import parse_fitting, place
from tasks.data.splits import Records, SplitConfig, class_order, read_records, to_split
from tasks.data.wording import quoted, shown
from tasks.errors import InputError
from tasks.registry import MODELS, RECIPES
from tasks.suggestions import did_you_mean
from tasks.task import OpenRequest, TaskConfig
from tasks.text_task import TextTask, first_rows


class MeasureConfig(BaseModel):
    """A split whose outputs every retrain records: its first `limit` rows, or all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    split: str
    limit: int | None = Field(default=None, ge=1)


class TextClassification(TaskConfig):
    """A text classifier: `data` (a split called train and others), `model`, `recipe`, and what is recorded.

    `measure` lists the splits whose outputs every retrain records. By default it is the split of the queries, which the
    config that contains this block fills in.

    `classes` lists the labels in the order of the logits, or maps each label to its displayed name; by default it holds
    the labels of the train split, sorted. It names labels as the splits have them after their own `labels` are applied.
    """

    name: ClassVar[str] = "text_classification"
    version: ClassVar[int] = 1

    data: dict[str, SplitConfig]
    model: dict[str, Any]
    recipe: dict[str, Any]
    measure: list[MeasureConfig] | None = Field(default=None, min_length=1)
    classes: list[str | int] | dict[str, str] | None = None

    @field_validator("data")
    @classmethod
    def _has_train(cls, data: dict[str, SplitConfig]) -> dict[str, SplitConfig]:
        if "train" not in data:
            meant = next((found for name in data if (found := did_you_mean(name, ["train"]))), "")
            raise ValueError(f"no split called train; splits: {', '.join(data) or 'none'}{meant}")
        has_pairs = {name: bool(config.pair_columns) for name, config in data.items()}
        for name, has in has_pairs.items():
            if has != has_pairs["train"]:
                one, other = (name, "train") if has else ("train", name)
                raise ValueError(f"split {one} has text_pair and split {other} has not; all splits have it, or none")
        return data

    def identity(self) -> dict[str, Any]:
        """Return name and version; data, model and recipe are in the task's own identities, by content and never by path."""
        return {"name": self.name, "version": self.version}

    def open(self, request: OpenRequest) -> TextTask:
        """Read the data, choose model and recipe; `prepare` makes the tokens. Raises InputError naming file and key."""
        model = parse_fitting(MODELS, self.model, "text", request.at("model"))
        recipe = parse_fitting(RECIPES, self.recipe, "text", request.at("recipe"))
        if self.measure is None:
            problem = "is missing; it names the splits whose outputs every retrain records, such as [{split: test}]"
            raise InputError(place(request.where, request.at("measure").key), problem)
        limits = measured_limits(self.measure, self.data, request.where, request.at("measure").key)
        splits = self._splits(request.base_dir, request.where, request.key)
        return TextTask(splits, first_rows(splits, limits), model, recipe, request.base_dir, request.cache_dir)

    def measurable(self) -> dict[str, SplitConfig] | None:
        """Return all splits of `data`, if `measure` is not set."""
        return self.data if self.measure is None else None

    def relabelled_train(self, changes: Mapping[str, Any], base_dir: Path, where: str, key: str) -> Split:
        """Return the train split as read with other options, such as another `label` column; its class order is that of train.

        `key` is the dotted key of the changes in errors. Raises InputError.
        """
        config = self.data["train"].model_copy(update=dict(changes))
        train = read_records(self.data["train"], base_dir, where, "task.data.train")
        classes = self._classes(train, where, "task")
        allowed_from = "task.classes" if self.classes else "the train split's classes"
        return to_split(read_records(config, base_dir, where, key), classes, allowed_from)

    def _splits(self, base_dir: Path, where: str, key: str) -> dict[str, Split]:
        records = {
            name: read_records(config, base_dir, where, f"{key}.data.{name}") for name, config in self.data.items()
        }
        classes = self._classes(records["train"], where, key)
        allowed_from = f"{key}.classes" if self.classes else "the train split's classes"
        for name, config in sorted(self.data.items(), key=lambda item: item[0] != "train"):
            _check_labels(config.labels or {}, classes, allowed_from, place(where, f"{key}.data.{name}.labels"))
        return {name: to_split(found, classes, allowed_from) for name, found in records.items()}

    def _classes(self, train: Records, where: str, key: str) -> dict[str, str]:
        present = set(train.labels)
        if len(present) < 2:
            raise InputError(
                place(where, f"{key}.data.train"),
                f"every record of {train.source} has the label {shown(train.labels[0])}; two classes are needed",
            )
        if isinstance(self.classes, Mapping):
            return _distinct(self.classes, list(self.classes.values()), where, f"{key}.classes")
        if self.classes:
            names = [str(name) for name in self.classes]
            return _distinct(dict(zip(names, names, strict=True)), names, where, f"{key}.classes")
        return {name: name for name in class_order(train.labels)}


def _check_labels(labels: Mapping[str, str], classes: Mapping[str, str], allowed_from: str, where: str) -> None:
    """Refuse a class that a split's `labels` names and the task does not have."""
    for label, name in labels.items():
        if name not in classes:
            problem = (
                f"label {shown(label)} becomes {shown(name)}, which is not one of {allowed_from}: {quoted(classes)}"
            )
            raise InputError(where, problem + did_you_mean(name, classes))


def _distinct(classes: Mapping[str, str], names: Sequence[str], where: str, key: str) -> dict[str, str]:
    repeated = [name for position, name in enumerate(names) if name in names[:position]]
    if repeated:
        raise InputError(place(where, key), f"class {repeated[0]!r} is named twice")
    return dict(classes)


def measured_limits(
    measure: Sequence[MeasureConfig], splits: Mapping[str, Any], where: str, key: str
) -> list[tuple[str, int | None]]:
    """Return (split, limit) of every measured split. Raises InputError on a split that does not exist or is named twice."""
    names: list[str] = []
    for position, item in enumerate(measure):
        if item.split not in splits:
            raise InputError(
                place(where, f"{key}.{position}.split"),
                f"no split {item.split!r}; splits: {', '.join(splits)}{did_you_mean(item.split, splits)}",
            )
        if item.split in names:
            raise InputError(place(where, f"{key}.{position}.split"), f"split {item.split!r} is measured twice")
        names.append(item.split)
    return [(item.split, item.limit) for item in measure]


__all__ = ["MeasureConfig", "TextClassification", "TextTask", "measured_limits"]
