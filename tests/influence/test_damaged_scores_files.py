"""A damaged or lying score file ends in one line, and no memory is set aside for what it only claims to hold."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_task import SmallCNN, SmallTask

from influence.foreign import read_scores
from influence.methods.scores_file import ScoresFile
from tasks.errors import InputError

TASK = SmallTask(SmallCNN())
TRAIN, TEST = TASK.splits["train"].ids, TASK.splits["test"].ids
SCORES = np.random.default_rng(0).normal(size=(len(TEST), len(TRAIN)))
ARRAYS = {"scores": SCORES, "query_ids": TEST, "train_ids": TRAIN}
PAIRS = pd.DataFrame(
    {"query_id": np.repeat(TEST, len(TRAIN)), "train_id": np.tile(TRAIN, len(TEST)), "score": SCORES.ravel()}
)
N_DAMAGES = 100


def check(folder, name):
    ScoresFile(path=name, axes="query_train", orientation="helpful_positive").check(TASK, folder, "c.yaml: methods[0]")


def outcome(folder, name) -> str | None:
    """What the refusal says, or None."""
    try:
        check(folder, name)
    except InputError as error:
        return str(error)
    return None


def refused(folder, name, message):
    with pytest.raises(InputError, match=message) as caught:
        check(folder, name)
    assert str(folder / name) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def sound(kind) -> bytes:
    buffer = io.BytesIO()
    if kind == "npz":
        np.savez(buffer, **ARRAYS)
    elif kind == "compressed.npz":
        np.savez_compressed(buffer, **ARRAYS)
    elif kind == "parquet":
        PAIRS.to_parquet(buffer)
    else:
        PAIRS.to_csv(buffer, index=False)
    return buffer.getvalue()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, taken out, put in or cut off."""
    found = bytearray(data)
    way, place = rng.integers(5), int(rng.integers(len(data)))
    if way == 0:
        del found[place:]
    elif way == 1:
        del found[place : place + int(rng.integers(1, 40))]
    elif way == 2:
        found[place:place] = rng.bytes(int(rng.integers(1, 40)))
    else:
        for position in rng.integers(len(found), size=int(rng.integers(1, 30))):
            found[int(position)] = int(rng.integers(256))
    return bytes(found)


@pytest.mark.parametrize("kind", ["npz", "compressed.npz", "parquet", "csv"])
def test_whatever_bytes_are_damaged_it_is_read_or_refused(kind, tmp_path):
    data, rng = sound(kind), np.random.default_rng(12)
    path, n_refused = tmp_path / f"s.{kind}", 0
    for _ in range(N_DAMAGES):
        path.write_bytes(damaged(data, rng))
        message = outcome(tmp_path, path.name)
        n_refused += message is not None
        assert message is None or (str(path) in message and len(message.splitlines()) == 1)
    assert n_refused > N_DAMAGES / 2


def npz_of(path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header_of(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (117 - len(text)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("shape", [(10**6, 10**6), (10**12, 10**12), (9, 10**15), (2**62, 4)])
def test_a_shape_that_is_only_claimed(tmp_path, shape):
    npz_of(tmp_path / "s.npz", {"scores": header_of(shape), "query_ids": npy(TEST), "train_ids": npy(TRAIN)})
    refused(tmp_path, "s.npz", r"array 'scores' has 0 bytes; shape .* needs \d+")


def test_ids_that_are_only_claimed(tmp_path):
    lying = header_of((10**12,), "<i8")
    npz_of(tmp_path / "s.npz", {"scores": npy(SCORES), "query_ids": lying, "train_ids": npy(TRAIN)})
    refused(tmp_path, "s.npz", "array 'query_ids' has 0 bytes")


def test_an_encrypted_member(tmp_path):
    data = bytearray(sound("npz"))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of local and central headers
        place = data.find(signature)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(signature, place + 4)
    (tmp_path / "s.npz").write_bytes(data)
    refused(tmp_path, "s.npz", "array 'scores' is encrypted")


def test_a_member_whose_compressed_bytes_are_damaged(tmp_path):
    path = tmp_path / "s.npz"
    data = bytearray(sound("compressed.npz"))
    start = data.find(b"scores.npy") + 400
    data[start : start + 200] = bytes(200)
    path.write_bytes(data)
    refused(tmp_path, "s.npz", "scores")


def test_arrays_larger_than_memory_are_not_read(tmp_path):
    np.savez(tmp_path / "s.npz", **ARRAYS)
    for name in ("s.parquet", "s.csv"):
        (tmp_path / name).write_bytes(sound(name[2:]))
    for name, message in (
        ("s.npz", "holds arrays of"),
        ("s.parquet", "has 270 rows"),
        ("s.csv", "bytes fit in memory"),
    ):
        with pytest.raises(InputError, match=message):
            read_scores(tmp_path / name, "query_train", lambda ids: None, most_bytes=1000)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_pairs_of_other_ids_are_never_made_a_matrix(tmp_path, suffix):
    """Every pair has ids of its own: as a matrix 200,000^2 scores of 8 bytes, 300 GiB."""
    ids = np.arange(200_000)
    table = pd.DataFrame({"query_id": ids, "train_id": ids + 10**6, "score": 1.0})
    path = tmp_path / f"s.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    refused(tmp_path, path.name, "30 of 30 train ids have no scores")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_sparse_pairs_of_these_ids_are_never_made_a_matrix(tmp_path, suffix):
    """All train examples, 10^6 queries, one pair each."""
    queries = np.arange(1_000_000)
    table = pd.DataFrame({"query_id": queries, "train_id": TRAIN[queries % len(TRAIN)], "score": 1.0})
    path = tmp_path / f"s.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    refused(tmp_path, path.name, "the pair of query 0 and train .* is missing")


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"columns": 3}', b"\xff\xfe", b'{"index_columns": [{"kind": 5}]}'])
def test_parquet_is_read_whatever_pandas_left_in_its_metadata(tmp_path, metadata):
    table = pa.table({name: PAIRS[name].to_numpy() for name in PAIRS}).replace_schema_metadata({b"pandas": metadata})
    pq.write_table(table, tmp_path / "s.parquet")
    check(tmp_path, "s.parquet")


def test_parquet_with_columns_that_are_no_numbers(tmp_path):
    for number, column in enumerate((["x"] * len(PAIRS), [[1.0]] * len(PAIRS), [{"a": 1}] * len(PAIRS), [None] * 270)):
        table = pa.table(
            {"query_id": PAIRS.query_id.to_numpy(), "train_id": PAIRS.train_id.to_numpy(), "score": column}
        )
        pq.write_table(table, tmp_path / f"{number}.parquet")
        refused(tmp_path, f"{number}.parquet", "score")


def test_a_json_file_called_csv(tmp_path):
    (tmp_path / "s.csv").write_text(json.dumps(ARRAYS["query_ids"].tolist()))
    refused(tmp_path, "s.csv", "columns are")
