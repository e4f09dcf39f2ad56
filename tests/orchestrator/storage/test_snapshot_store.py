import errno
import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.checkpoints import CheckpointStore
from orchestrator.storage.sealed import seal
from orchestrator.storage.snapshots import FORMAT, StoredSnapshot
from tasks.recipe import Snapshot

SPEC = "5" * 32
TENSORS = {
    "run/module.weight": np.array([[1.5, np.nan], [-0.0, 1e-45]], np.float32),
    "run/optimizer.0.step": np.asarray(7.0, np.float32),
    "run/module.positions": np.arange(6).reshape(2, 3).T,
    "run/module.mask": np.array([True, False]),
    "run/module.none": np.zeros((0, 4)),
    "observed/norms@3+round": np.array([1 / 3]),
}
FACTS = {"step": 12, "sums": {"loss": 0.1 + 0.2, "weight": 1e-310}, "inf": math.inf, "metrics": {"b": 1.0, "a": 2.0}}


@pytest.fixture
def store(tmp_path):
    return StoredSnapshot(LocalBlobs(tmp_path), SPEC)


def path(tmp_path, spec=SPEC):
    return tmp_path / "checkpoints" / spec / "resume.safetensors"


def test_tensors_and_facts_come_back_bit_by_bit(store):
    store.save(Snapshot(TENSORS, FACTS))
    loaded = store.load()
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert (loaded.tensors[name].dtype, loaded.tensors[name].shape) == (array.dtype, array.shape)
        assert loaded.tensors[name].tobytes() == array.tobytes()
    assert repr(loaded.facts) == repr(FACTS), "floats to the last bit, names in their order"


def test_it_is_a_plain_safetensors_file_beside_the_checkpoints(store, tmp_path):
    store.save(Snapshot(TENSORS, FACTS))
    assert load_file(path(tmp_path)).keys() == TENSORS.keys()
    assert CheckpointStore(LocalBlobs(tmp_path)).progress(SPEC).load().facts == FACTS


def test_the_last_one_replaces_those_before_even_if_it_is_less_far(store):
    for step in (8, 5):
        store.save(Snapshot({}, {"step": step}))
        assert store.load().facts == {"step": step}


def test_none_is_there_before_the_first_and_after_clearing(store):
    assert store.load() is None
    store.clear()
    store.save(Snapshot(TENSORS, FACTS))
    store.clear()
    assert store.load() is None


def test_a_flipped_byte_or_a_truncation_makes_it_none(store, tmp_path):
    store.save(Snapshot(TENSORS, FACTS))
    good = path(tmp_path).read_bytes()
    flipped = [good[:i] + bytes([good[i] ^ (1 << i % 8)]) + good[i + 1 :] for i in range(0, len(good), 7)]
    truncated = [good[:n] for n in (0, 4, 8, 50, len(good) - 1)]
    for damaged in (*flipped, *truncated, good + b"\0", b"\0" * 100):
        path(tmp_path).write_bytes(damaged)
        assert store.load() is None
    path(tmp_path).write_bytes(good)
    assert store.load() is not None


def test_that_of_another_retrain_or_another_format_is_none(store, tmp_path):
    StoredSnapshot(store.blobs, "6" * 32).save(Snapshot(TENSORS, FACTS))
    path(tmp_path).parent.mkdir(parents=True)
    path(tmp_path).write_bytes(path(tmp_path, "6" * 32).read_bytes())
    assert store.load() is None
    for wrong in ({"format": FORMAT + "0"}, {"spec_id": "x"}):
        metadata = {"sha256": "0" * 64, "format": FORMAT, "spec_id": SPEC, "facts": json.dumps(FACTS), **wrong}
        path(tmp_path).write_bytes(seal(save(TENSORS, metadata)))
        assert store.load() is None
    checkpoint = seal(save(TENSORS, {"sha256": "0" * 64}))
    path(tmp_path).write_bytes(checkpoint)
    assert store.load() is None


def test_those_of_finished_retrains_are_cleared_together(tmp_path):
    checkpoints = CheckpointStore(LocalBlobs(tmp_path))
    for spec in (SPEC, "6" * 32):
        checkpoints.progress(spec).save(Snapshot({}, {}))
    checkpoints.clear_progress([SPEC, "7" * 32])
    assert checkpoints.progress(SPEC).load() is None
    assert checkpoints.progress("6" * 32).load() is not None


def test_a_sweep_deletes_those_of_finished_retrains_and_says_which_are_in_progress(tmp_path):
    checkpoints, other, gone = CheckpointStore(LocalBlobs(tmp_path)), "6" * 32, "7" * 32
    for spec in (SPEC, other):
        checkpoints.progress(spec).save(Snapshot({}, {}))
        checkpoints.blobs.put(f"checkpoints/{spec}/4.safetensors", b"weights")
    assert all(checkpoints.may_have_progress(spec) for spec in (SPEC, other, gone)), "nobody has looked yet"
    swept = checkpoints.swept({SPEC, gone})
    assert [swept.may_have_progress(spec) for spec in (SPEC, other, gone)] == [False, True, False]
    assert checkpoints.blobs.list("checkpoints/") == [
        f"checkpoints/{SPEC}/4.safetensors",
        f"checkpoints/{other}/4.safetensors",
        f"checkpoints/{other}/resume.safetensors",
    ]


class KeepsAll(LocalBlobs):
    """Nothing can be deleted; every try is counted."""

    n_tries = 0

    def delete(self, key):
        KeepsAll.n_tries += 1
        raise OSError("store away")


def test_a_store_that_is_away_is_asked_once_and_does_not_fail_the_clearing(tmp_path, caplog):
    checkpoints, specs = CheckpointStore(KeepsAll(tmp_path)), {SPEC, "6" * 32}
    for spec in specs:
        checkpoints.progress(spec).save(Snapshot({}, {}))
    swept = checkpoints.swept(specs)
    assert KeepsAll.n_tries == 1
    assert f"checkpoints/{SPEC}/resume.safetensors and later ones are not deleted" in caplog.text
    assert not any(swept.may_have_progress(spec) for spec in specs), "of a finished retrain no snapshot counts"


class FullDisk(LocalBlobs):
    """No room for large files."""

    def put(self, key, data):
        if len(data) > 10_000:
            raise OSError(errno.ENOSPC, "no space left on device")
        super().put(key, data)


def test_on_a_full_disk_the_one_before_stays(tmp_path):
    store = StoredSnapshot(FullDisk(tmp_path), SPEC)
    store.save(Snapshot({}, {"step": 1}))
    with pytest.raises(OSError, match="no space"):
        store.save(Snapshot({"large": np.zeros(10_000)}, {"step": 2}))
    assert store.load().facts == {"step": 1}
