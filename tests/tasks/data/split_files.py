"""A split block read from a file that a test writes, shared by the tests of inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.components import parse_component
from tasks.data.splits import Records, SplitConfig, read_records
from tasks.errors import InputError


def read_split(folder: Path, content: bytes | str | None = None, name: str = "data.csv", **options: Any) -> Records:
    """Return the records of a file with columns `t` (text) and `l` (label); without `content` the files exist already."""
    if content is not None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    kind = next((k for k in ("csv", "tsv", "jsonl", "parquet") if f".{k}" in name), "csv")
    block = {"path": name, "format": kind, "text": "t", "label": "l", **options}
    return read_records(
        parse_component(SplitConfig, block, "c.yaml", "task.data.train"), folder, "c.yaml", "task.data.train"
    )


def refusal(folder: Path, content: bytes | str | None = None, name: str = "data.csv", **options: Any) -> str:
    """Return the one-line message with which such a file is refused."""
    with pytest.raises(InputError) as caught:
        read_split(folder, content, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
