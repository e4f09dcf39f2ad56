import numpy as np
import pytest

from orchestrator.storage.scores import ScoreStore

QUERIES = np.array([70, -3, 5])


def block(start, stop, seed=0):
    scores = np.random.default_rng([seed, start]).normal(size=(len(QUERIES), stop - start)).astype(np.float32)
    return start, stop, QUERIES, np.arange(start, stop) * 10, scores


@pytest.fixture
def store(blobs):
    return ScoreStore(blobs)


def shard_key(name):
    return f"scores/s1/{name}"


def rename(blobs, name, other):
    blobs.put(shard_key(other), blobs.get(shard_key(name)))
    blobs.delete(shard_key(name))


def test_blocks_come_back_bit_by_bit_in_order(store):
    for start, stop in ((4, 6), (0, 4)):
        store.put_block("s1", *block(start, stop))
    store.put_block("s2", *block(6, 8))
    assert store.ranges("s1") == [(0, 4), (4, 6)]
    for shard in store.load("s1"):
        start, stop, queries, trains, scores = block(shard.start, shard.stop)
        np.testing.assert_array_equal(shard.query_ids, queries, strict=True)
        np.testing.assert_array_equal(shard.train_ids, trains, strict=True)
        np.testing.assert_array_equal(shard.scores, scores, strict=True)
    assert store.ranges("unknown") == []


def test_only_the_ranges_asked_for_are_loaded(store):
    for span in ((0, 4), (4, 8), (0, 8)):
        store.put_block("s1", *block(*span))
    assert [(s.start, s.stop) for s in store.load("s1", [(0, 4), (4, 8), (8, 12)])] == [(0, 4), (4, 8)]


def test_the_same_block_is_one_shard_and_a_range_counts_once(store, blobs):
    assert store.put_block("s1", *block(0, 4)) == store.put_block("s1", *block(0, 4))
    assert len(blobs.list("scores/s1/")) == 1
    store.put_block("s1", *block(0, 4, seed=1))
    assert store.ranges("s1") == [(0, 4)]


def test_unusual_blocks(store):
    nan = np.array([[np.nan, -0.0], [np.inf, 1e-45]], np.float32)
    store.put_block("s1", 0, 2, np.array([1, 2]), np.array([2**62, -1]), nan)
    store.put_block("s1", 2, 4, np.zeros(0, int), np.array([3, 4]), np.zeros((0, 2), np.float32))
    first, second = store.load("s1")
    assert first.scores.tobytes() == nan.tobytes()
    assert first.train_ids.tolist() == [2**62, -1]
    assert second.scores.shape == (0, 2)


def test_a_block_of_another_shape_is_refused(store):
    start, stop, queries, trains, scores = block(0, 4)
    for wrong in ((queries, trains, scores.T), (queries, trains[:3], scores), (queries[:2], trains, scores)):
        with pytest.raises(ValueError, match="do not fit"):
            store.put_block("s1", start, stop, *wrong)


def test_a_damaged_shard_is_set_aside_and_missing(store, blobs):
    name = store.put_block("s1", *block(0, 4))
    store.put_block("s1", *block(4, 8))
    good = blobs.get(shard_key(name))
    flipped = [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in np.linspace(0, len(good) - 1, 40).astype(int)]
    for damaged in (*flipped, b"", good[:-1]):
        blobs.put(shard_key(name), damaged)
        assert store.ranges("s1") == [(4, 8)]
        assert blobs.get(shard_key("corrupt/" + name)) == damaged
        assert not blobs.exists(shard_key(name))
    store.put_block("s1", *block(0, 4))
    assert store.ranges("s1") == [(0, 4), (4, 8)]


def test_a_shard_under_a_name_that_is_none_is_set_aside(store, blobs):
    name = store.put_block("s1", *block(0, 4))
    rename(blobs, name, "shard-x.parquet")
    renamed = name.replace("000000004", "000000005")
    store.put_block("s1", *block(0, 4))
    rename(blobs, name, renamed)
    assert store.ranges("s1") == []
    assert blobs.list("scores/s1/") == [shard_key("corrupt/" + name) for name in sorted(["shard-x.parquet", renamed])]
