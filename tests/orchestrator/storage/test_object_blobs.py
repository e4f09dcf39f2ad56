import errno
import os
import pickle
import socket
import time
from pathlib import Path

import pytest
from stored_rows import ledger_at, make_row

from orchestrator.runtime.publisher import Publisher
from orchestrator.scheduling.events import Published, PublishFailed
from orchestrator.storage import object_blobs
from orchestrator.storage.blobs import StoreAwayError
from orchestrator.storage.object_blobs import ObjectBlobs
from orchestrator.storage.open import open_blobs
from tasks.errors import InputError, RefitError
from tests.s3_server import S3Server

WHERE = "config.yaml: output"
SECRET = "hunter2"
AWAY = [
    lambda blobs: blobs.get("a"),
    lambda blobs: blobs.put("a", b"x"),
    lambda blobs: blobs.create("b", b"x"),
    lambda blobs: blobs.swap("a", b"x", b"one"),
    lambda blobs: blobs.delete("a"),
    lambda blobs: blobs.list(""),
    lambda blobs: blobs.exists("a"),
    lambda blobs: blobs.size("a"),
]


@pytest.fixture
def server(monkeypatch):
    """A server of its own, to be stopped and broken."""
    server = S3Server().start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_blobs, "RETRIES", {**object_blobs.RETRIES, "max_retries": 1})
    yield server
    server.stop()


@pytest.fixture
def store(server):
    return ObjectBlobs(f"s3://{server.make_bucket()}/runs")


def problem_of(uri):
    """The one line of a store that cannot be opened."""
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        open_blobs(uri, WHERE)
    assert time.monotonic() - started < 120
    text = str(caught.value)
    assert text.startswith(WHERE + ": ")
    assert "\n" not in text
    assert SECRET not in text
    assert os.environ.get("AWS_ACCESS_KEY_ID", SECRET) not in text
    return caught.value.problem


def test_uris_open_in_one_spelling(s3):
    bucket = s3.make_bucket()
    assert open_blobs(f"S3://{bucket}/a/b//", WHERE) == ObjectBlobs(f"s3://{bucket}/a/b")
    root = open_blobs(f"s3://{bucket}", WHERE)
    root.put("a/b/x", b"1")
    assert ObjectBlobs(f"s3://{bucket}/a/b").get("x") == b"1"
    assert root.list("") == ["a/b/x"]
    assert root.url("a/b/x") == f"s3://{bucket}/a/b/x"


def test_google_uris_open(gs):
    open_blobs("gs://bucket/a", WHERE).put("x", b"1")
    assert list(gs.objects) == ["/bucket/a/x"]


def test_opening_writes_nothing_and_asks_once(s3):
    bucket, before = s3.make_bucket(), s3.n_requests
    store = open_blobs(f"s3://{bucket}/runs", WHERE)
    assert s3.n_requests == before + 1
    assert store.list("") == []


def test_no_credentials_travel_to_a_worker(s3):
    store = ObjectBlobs(f"s3://{s3.make_bucket()}/runs")
    store.put("a", b"x")
    pickled = pickle.dumps(store)
    assert SECRET.encode() not in pickled
    assert os.environ["AWS_ACCESS_KEY_ID"].encode() not in pickled
    assert SECRET not in repr(store)
    assert pickle.loads(pickled).get("a") == b"x"


def test_a_bucket_that_is_not_there_is_named(s3):
    assert problem_of("s3://no-such-bucket/runs") == "s3://no-such-bucket: no such bucket"
    with pytest.raises(StoreAwayError, match="no such bucket"):
        ObjectBlobs("s3://no-such-bucket/runs").get("a")


def test_refused_credentials_are_said_and_not_repeated(server):
    bucket = server.make_bucket()
    server.ask("POST", "moto-api/reset-auth", b"0")
    try:
        assert problem_of(f"s3://{bucket}/runs") == f"s3://{bucket}: access is refused (InvalidAccessKeyId)"
        with pytest.raises(StoreAwayError) as caught:
            ObjectBlobs(f"s3://{bucket}/runs").put("a", b"x")
        assert caught.value.errno == errno.EACCES
        assert SECRET not in str(caught.value)
    finally:
        server.ask("POST", "moto-api/reset-auth", b"inf")


def test_missing_credentials_are_said(server, monkeypatch):
    bucket = server.make_bucket()
    with socket.socket() as nobody:  # bound and not listening: where a machine's role would be asked for
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert "no credentials" in problem_of(f"s3://{bucket}/runs")


@pytest.mark.parametrize("content", ["{", '{"type": "service_account", "private_key": "hunter2"}'])
def test_a_damaged_service_account_is_said(monkeypatch, tmp_path, content):
    monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT_KEY", raising=False)
    Path(tmp_path / "key.json").write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    assert "service account" in problem_of("gs://bucket/runs")


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("http://127.0.0.1:9", "is plain http; allowed: https, or http with AWS_ALLOW_HTTP=true"),
        ("127.0.0.1:9", "is not the URL of a server; allowed: https://host[:port]"),
        ("https://", "is not the URL of a server"),
        ("https://host:port", "is not the URL of a server"),
        ("not a url", "is not the URL of a server"),
        ("https://user:hunter2@host", "carries a user or password"),
    ],
)
def test_an_endpoint_that_cannot_be_is_said(monkeypatch, endpoint, problem):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    assert problem in problem_of("s3://bucket/runs")


def test_a_server_out_of_reach_is_said_in_bounded_time(server):
    bucket = server.make_bucket()
    server.stop()
    assert problem_of(f"s3://{bucket}/runs") == f"s3://{bucket}: cannot be reached"


def test_a_server_that_never_answers_is_said_in_bounded_time(monkeypatch):
    monkeypatch.setattr(object_blobs, "TIMEOUTS", {**object_blobs.TIMEOUTS, "read_timeout": "200ms"})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for name, value in (("ALLOW_HTTP", "true"), ("ACCESS_KEY_ID", "AKIATEST"), ("SECRET_ACCESS_KEY", SECRET)):
            monkeypatch.setenv(f"AWS_{name}", value)
        assert problem_of("s3://bucket/runs") == "s3://bucket: did not answer in time"


def test_while_the_server_is_away_everything_is_an_os_error_and_works_when_it_is_back(server, store):
    store.put("a", b"one")
    server.stop()
    for act in AWAY:
        with pytest.raises(OSError, match="cannot be reached") as caught:
            act(store)
        assert isinstance(caught.value, StoreAwayError)
        assert isinstance(caught.value, RefitError)
        assert not isinstance(caught.value, FileNotFoundError)
    server.start()
    assert store.get("a") == b"one"
    for act in AWAY:
        store.put("a", b"one")
        act(store)
    assert store.get("b") == b"x"


def test_an_error_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(StoreAwayError(errno.EIO, "cannot be reached", "s3://bucket/runs/a")))
    assert str(error) == "s3://bucket/runs/a: cannot be reached"
    assert error.errno == errno.EIO


def test_a_server_that_fails_once_is_asked_again(server, store):
    failures = []

    def fail_once(environ):
        if not failures:
            failures.append(environ["REQUEST_METHOD"])
            raise RuntimeError("the server answers 500")

    store.put("a", b"one")
    server.before = fail_once
    assert store.get("a") == b"one"
    failures.clear()
    store.put("a", b"two")
    assert failures == ["PUT"]
    assert store.get("a") == b"two"


class Now:
    """A clock that stands still."""

    def now(self):
        return 0.0

    def sleep(self, seconds):
        pass


class AtOnce:
    """A backoff that never gives up and never waits."""

    def delay_s(self, n_failures):
        return 0.0


def test_the_publisher_tries_again_until_the_server_is_back(server, store):
    ledger, rows = ledger_at(store), {f"spec{i}": make_row(i) for i in range(3)}
    publisher = Publisher(ledger.publish, lambda ids: [rows[i] for i in ids], AtOnce(), Now())

    def written():
        publisher.publish(tuple(rows))
        while not (ended := publisher.poll()):
            publisher.wait(60)
        return ended[0]

    server.stop()
    assert isinstance(written(), PublishFailed)
    server.start()
    assert isinstance(written(), Published)
    publisher.close()
    assert set(ledger.read().rows) == {row.spec_id for row in rows.values()}


def test_a_store_that_is_away_is_not_a_damaged_ledger(server, store):
    ledger_at(store).publish([make_row(0)])

    def parts_fail(environ):
        if "part-" in environ["PATH_INFO"]:
            raise RuntimeError("the server answers 500")

    server.before = parts_fail
    for act in ("read", "index", "verify"):
        with pytest.raises(StoreAwayError):
            getattr(ledger_at(store), act)()
    server.before = lambda environ: None
    assert set(ledger_at(store).read().rows) == {make_row(0).spec_id}
