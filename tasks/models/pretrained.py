"""Finds pretrained weights and identifies them by content: safetensors only, no remote code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.data.paths import PACKAGE, resolve_path
from tasks.data.tokens import tokeniser_digest
from tasks.digests import digest, digest_file
from tasks.errors import InputError
from tasks.models.pretrained_checks import WHERE, check_safetensors

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ["*.json", "*.txt", "*.model", "model*.safetensors"]


def pretrained_directory(pretrained: str, revision: str | None, base_dir: Path) -> Path:
    """Return the directory of `pretrained`: a path, `package:<module>/<dir>`, or the local snapshot of a hub name's commit.

    Raises InputError if there is none, or if the hub cannot be reached and nothing is cached.
    """
    if pretrained.startswith(PACKAGE) or (base_dir / pretrained).expanduser().is_dir():
        found = resolve_path(pretrained, base_dir, WHERE)
    elif _HUB_NAME.fullmatch(pretrained):
        found = _hub_snapshot(pretrained, revision)
    else:
        allowed = "a directory, package:<module>/<dir>, or a hub name"
        raise InputError(WHERE, f"{pretrained!r} is not a directory; allowed: {allowed}")
    if not (found / "config.json").is_file():
        raise InputError(WHERE, f"{pretrained!r} holds no config.json; a directory saved by save_pretrained is needed")
    return found


def content_identity(directory: Path) -> dict[str, Any]:
    """Return digests of weights, config and tokeniser files; equal content under another name or path is the same model."""
    files = weight_files(directory)
    for file in files:
        check_safetensors(file)
    weights = {file.name: digest_file(file) for file in files}
    config = digest_file(directory / "config.json")
    return {"weights": digest(weights), "config": config, "tokeniser": tokeniser_digest(directory)}


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a model, sharded or not. Raises InputError if there is none or one is missing."""
    whole, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    names = _shards(index) if index.is_file() else []
    missing = [name for name in names if not (directory / name).is_file()]
    if missing or not names:
        raise InputError(
            WHERE,
            f"{directory} lacks {missing[0] if missing else 'model.safetensors'}; "
            "weights are read from safetensors files only",
        )
    return [directory / name for name in names]


def _shards(index: Path) -> list[str]:
    """Return the names of the files that an index of sharded weights lists."""
    content = _read_json(index).get("weight_map", {})
    names = list(content.values()) if isinstance(content, dict) else [None]
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise InputError(WHERE, f"{index}: weight_map does not map names of weights to names of files in its folder")
    return sorted(map(str, set(names)))


def read_config(directory: Path) -> dict[str, Any]:
    """Return config.json as a mapping. Raises InputError."""
    return _read_json(directory / "config.json")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars and loading reports; the checks in this module raise what matters of them."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(WHERE, f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(WHERE, f"{file} holds {type(content).__name__}; allowed: a JSON object")
    return content


def _hub_snapshot(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
    except (OSError, ValueError, HfHubHTTPError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise InputError(WHERE, f"{name!r} is not a directory, and the hub does not provide it: {cause}") from error
