"""A bucket as a BlobStore; no other module imports obstore. Credentials come from the environment or the machine's role."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from orchestrator.storage.blobs import Keys, StoreAwayError, check_key
from orchestrator.storage.uris import split_object_uri
from tasks.errors import InputError

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ClientConfig, GCSStore, RetryConfig, S3Store

# A request ends with an answer or an error within about half a minute, apart from the transfer of its content. The
# caller's backoff covers longer outages.
RETRIES: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}
TIMEOUTS: ClientConfig = {"connect_timeout": "5s", "read_timeout": "10s", "timeout": "10m"}
_ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "gs": ("GOOGLE_BASE_URL",)}
_ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP"}
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)")
_UNAVAILABLE = {"Connect": "cannot be reached", "Timeout": "did not answer in time"}
_METADATA_REQUEST = re.compile(r"/latest/(api/token|meta-data)|/computeMetadata/")  # the machine's own metadata server
_REFUSED = {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}


@dataclass(frozen=True)
class ObjectBlobs:
    """The bucket or prefix at `uri`, scheme://bucket[/prefix].

    It is pickled as its URI, so that each worker finds its own credentials. Every error except "no such key" is raised
    as StoreAwayError, an OSError whose text contains no secret.
    """

    uri: str
    # A request takes tens of milliseconds, most of them spent waiting; each may hold a part of 64 MB in memory.
    at_once: ClassVar[int] = 16

    def get(self, key: str) -> bytes:
        return self._read(key)[0]

    def put(self, key: str, data: bytes) -> None:
        with self._errors(key):
            self._client.put(check_key(key), data)

    def create(self, key: str, data: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._errors(key):
            try:
                self._client.put(check_key(key), data, mode="create")
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def swap(self, key: str, data: bytes, expected: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            found, version = self._read(key)
            if found != expected:
                return False
            with self._errors(key):
                self._client.put(key, data, mode=version)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            return False
        return True

    def delete(self, key: str) -> None:
        try:
            with self._errors(key):
                self._client.delete(check_key(key))
        except FileNotFoundError:  # Google Cloud Storage reports an absent key
            pass

    def list(self, prefix: str) -> Keys:
        return sorted(self.versions(prefix))

    def versions(self, prefix: str) -> dict[str, str]:
        folder = prefix.rpartition("/")[0]
        with self._errors(folder):
            pages = self._client.list(folder or None, chunk_size=1000)
            found = [entry for page in pages for entry in page]
        return {
            entry["path"]: f"{entry['e_tag']} {entry['size']} {entry['last_modified'].isoformat()}"
            for entry in found
            if entry["path"].startswith(prefix)
        }

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        with self._errors(key):
            return self._client.head(check_key(key))["size"]

    def url(self, key: str) -> str:
        return f"{self.uri}/{check_key(key)}"

    def check(self, where: object) -> None:
        """Check that the bucket exists, can be reached and can be listed. Raises InputError that names `where`."""
        scheme, bucket, _ = split_object_uri(self.uri)
        if problem := _endpoint_problem(scheme):
            raise InputError(where, problem)
        try:
            with self._errors(""):
                next(iter(self._client.list()), None)
        except OSError as error:
            raise InputError(where, f"{scheme}://{bucket}: {error.strerror}") from None

    def __reduce__(self) -> tuple[type[ObjectBlobs], tuple[str]]:
        return ObjectBlobs, (self.uri,)

    @cached_property
    def _client(self) -> S3Store | GCSStore:
        from obstore.store import GCSStore, S3Store

        scheme, bucket, prefix = split_object_uri(self.uri)
        options: dict[str, Any] = {
            "prefix": prefix or None,
            "retry_config": RETRIES,
            # options given here replace those of the environment, so allow_http is read from it explicitly
            "client_options": {**TIMEOUTS, "allow_http": _allows_http(scheme)},
        }
        return S3Store(bucket, **options) if scheme == "s3" else GCSStore(bucket, **options)

    def _read(self, key: str) -> tuple[bytes, UpdateVersion]:
        with self._errors(key):
            found = self._client.get(check_key(key))
            data = bytes(found.bytes())
        meta = found.meta
        version: UpdateVersion = {}
        if meta["e_tag"] is not None:
            version["e_tag"] = meta["e_tag"]
        if meta["version"] is not None:
            version["version"] = meta["version"]
        return data, version

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Convert the exceptions of obstore to those of BlobStore; a failed condition of a write passes unchanged."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        url = f"{self.uri}/{key}" if key else self.uri
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise StoreAwayError(errno.EIO, _reason(error), url) from None
            raise FileNotFoundError(errno.ENOENT, "no such object", url) from None
        except BaseError as error:
            raise StoreAwayError(errno.EACCES if _is_refused(error) else errno.EIO, _reason(error), url) from None


def _allows_http(scheme: str) -> bool:
    return os.environ.get(_ALLOW_HTTP[scheme], "").strip().lower() in ("1", "true", "yes", "on")


def _endpoint_problem(scheme: str) -> str | None:
    """Return what is wrong with the server URL in the environment, without repeating the URL: it may hold a password."""
    for name in _ENDPOINTS[scheme]:
        if not (endpoint := os.environ.get(name)):
            continue
        try:
            parts = urlsplit(endpoint)
            is_server = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            is_server = False
        if not is_server or re.search(r"\s", endpoint):
            return f"{name} in the environment is not the URL of a server; allowed: https://host[:port]"
        if "@" in endpoint:
            return f"{name} in the environment carries a user or password; allowed: https://host[:port]"
        if parts.scheme == "http" and not _allows_http(scheme):
            return f"{name} in the environment is plain http; allowed: https, or http with {_ALLOW_HTTP[scheme]}=true"
        return None
    return None


def _is_refused(error: Exception) -> bool:
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    code = _CODE.search(str(error))
    return isinstance(error, PermissionDeniedError | UnauthenticatedError) or (code is not None and code[1] in _REFUSED)


def _reason(error: Exception) -> str:
    """Return a one-line reason. The server's answer is not repeated, because it may hold key ids and tokens."""
    text = str(error)
    code, status = _CODE.search(text), _STATUS.search(text)
    stated = code[1] if code else status[1].strip() if status else ""
    if "NoSuchBucket" in text:
        return "no such bucket"
    if _is_refused(error):
        return f"access is refused ({stated or 'no reason given'})"
    if _METADATA_REQUEST.search(text):
        return "no credentials; set them in the environment, or run on a machine that has a role"
    kind = next((words for name, words in _UNAVAILABLE.items() if f"kind: {name}" in text), "")
    return kind or stated or "cannot be used: " + re.sub(r"\?\S*", "", text.splitlines()[0])[:200]
