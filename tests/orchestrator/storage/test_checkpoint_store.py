import copy
import json
import multiprocessing

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn

from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.checkpoints import CheckpointError, CheckpointStore
from orchestrator.storage.object_blobs import ObjectBlobs

SPEC = "5" * 32


class Tied(nn.Module):
    """An embedding shared with the output layer, a buffer, and a parameter that is a view."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.embedding.weight
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("transposed", torch.arange(6.0).reshape(2, 3).T)


@pytest.fixture
def store(blobs):
    return CheckpointStore(blobs)


def checkpoint_key(step):
    return f"checkpoints/{SPEC}/{step}.safetensors"


def test_weights_come_back_bit_by_bit(store, blobs):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    keep = store.keeper(SPEC)
    keep(2, network)
    with torch.no_grad():
        network[0].weight.mul_(2)
    keep(4, network)
    loaded = store.load(SPEC, 4)
    assert set(loaded) == set(network.state_dict())
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(loaded[name], tensor.numpy(), strict=True)
    np.testing.assert_array_equal(store.load(SPEC, 2)["0.weight"] * 2, loaded["0.weight"])
    assert set(load(blobs.get(checkpoint_key(4)))) == set(loaded)  # a plain safetensors file for others


def test_tied_weights_views_and_scalars_survive(store):
    network = Tied()
    store.keeper(SPEC)(1, network)
    other = Tied()
    other.load_state_dict({name: torch.from_numpy(array) for name, array in store.load(SPEC, 1).items()})
    assert torch.equal(other.output.weight, network.embedding.weight)
    assert torch.equal(other.transposed, network.transposed)
    assert other.steps.item() == 3
    assert other.output.weight is other.embedding.weight


def test_half_precision_is_exact(store):
    network = nn.Linear(5, 3).to(torch.bfloat16)
    store.keeper(SPEC)(1, network)
    other = nn.Linear(5, 3).to(torch.bfloat16)
    other.load_state_dict({name: torch.from_numpy(array) for name, array in store.load(SPEC, 1).items()})
    assert torch.equal(other.weight, network.weight)


def test_diverged_weights_are_weights(store):
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, float("nan"))
    store.keeper(SPEC)(1, network)
    assert np.isnan(store.load(SPEC, 1)["weight"]).all()


def test_the_same_weights_are_the_same_bytes(store, blobs):
    network = nn.Linear(3, 2)
    written = []
    for again in (network, *(copy.deepcopy(network) for _ in range(4))):
        store.keeper(SPEC)(1, again)
        written.append(blobs.get(checkpoint_key(1)))
    assert len(set(written)) == 1


def test_has_wants_every_step(store):
    store.keeper(SPEC)(2, nn.Linear(1, 1))
    assert store.has(SPEC, [2])
    assert store.has(SPEC, [])
    assert not store.has(SPEC, [2, 4])
    assert not store.has("6" * 32, [2])
    with pytest.raises(CheckpointError, match=r"checkpoints/5{32}/4\.safetensors: no such checkpoint"):
        store.load(SPEC, 4)


def test_a_flipped_byte_anywhere_or_a_truncation_makes_it_missing(store, blobs):
    store.keeper(SPEC)(1, nn.Linear(6, 5))
    good = blobs.get(checkpoint_key(1))
    places = range(0, len(good), 1 if isinstance(blobs, LocalBlobs) else 9)
    flipped = [good[:i] + bytes([good[i] ^ (1 << i % 8)]) + good[i + 1 :] for i in places]
    truncated = [good[:n] for n in (0, 4, 8, 50, len(good) - 1)]
    foreign = [b"\x00" * 100, (30).to_bytes(8, "little") + b'{"__metadata__":{"sha256":"" }}', good + b"\0"]
    for damaged in (*flipped, *truncated, *foreign):
        blobs.put(checkpoint_key(1), damaged)
        assert not store.has(SPEC, [1])
    with pytest.raises(CheckpointError, match="do not have the SHA-256 in its metadata"):
        store.load(SPEC, 1)


def test_weights_of_elsewhere_without_a_seal_are_missing(store, blobs):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    store.blobs.put(checkpoint_key(1), len(header).to_bytes(8, "little") + header + bytes(4))
    assert not store.has(SPEC, [1])


def _keep_elsewhere(store, step):
    store.keeper(SPEC)(step, nn.Linear(2, 2))


def test_a_worker_process_writes_where_the_driver_reads(s3):
    store = CheckpointStore(ObjectBlobs(f"s3://{s3.make_bucket()}"))  # it finds the credentials itself
    worker = multiprocessing.get_context("spawn").Process(target=_keep_elsewhere, args=(store, 3))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert store.load(SPEC, 3)["weight"].shape == (2, 2)
