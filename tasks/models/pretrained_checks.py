"""Checks the files of a pretrained model without torch and without reading its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.data.tokens import PretrainedTokeniser
from tasks.errors import InputError
from tasks.models.architectures import sequence_classifiers
from tasks.suggestions import did_you_mean

WHERE = "task.model.pretrained"
LARGEST_HEADER = 100 * 2**20  # bytes, the limit of the safetensors library
VOCABULARIES = (("vocab.txt",), ("vocab.json", "merges.txt"), ("spiece.model",), ("tokenizer.model",))
VOCABULARIES += (("sentencepiece.bpe.model",),)


def check_model_type(config: Mapping[str, Any], directory: Path) -> None:
    """Raise InputError unless the installed transformers has a sequence classifier of this `model_type`."""
    known, file = sequence_classifiers(), directory / "config.json"
    found = config.get("model_type")
    if not isinstance(found, str):
        problem = "has no model_type" if found is None else f"has the model_type {found!r}, which is not a name"
        raise InputError(WHERE, f"{file} {problem}")
    if known and found not in known:
        problem = f"{file} has the model_type {found!r}, for which transformers has no sequence classifier"
        raise InputError(WHERE, problem + did_you_mean(found, known))


def check_safetensors(file: Path) -> None:
    """Raise InputError unless the file has a safetensors header and the number of bytes that the header declares."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        n_header = int.from_bytes(stream.read(8), "little")
        if size < 8 or n_header > min(LARGEST_HEADER, size - 8):
            raise InputError(WHERE, f"{file} is truncated or not a safetensors file: it has {size} bytes")
        try:
            header = json.loads(stream.read(n_header))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            asked = 8 + n_header + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise InputError(WHERE, f"{file} is not a safetensors file: its header cannot be read ({error})") from error
    if asked != size:
        state = "is truncated" if size < asked else "is damaged"
        raise InputError(WHERE, f"{file} {state}: it has {size} bytes, its header declares {asked}")


def check_tokeniser(directory: Path, max_length: int, config: Mapping[str, Any]) -> None:
    """Raise InputError unless there is a readable vocabulary whose ids are all in the model's embedding.

    Only tokenizer.json is read; transformers converts other files, which would import torch.
    """
    if not (directory / "tokenizer.json").is_file():
        if not any(all((directory / name).is_file() for name in names) for names in VOCABULARIES):
            wanted = ", ".join(["tokenizer.json", *("+".join(names) for names in VOCABULARIES)])
            raise InputError(WHERE, f"{directory} has no tokeniser vocabulary; one of {wanted} is needed")
        return
    n_ids, n_rows = PretrainedTokeniser(directory, max_length).vocabulary_size, config.get("vocab_size")
    if isinstance(n_rows, int) and n_ids > n_rows:
        raise InputError(WHERE, f"the tokeniser has {n_ids} ids, the embedding only {n_rows}")
