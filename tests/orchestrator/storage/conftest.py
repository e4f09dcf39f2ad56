"""Stores for the contract suites: the same tests on a local folder and on buckets."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from orchestrator.storage.blobs import BlobStore, LocalBlobs
from orchestrator.storage.object_blobs import ObjectBlobs
from tests.gcs_server import GcsServer
from tests.s3_server import S3Server


@pytest.fixture(scope="session")
def running_s3() -> Iterator[S3Server]:
    server = S3Server().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3(running_s3) -> Iterator[S3Server]:
    """Return the server, which this process's environment names."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running_s3.environment.items():
            patch.setenv(name, value)
        yield running_s3


@pytest.fixture(scope="module")
def gs() -> Iterator[GcsServer]:
    """Yield a fake of Google's server, which this process's environment names."""
    server = GcsServer()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
    server.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a module's tests on the stores that its STORES lists."""
    if "new_blobs" in metafunc.fixturenames:
        stores = getattr(metafunc.module, "STORES", ("local", "s3"))
        metafunc.parametrize("new_blobs", stores, indirect=True, scope="module")


@pytest.fixture(scope="module")
def new_blobs(request, tmp_path_factory) -> Callable[[], BlobStore]:
    """Return a function that makes empty stores."""
    if request.param == "local":
        return lambda: LocalBlobs(tmp_path_factory.mktemp("store"))
    server = request.getfixturevalue(request.param)
    bucket = server.make_bucket() if request.param == "s3" else "bucket"
    return lambda: ObjectBlobs(f"{request.param}://{bucket}/{uuid.uuid4().hex[:12]}/runs")


@pytest.fixture
def blobs(new_blobs) -> BlobStore:
    """Return an empty store."""
    return new_blobs()
