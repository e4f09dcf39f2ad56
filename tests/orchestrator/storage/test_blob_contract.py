"""What every BlobStore promises, on a local folder and on a bucket."""

import pickle
import threading

import pytest

from orchestrator.storage.blobs import BlobStore

STORES = ("local", "s3", "gs")
N_ROUNDS, N_TAKERS = 12, 6


def at_once(n, act):
    """Run act(0) ... act(n - 1) in threads that start together; what they raised or returned."""
    ready, results = threading.Barrier(n), [None] * n

    def run(i):
        ready.wait()
        try:
            results[i] = act(i)
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_what_is_put_is_got_and_replaced(blobs):
    blobs.put("ledger/a/x", b"one")
    blobs.put("ledger/a/x", b"three")
    assert blobs.get("ledger/a/x") == b"three"
    assert blobs.size("ledger/a/x") == 5
    assert blobs.exists("ledger/a/x")
    assert not blobs.exists("ledger/a")
    assert blobs.list("") == ["ledger/a/x"]


def test_absent_keys(blobs):
    assert not blobs.exists("a/b")
    assert blobs.list("a/") == []
    assert blobs.versions("a/") == {}
    blobs.delete("a/b")
    for read in (blobs.get, blobs.size):
        with pytest.raises(FileNotFoundError):
            read("a/b")


def test_what_is_deleted_is_gone(blobs):
    blobs.put("a/b", b"x")
    blobs.delete("a/b")
    assert (blobs.exists("a/b"), blobs.list("")) == (False, [])


def test_empty_and_large_contents(blobs):
    large = bytes(range(256)) * (40 << 10)  # 10 MiB: more than one part of an upload
    for data in (b"", large):
        blobs.put("a/b", data)
        assert blobs.get("a/b") == data
        assert blobs.size("a/b") == len(data)


def test_create_happens_once(blobs):
    assert blobs.create("a/b", b"first")
    assert not blobs.create("a/b", b"second")
    assert not blobs.create("a/b", b"first")
    assert blobs.get("a/b") == b"first"
    assert blobs.list("") == ["a/b"]


def test_of_many_creators_one_wins_and_its_content_stands(blobs):
    for n in range(N_ROUNDS):
        results = at_once(N_TAKERS, lambda i, key=f"a/{n}": blobs.create(key, b"%d" % i))
        assert sorted(results) == [False] * (N_TAKERS - 1) + [True]
        assert blobs.get(f"a/{n}") == b"%d" % results.index(True)


def test_swap_replaces_only_what_is_expected(blobs):
    assert not blobs.swap("a/b", b"new", b"old")
    assert not blobs.exists("a/b")
    blobs.put("a/b", b"old")
    assert not blobs.swap("a/b", b"new", b"other")
    assert blobs.get("a/b") == b"old"
    assert blobs.swap("a/b", b"new", b"old")
    assert not blobs.swap("a/b", b"newer", b"old")
    assert blobs.get("a/b") == b"new"


def test_of_many_swaps_one_wins_and_its_content_stands(blobs):
    blobs.put("a/b", before := b"start")
    for n in range(N_ROUNDS):
        results = at_once(N_TAKERS, lambda i, n=n, old=before: blobs.swap("a/b", b"%d %d" % (n, i), old))
        assert sorted(results) == [False] * (N_TAKERS - 1) + [True]
        before = blobs.get("a/b")
        assert before == b"%d %d" % (n, results.index(True))


def test_list_is_sorted_and_goes_by_prefix(blobs):
    for key in ("a/part-2", "a/part-1", "a/corrupt/part-3", "a/lease", "ab/part-4"):
        blobs.put(key, b"")
    assert blobs.list("a/part-") == ["a/part-1", "a/part-2"]
    assert blobs.list("a/") == ["a/corrupt/part-3", "a/lease", "a/part-1", "a/part-2"]
    assert len(blobs.list("")) == len(blobs.list("a")) == 5


def test_a_version_changes_with_the_content(blobs):
    blobs.put("a/b", b"one")
    blobs.put("a/c", b"other")
    first = blobs.versions("a/")
    assert list(first) == blobs.list("a/")
    assert blobs.versions("a/") == first
    blobs.put("a/b", b"two")
    second = blobs.versions("a/")
    assert second["a/b"] != first["a/b"]
    assert second["a/c"] == first["a/c"]


def test_names_with_odd_characters_are_kept(blobs):
    keys = sorted(f"scores/{label}.parquet" for label in ("a b", "naïve", "a%20b", "a+b", "x~y", "a:b", "漢"))
    for key in keys:
        blobs.put(key, key.encode())
    assert blobs.list("scores/") == keys
    assert [blobs.get(key).decode() for key in keys] == keys


@pytest.mark.parametrize("key", ["", "/etc/x", "../x", "a/../../x", "a//b", "a/.", "a\\b", "a\0b", "a/.refit-tmp-1"])
def test_keys_that_could_leave_the_store_are_refused(blobs, key):
    for call in (blobs.get, blobs.delete, blobs.size, blobs.exists, blobs.url):
        with pytest.raises(ValueError, match="not a key"):
            call(key)
    for write in (blobs.put, blobs.create):
        with pytest.raises(ValueError, match="not a key"):
            write(key, b"")
    with pytest.raises(ValueError, match="not a key"):
        blobs.swap(key, b"", b"")


def test_a_store_means_the_same_in_another_process(blobs, monkeypatch):
    other: BlobStore = pickle.loads(pickle.dumps(blobs))
    monkeypatch.chdir("/")
    other.put("a", b"x")
    assert blobs.get("a") == b"x"
    assert other.url("a") == blobs.url("a")
    assert other.url("a").startswith(("file:///", "s3://bucket-", "gs://bucket/"))
