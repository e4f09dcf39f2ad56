import errno
import os
import pickle
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.storage import blobs as blobs_module
from orchestrator.storage.blobs import LocalBlobs, write_file
from orchestrator.storage.open import open_blobs
from tasks.errors import InputError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path):
    return LocalBlobs(tmp_path / "store")


@contextmanager
def full_disk(limit_bytes):
    """The kernel refuses to let a file grow past `limit_bytes`, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files_under(folder):
    return sorted(p.name for p in Path(folder).rglob("*") if p.is_file())


def test_only_what_was_put_is_there(store):
    store.put("ledger/a/x", b"one")
    store.put("ledger/a/x", b"three")
    assert store.create("a/b", b"first")
    assert store.swap("a/b", b"second", b"first")
    assert files_under(store.root) == ["b", "x"]


def test_create_without_hard_links(store, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links on this file system")

    monkeypatch.setattr(blobs_module.os, "link", no_links)
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.get("a/b") == b"first"
    assert files_under(store.root) == ["b"]


def test_swap_without_locks(store, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks on this file system")

    monkeypatch.setattr(blobs_module.fcntl, "flock", no_locks)
    store.put("a/b", b"old")
    assert store.swap("a/b", b"new", b"old")
    assert not store.swap("a/b", b"newer", b"old")
    assert store.get("a/b") == b"new"


def test_a_full_disk_leaves_the_old_content_and_no_rubbish(store):
    store.put("a/b", b"old")
    with full_disk(1000):
        for write in (store.put, store.create):
            with pytest.raises(OSError, match="File too large"):
                write("a/c", b"x" * 5000)
        with pytest.raises(OSError, match="File too large"):
            store.put("a/b", b"x" * 5000)
        with pytest.raises(OSError, match="File too large"):
            store.swap("a/b", b"x" * 5000, b"old")
    assert store.get("a/b") == b"old"
    assert files_under(store.root) == ["b"]


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_write_that_stops_at_any_step_leaves_the_old_content_or_the_new(store, monkeypatch, step):
    store.put("a/b", b"old")
    real, calls = getattr(os, step), []

    def stop_at(*args, **kwargs):
        calls.append(args)
        if len(calls) == stop_at.call:
            raise OSError(errno.EIO, "stopped")
        return real(*args, **kwargs)

    for stop_at.call in (1, 2):
        calls.clear()
        monkeypatch.setattr(blobs_module.os, step, stop_at)
        try:
            store.put("a/b", b"new")
        except OSError as error:
            assert error.errno == errno.EIO  # noqa: PT017
        monkeypatch.undo()
        assert store.get("a/b") in (b"old", b"new")
        assert files_under(store.root) == ["b"]


def test_leftovers_are_not_listed_and_old_ones_are_swept_on_open(store):
    store.put("ledger/t/part-1", b"x")
    old, young = (store.root / "ledger/t" / f".refit-tmp-{i}" for i in range(2))
    outside = store.root / "runs" / ".refit-tmp-0"
    outside.parent.mkdir()
    for leftover in (old, young, outside):
        leftover.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert store.list("ledger/") == ["ledger/t/part-1"]
    open_blobs(str(store.root), "config.yaml: output")
    assert (old.exists(), young.exists(), outside.exists()) == (False, True, True)


def test_a_relative_folder_means_the_same_in_another_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = pickle.loads(pickle.dumps(LocalBlobs(Path("runs"))))
    monkeypatch.chdir("/")
    assert store.root == tmp_path / "runs"


def test_local_stores_do_without_obstore(tmp_path):
    code = "import sys\nfrom orchestrator.storage.store import Store\nStore(sys.argv[1], 'x').blobs.put('a', b'')\nsys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False).returncode == 0


def test_opening_makes_nothing(tmp_path):
    open_blobs(str(tmp_path / "new" / "runs"), "config.yaml: output")
    assert list(tmp_path.iterdir()) == []


def test_local_uris_open(tmp_path):
    for uri in (str(tmp_path / "a b"), f"file://{tmp_path}/a%20b", f"file://localhost{tmp_path}/a%20b"):
        store = open_blobs(uri, "config.yaml: output")
        assert isinstance(store, LocalBlobs)
        assert store.root == tmp_path / "a b"
    assert open_blobs(str(tmp_path / "@home"), "x").root == tmp_path / "@home"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("https://host/runs", "not supported"),
        ("az://container/runs", "not supported; allowed: a local path, file://, s3:// or gs://"),
        ("s3://", "not a valid bucket name; allowed: s3://bucket/prefix"),
        ("s3:///runs", "not a valid bucket name"),
        ("s3://Bucket/runs", "not a valid bucket name"),
        ("gs://bucket//runs", "empty"),
        ("gs://bucket/../runs", "'..' parts"),
        ("s3://bucket/my runs", "blanks"),
        ("s3://bucket/runs?versionId=3", "blanks or any of"),
        ("file://server/runs", "another host"),
        ("", "not a path"),
        ("  ", "not a path"),
        ("runs\0", "not a path"),
        (__file__, "is a file"),
        (__file__ + "/runs", "is a file"),
    ],
)
def test_what_is_no_store_is_refused_by_name(uri, problem):
    with pytest.raises(InputError, match=problem) as caught:
        open_blobs(uri, "config.yaml: output")
    assert caught.value.where == "config.yaml: output"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:hunter2@bucket/runs",
        "s3://hunter2@bucket",
        "s3://key:hunter2/with/slashes@bucket",
        "gs://bucket/runs?secret_key=hunter2",
        "s3://bucket?access_key=k&session_token=hunter2",
        "file://user:hunter2@localhost/runs",
        "user:hunter2@host/runs",
    ],
)
def test_a_password_is_refused_and_never_repeated(uri):
    with pytest.raises(InputError, match="environment") as caught:
        open_blobs(uri, "config.yaml: output")
    assert "hunter2" not in str(caught.value)


def test_written_files_are_readable_by_others(tmp_path):
    mask = os.umask(0o022)
    try:
        write_file(tmp_path / "deep" / "er" / "x", b"1")
    finally:
        os.umask(mask)
    assert (tmp_path / "deep/er/x").stat().st_mode & 0o777 == 0o644
