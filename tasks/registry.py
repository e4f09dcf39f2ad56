"""Names -> "module:Class", imported on demand. A new part is one new file and one line here."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.errors import InputError


@dataclass(frozen=True)
class Entry:
    """Where a part lives, one line on what it does, and the paper it comes from."""

    target: str
    summary: str
    paper: str = "-"


class Registry:
    """The parts of one kind, by name; a config's `plugins` and installed entry points (`refit.<kind>`) extend it."""

    def __init__(self, kind: str, entries: Mapping[str, Entry]):
        self.kind = kind
        self._entries = dict(entries)

    def entries(self) -> dict[str, Entry]:
        """Built-in parts and those of installed entry points."""
        found = dict(self._entries)
        for point in importlib.metadata.entry_points(group=f"refit.{self.kind}"):
            found.setdefault(
                point.name, Entry(point.value, f"from the package {point.dist.name if point.dist else point.module}")
            )
        return found

    def load(self, name: str, where: object, plugins: Sequence[str] = ()) -> Any:
        """The class called `name`; "module:Class" is imported only if `module` is in `plugins`. Raises InputError."""
        entries = self.entries()
        target = entries[name].target if name in entries else name
        module, _, attribute = target.partition(":")
        if name not in entries and (not attribute or module not in plugins):
            hint = (
                f"module {module!r} is not listed under plugins"
                if attribute
                else f"allowed: {', '.join(sorted(entries))}"
            )
            raise InputError(where, f"unknown {self.kind[:-1]} {name!r}; {hint}")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever a plugin's module raises while it is imported
            raise InputError(where, f"cannot import {target}: {type(error).__name__}: {error}") from error
        if not isinstance(found, type):
            raise InputError(where, f"{target} is not a class")
        return found


TASKS = Registry(
    "tasks",
    {
        "text_classification": Entry(
            "tasks.text_classification:TextClassification",
            "a text classifier on csv, tsv, jsonl, parquet, folder or hf data",
        ),
        "planted": Entry("tasks.planted:Planted", "generated text in which 20 known training rows decide each query"),
    },
)
MODELS = Registry(
    "models",
    {
        "text_cnn": Entry(
            "tasks.models.text_cnn:TextCNN",
            "embedding, three convolutions, global max pool, linear",
            "Yeh et al. 2022, section 3.2",
        ),
        "encoder": Entry(
            "tasks.models.encoder:Encoder", "any Hugging Face sequence classifier, from a directory or a hub name"
        ),
    },
)
RECIPES = Registry(
    "recipes",
    {
        "finetune": Entry(
            "tasks.recipes.finetune:Finetune", "Adam, AdamW or SGD with warm-up and decay, weighted examples"
        ),
    },
)
MEASUREMENTS = Registry(
    "measurements",
    {
        "gold_probability": Entry(
            "tasks.measurements:GoldProbability", "probability of the gold label", "Yeh et al. 2022, section 2.2"
        ),
        "predicted_probability": Entry(
            "tasks.measurements:PredictedProbability",
            "probability of the label the scoring model predicts",
            "Han et al. 2020",
        ),
        "loss": Entry("tasks.measurements:Loss", "minus the cross-entropy loss of the gold label"),
        "margin": Entry("tasks.measurements:Margin", "log-odds of the gold label"),
    },
)
