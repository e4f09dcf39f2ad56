"""Data files damaged at random from a seed, with which benchmarks and tests fuzz `refit plan`."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import yaml

FORMATS = ("csv", "tsv", "jsonl", "parquet", "folder", "csv.gz", "jsonl.bz2")
N_ROWS = 12
CONFIG: dict[str, Any] = {
    "name": "fuzz",
    "campaign": "deletion",
    "task": {
        "name": "text_classification",
        "model": {"name": "text_cnn", "embedding_dim": 4, "filters": 2, "max_length": 8},
        "recipe": {"name": "finetune", "epochs": 1, "batch_size": 4, "optimizer": "adam", "learning_rate": 0.01},
        "measure": [{"split": "train"}],
    },
    "queries": {"split": "train", "count": 1},
    "methods": [{"name": "tracin_last"}, {"name": "random"}],
    "deletion": {"k": [1], "groups": ["proponents"]},
    "repeats": {"count": 1},
    "tracking": None,
}
STRANGE_BYTES = (
    b"\0",
    b"\xff\xfe",
    b"\xc3\x28",
    b'"',
    b"\r",
    b"\n",
    b"\\",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"\xef\xbb\xbf",
    b";",
    b"\t",
)
STRANGE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.0, 0.5, float("nan"), float("inf"), 10**30, 10**400, "", " ", "neg ", "\u0000", "\ud800",
    "a" * 200_000, [], ["a", "b"], [1], [[["x"]]], {"a": 1}, {}, "1e5", "١٢", "\u2028", "-0", "9" * 5000,
)  # fmt: skip


def sound_rows() -> list[dict[str, Any]]:
    """Return the rows of a valid file."""
    return [{"id": i, "text": f"good words number {i}", "label": ("neg", "pos")[i % 2]} for i in range(N_ROWS)]


def write_mutated(folder: Path, kind: str, seed: int) -> Path:
    """Write a damaged file of the format `kind` and a config that reads it; return the config's path. The same seed gives the same bytes."""
    random = Random(f"{kind} {seed}")
    name = f"data-{seed}.{kind}"
    rows = _strange_rows(random) if random.random() < 0.5 else sound_rows()
    if kind == "folder":
        _write_folder(folder / name, rows, random)
    else:
        data = _WRITERS[kind.partition(".")[0]](rows)
        damaged = _damaged(data, random) if random.random() < 0.7 else data
        packed = {"gz": gzip.compress, "bz2": bz2.compress}.get(kind.partition(".")[2], bytes)(damaged)
        (folder / name).write_bytes(_damaged(packed, random) if packed != damaged and random.random() < 0.3 else packed)
    block = {"path": name, "format": kind.partition(".")[0]}
    if kind != "folder":
        block |= {"text": "text", "label": "label", **({"id": "id"} if random.random() < 0.7 else {})}
    config = {**CONFIG, "task": {**CONFIG["task"], "data": {"train": block}}, "output": str(folder / "runs")}
    path = folder / f"config-{seed}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _strange_rows(random: Random) -> list[dict[str, Any]]:
    """Return rows whose values or columns are wrong."""
    rows = sound_rows()
    for _ in range(random.randint(1, 3)):
        column = random.choice(("id", "text", "label"))
        value = random.choice(STRANGE_VALUES)
        chosen = rows if random.random() < 0.3 else random.sample(rows, 1)
        for row in chosen:
            if random.random() < 0.15:
                row.pop(column, None)
            elif random.random() < 0.15:
                row["text"], row["label"] = row.get("label"), row.get("text")
            else:
                row[column] = value
    return rows


def _as_delimited(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(columns)
    writer.writerows([[_short(row.get(name, "")) for name in columns] for row in rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


def _short(value: Any) -> Any:
    """Shorten a whole number that is too long for Python to write as text to its first digits."""
    return str(value % 10**50) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _as_parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        name: [row.get(name) for row in rows] for name in ("id", "text", "label") if any(name in row for row in rows)
    }
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError):  # types that parquet cannot mix
            arrays[name] = pa.array([repr(value)[:1000] for value in values])
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays), sink)
    return sink.getvalue()


_WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "csv": lambda rows: _as_delimited(rows, ","),
    "tsv": lambda rows: _as_delimited(rows, "\t"),
    "jsonl": _as_jsonl,
    "parquet": _as_parquet,
}


def _write_folder(folder: Path, rows: list[dict[str, Any]], random: Random) -> None:
    """Write one folder per class; names, contents and kinds of entries are damaged in some places."""
    for number, row in enumerate(rows):
        label = (
            str(_short(row.get("label"))).replace("\0", "").replace("/", "")[:40].encode("utf-8", "replace").decode()
            or "x"
        )
        place = folder / label if label.strip(".") else folder / "dots"
        place.mkdir(parents=True, exist_ok=True)
        data = str(_short(row.get("text"))).encode("utf-8", "surrogatepass")
        file = place / f"{number}.txt"
        if random.random() < 0.05:
            file.mkdir()
        elif random.random() < 0.05:
            file.symlink_to("nowhere")
        else:
            file.write_bytes(_damaged(data, random) if random.random() < 0.1 else data)


def _damaged(data: bytes, random: Random) -> bytes:
    """Apply one to four of: change a byte, cut, insert strange bytes, repeat a line, leave out a line, swap two parts."""
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        match random.randrange(7):
            case 0:
                data = data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + random.choice(STRANGE_BYTES) + data[at:]
            case 3 | 4:
                lines = data.splitlines(keepends=True)
                if lines:
                    line = random.randrange(len(lines))
                    lines[line : line + 1] = [lines[line]] * random.choice((0, 2, 30))
                data = b"".join(lines)
            case 5:
                data = data[at:] + data[:at]
            case 6:
                data = data.replace(b"label", b"lable", 1) if random.random() < 0.5 else data.replace(b",", b";")
    return data
