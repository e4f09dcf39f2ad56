"""Vectors in shards: computed once, read by every process, repaired if a file is damaged."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tasks.data import vector_shards
from tasks.data.vector_shards import VectorShards, padded

ROOT = Path(__file__).parents[3]
WIDTH = 3
LENGTHS = np.array([2, 1, 5, 4, 1, 3, 2, 6, 1, 1])


def vectors(row):
    """Vectors that say which text and token they are of."""
    return (np.arange(LENGTHS[row])[:, None] + 100 * row + np.zeros(WIDTH)).astype(np.float32)


class Counted:
    """Computes the vectors and remembers for which rows it was asked."""

    def __init__(self):
        self.rows = []

    def __call__(self, row):
        self.rows.append(row)
        return vectors(row)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(vector_shards, "SHARD_TEXTS", 3)
    monkeypatch.setattr(vector_shards, "SHARD_VECTORS", 7)


def shards(folder, key="key", dtype="float32"):
    compute = Counted()
    return VectorShards(key, LENGTHS, dtype, compute, folder), compute


def filled(folder):
    found, _ = shards(folder)
    found.load(np.arange(len(LENGTHS)))
    return sorted(folder.glob("*.npy"), key=lambda file: int(file.stem))


def is_right(found):
    return all(np.array_equal(found[row], vectors(row)) for row in range(len(LENGTHS)))


def test_shards_are_bounded_in_texts_and_in_vectors(tmp_path):
    files = filled(tmp_path)
    assert [int(file.stem) for file in files] == [0, 2, 3, 5, 7, 9]  # 2 + 1 + 5 vectors would be more than 7
    assert [np.load(file).shape for file in files] == [(n, WIDTH) for n in (3, 5, 5, 5, 7, 1)]
    wide = VectorShards(
        "key", np.ones(7, np.int64), "float32", lambda row: np.full((1, 2), row, np.float32), tmp_path / "w"
    )
    wide.load(np.arange(7))
    assert {file.stem for file in (tmp_path / "w").iterdir()} == {"0", "3", "6"}  # three texts each


def test_many_texts_have_larger_shards_so_that_few_files_are_open(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_shards, "MOST_SHARDS", 10)
    lengths = np.tile([1, 3], 300)
    found = VectorShards("key", lengths, "float32", lambda row: np.full((lengths[row], 2), row, np.float32), tmp_path)
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else set()
    found.load(np.arange(600))
    assert len(list(tmp_path.glob("*.npy"))) == 10
    if before:
        assert len(set(os.listdir("/proc/self/fd")) - before) <= 10
    assert all((found[row] == row).all() and len(found[row]) == lengths[row] for row in range(600))


def test_a_text_that_is_longer_than_a_shard_has_one_of_its_own():
    lengths = np.array([1, 20, 1])
    found = VectorShards("key", lengths, "float32", lambda row: np.full((lengths[row], 2), row, np.float32), None)
    assert [found[row].shape[0] for row in range(3)] == [1, 20, 1]


def test_every_text_is_computed_once_and_read_by_the_next_process(tmp_path):
    first, compute = shards(tmp_path)
    assert is_right(first)
    assert is_right(first)
    assert sorted(compute.rows) == list(range(len(LENGTHS)))
    second, again = shards(tmp_path)
    second.load(np.arange(len(LENGTHS)))
    assert is_right(second)
    assert again.rows == []
    assert isinstance(second[0], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        second[0][0] = 1


def test_only_shards_that_are_needed_are_computed(tmp_path):
    found, compute = shards(tmp_path)
    found.load(np.array([4]))
    assert compute.rows == [3, 4]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "other shard", "other key"])
def test_a_file_that_is_not_as_it_was_written_is_computed_again(tmp_path, damage):
    files = filled(tmp_path / "a")
    intact = files[1].read_bytes()
    if damage == "flip":
        files[1].write_bytes(intact[:-40] + bytes([intact[-40] ^ 1]) + intact[-39:])
    elif damage == "truncate":
        files[1].write_bytes(intact[:-50])
    elif damage == "empty":
        files[1].write_bytes(b"")
    elif damage == "other shard":
        shutil.copy(files[2], files[1])  # it has the same number of vectors
    else:
        other, _ = shards(tmp_path / "b", key="another model")
        other.load(np.arange(len(LENGTHS)))
        shutil.copy(tmp_path / "b" / files[1].name, files[1])
    found, compute = shards(tmp_path / "a")
    assert is_right(found)
    assert compute.rows == [2]
    assert files[1].read_bytes() == intact


def test_a_file_of_another_dtype_is_not_read(tmp_path):
    filled(tmp_path)
    found, compute = shards(tmp_path, dtype="float16")
    assert found[0].dtype == np.float16
    assert compute.rows == [0, 1]


def test_a_folder_that_cannot_be_written_costs_memory_only(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    found, compute = shards(tmp_path / "file")
    assert is_right(found)
    assert is_right(found)
    assert len(compute.rows) == len(LENGTHS)


PROGRAM = """
import hashlib, sys, time
from pathlib import Path
import numpy as np
from tasks.data import vector_shards
vector_shards.SHARD_TEXTS = 4
seconds = float(sys.argv[2])
def compute(row):
    time.sleep(seconds)
    print(row, flush=True)
    return np.full((1 + row % 3, 5), row, np.float32)
lengths = 1 + np.arange(24) % 3
found = vector_shards.VectorShards("key", lengths, "float32", compute, Path(sys.argv[1]))
found.load(np.arange(24))
print("digest", hashlib.sha256(b"".join(found[row].tobytes() for row in range(24))).hexdigest())
"""


def run(folder, seconds):
    command = [sys.executable, "-c", PROGRAM, str(folder), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_processes_that_compute_together_all_succeed_and_one_that_is_killed_leaves_nothing_wrong(tmp_path):
    killed = run(tmp_path, 0.05)
    assert killed.stdout.readline()
    until = time.monotonic() + 60
    while not list(tmp_path.glob("*.npy")):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    n_left = 24 - 4 * len(list(tmp_path.glob("*.npy")))
    assert n_left > 0, "it was killed before it was done"
    outputs = [process.communicate(timeout=60)[0].split("\n") for process in (run(tmp_path, 0.0), run(tmp_path, 0.0))]
    digests = {line for lines in outputs for line in lines if line.startswith("digest")}
    assert len(digests) == 1
    assert all(len(lines) - 2 <= n_left for lines in outputs), "no process computes a shard that is on disk"
    assert not run(tmp_path, 0.0).communicate(timeout=60)[0].split("\n")[0].isdigit(), "and then none computes any"


def test_padding_is_zero():
    found = padded([np.ones((2, 3), np.float32), np.full((1, 3), 2, np.float32)], 4)
    assert found.shape == (2, 4, 3)
    assert found[:, :, 0].tolist() == [[1, 1, 0, 0], [2, 0, 0, 0]]
