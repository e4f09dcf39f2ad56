"""Solutions for ranges of queries, on a folder and on a bucket."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from influence.solvers import Solution
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.solutions import SolutionStore, SolvedRange

AT = SolvedRange("a" * 32, "5" * 32, 8, 2, 5)


def solution(dtype=torch.float32):
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return Solution(x, np.array([False, True, False]), {"residual": [1e-3 / 3, None, 0.0], "iterations": 4})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_solutions_come_back_bit_by_bit(blobs, dtype):
    store, put = SolutionStore(blobs), solution(dtype)
    assert store.load(AT) is None
    store.put(AT, put)
    found = store.load(AT)
    assert found is not None
    assert found.x.dtype == dtype
    assert torch.equal(found.x, put.x)
    assert found.diverged.tolist() == [False, True, False]
    assert found.diagnostics == put.diagnostics


def test_numbers_in_a_mapped_file_are_aligned_as_in_memory(tmp_path):
    store = SolutionStore(LocalBlobs(tmp_path))
    for spec_id in ("5" * 32, "5" * 7):  # headers of several lengths
        store.put(replace(AT, spec_id=spec_id), solution())
        found = store.load(replace(AT, spec_id=spec_id))
        assert found is not None
        assert found.x.data_ptr() % 64 == 0


def test_a_damaged_or_foreign_file_holds_nothing(blobs):
    store = SolutionStore(blobs)
    store.put(AT, solution())
    data = blobs.get(AT.key)
    for bad in (b"", data[:5], data[:-1], data[:-1] + b"\xff", b"{}" * 40):
        blobs.put(AT.key, bad)
        assert store.load(AT) is None, bad[:10]
    others = [replace(AT, score_id="b" * 32), replace(AT, step=9), replace(AT, start=1), replace(AT, spec_id="6" * 32)]
    for other in others:
        blobs.put(other.key, data)
        assert store.load(other) is None


def test_those_of_one_score_id_are_deleted_and_its_shards_stay(blobs):
    store, other = SolutionStore(blobs), replace(AT, score_id="b" * 32)
    for at in (AT, replace(AT, start=0, stop=2), other):
        store.put(at, solution())
    blobs.put(f"scores/{AT.score_id}/shard-1", b"scores")
    store.clear(AT.score_id)
    assert blobs.list("scores/") == [f"scores/{AT.score_id}/shard-1", other.key]
