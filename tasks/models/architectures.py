"""Which sequence classifiers the installed transformers has, read from its source.

Importing transformers' own lists takes seconds and imports torch, which `refit plan` must not do.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

_LIST = "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"


@functools.cache
def sequence_classifiers() -> Mapping[str, str]:
    """Map the `model_type` of a config.json to the class; empty if the source differs from transformers 4 and 5."""
    try:
        tree = ast.parse((_package() / "auto" / "modeling_auto.py").read_text(encoding="utf-8"))
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(getattr(target, "id", "") == _LIST for target in targets):
                return dict(ast.literal_eval(node.value.args[0]))  # type: ignore[attr-defined]
    except (OSError, ValueError, SyntaxError, AttributeError, IndexError, TypeError):
        pass
    return {}


@functools.cache
def has_pooled_head(model_type: str) -> bool:
    """Return whether the layer onto the logits gets one vector per example, and not one per token as in decoders.

    Decoders compute the logits of every token and keep those of the last one, either in the class that all newer
    decoders share or under the name `pooled_logits`. If the source does not show it, this returns True, and scoring
    checks the network before anything is trained.
    """
    name = sequence_classifiers().get(model_type)
    for file in _modeling_files(model_type) if name else ():
        found = re.search(rf"^class {name}\((.*?)\):(.*?)(?=^\S|\Z)", file, re.MULTILINE | re.DOTALL)
        if found:
            return "GenericForSequenceClassification" not in found.group(1) and "pooled_logits" not in found.group(2)
    return True


@functools.cache
def counts_padding(model_type: str) -> bool:
    """Return whether the network finds the position of a token by counting the ids before it that are no padding, as RoBERTa does."""
    return any("create_position_ids_from_input_ids" in file for file in _modeling_files(model_type))


@functools.cache
def counts_attention(model_type: str) -> bool:
    """Return whether a token's position is the number of visible tokens before it, as in OPT, BLOOM and Falcon.

    A token that is hidden from attention within a text moves all tokens behind it in such a network.
    """
    counted = re.compile(r"cumsum\((?:position_)?attention_mask|attention_mask(?:\.long\(\))?\.cumsum\(")
    return any(counted.search(file) for file in _modeling_files(model_type))


def _package() -> Path:
    found = importlib.util.find_spec("transformers")
    if found is None or found.origin is None:
        raise OSError("transformers is not installed")
    return Path(found.origin).parent / "models"


def _modeling_files(model_type: str) -> list[str]:
    """Return the source of the modules that may hold the class, from folders named like the type or its first parts."""
    parts = model_type.replace("-", "_").split("_")
    try:
        folders = [_package() / "_".join(parts[:n]) for n in range(len(parts), 0, -1)]
        files = [file for folder in folders for file in sorted(folder.glob("modeling_*.py"))]
        return [file.read_text(encoding="utf-8") for file in files]
    except (OSError, ValueError):
        return []
