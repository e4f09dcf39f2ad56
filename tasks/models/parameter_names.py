"""Reads the names of a pretrained classifier's parameters from its files without torch.

With them it is known before anything starts which parameters a pattern selects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import InputError

_LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h)\.(\d+)\.")
_NO_PARAMETERS = re.compile(r"(?:^|\.)(?:position_ids|token_type_ids|inv_freq|masked_bias|(?:attn|attention)\.bias)$")
_OLD_NAMES = (
    (re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"),
    (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"),
)
_MOST_HEADER_BYTES = 100 << 20  # the limit of the safetensors library


def _both(*modules: str) -> tuple[str, ...]:
    return tuple(f"{module}.{kind}" for module in modules for kind in ("weight", "bias"))


@dataclass(frozen=True)
class _Architecture:
    """How the parameters of a sequence classifier are named.

    `prefix` is that of the encoder in the classifier; `parts` are the parts of the encoder; `head` holds the parameters
    of the head; `drawn` holds parameters of the encoder that the file may lack and that then start at random.
    """

    prefix: str
    parts: tuple[str, ...]
    head: tuple[str, ...]
    drawn: tuple[str, ...] = ()


_CLASSIFIER, _TWO_LAYERS = _both("classifier"), _both("classifier.dense", "classifier.out_proj")
_ROBERTA = _Architecture("roberta", ("embeddings", "encoder"), _TWO_LAYERS)
_DEBERTA = _Architecture("deberta", ("embeddings", "encoder"), _both("pooler.dense", "classifier"))
_LLAMA = _Architecture("model", ("embed_tokens", "layers", "norm"), ("score.weight",))
ARCHITECTURES = {
    "bert": _Architecture("bert", ("embeddings", "encoder", "pooler"), _CLASSIFIER, _both("pooler.dense")),
    "albert": _Architecture("albert", ("embeddings", "encoder", "pooler"), _CLASSIFIER, _both("pooler")),
    "distilbert": _Architecture("distilbert", ("embeddings", "transformer"), _both("pre_classifier", "classifier")),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), _ROBERTA),
    "electra": _Architecture("electra", ("embeddings", "embeddings_project", "encoder"), _TWO_LAYERS),
    "mpnet": _Architecture("mpnet", ("embeddings", "encoder"), _TWO_LAYERS),
    **dict.fromkeys(("deberta", "deberta-v2"), _DEBERTA),
    "gpt2": _Architecture("transformer", ("h", "ln_f", "wpe", "wte"), ("score.weight",)),
    "gpt_neox": _Architecture("gpt_neox", ("embed_in", "final_layer_norm", "layers"), ("score.weight",)),
    **dict.fromkeys(("llama", "mistral", "qwen2"), _LLAMA),
}


def classifier_parameter_names(files: Iterable[Path], config: Mapping[str, Any], num_layers: int | None) -> list[str]:
    """Return the sorted names of the parameters of a sequence classifier on the encoder in these safetensors files.

    `num_layers` is the number of kept layers (None: all). For an architecture that is not in ARCHITECTURES the
    classifier is built without weights, which imports torch. Raises InputError if a file's header cannot be read.
    """
    architecture = ARCHITECTURES.get(str(config.get("model_type")))
    if architecture is None:
        return _built_names(config, num_layers)
    stored = [_inside(name, architecture.prefix) for file in files for name in stored_names(file)]
    kept = {name for name in stored if name.partition(".")[0] in architecture.parts and _is_kept(name, num_layers)}
    return sorted({*(f"{architecture.prefix}.{name}" for name in {*kept, *architecture.drawn}), *architecture.head})


def stored_names(file: Path) -> list[str]:
    """Return the names of the tensors in a safetensors file, from its header. Raises InputError."""
    try:
        with open(file, "rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size)) if 0 < size <= _MOST_HEADER_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("task.model.pretrained", f"{file} is not a readable safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise InputError("task.model.pretrained", f"{file} is not a readable safetensors file: it has no header")
    return [name for name in header if name != "__metadata__"]


def _inside(name: str, prefix: str) -> str:
    """Return a stored name as the encoder has it, in the current spelling of transformers."""
    name = name.removeprefix(f"{prefix}.")
    for old, new in _OLD_NAMES:
        name = old.sub(new, name)
    return name


def _is_kept(name: str, num_layers: int | None) -> bool:
    layer = _LAYER.search(name)
    is_beyond = num_layers is not None and layer is not None and int(layer[1]) >= num_layers
    return not is_beyond and not _NO_PARAMETERS.search(name)


def _built_names(config: Mapping[str, Any], num_layers: int | None) -> list[str]:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from tasks.models.pretrained import quiet_transformers

    with quiet_transformers(), torch.device("meta"):
        try:
            found = AutoConfig.for_model(**config)
            if num_layers is not None:
                found.num_hidden_layers = num_layers
                if getattr(found, "layer_types", None):
                    found.layer_types = found.layer_types[:num_layers]
            network = AutoModelForSequenceClassification.from_config(found, attn_implementation="eager")
        except Exception as error:  # transformers reports broken configs by any of a dozen exception types
            raise InputError(
                "task.model.pretrained", f"no sequence classifier can be built from the config: {error}"
            ) from error
    return sorted(name for name, _ in network.named_parameters())
