"""The part of Google Cloud Storage's XML API that Refit uses, on loopback: objects with generations, conditional writes.

It is written from Google's documentation, since no installed package serves this API. x-goog-if-generation-match gives
the precondition of a write, where 0 means that the object does not exist; deleting a missing object gives 404.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, quote
from xml.sax.saxutils import escape

from werkzeug.serving import make_server

from tests.s3_server import Quiet

_WHEN = "2024-05-06T07:08:09.000Z"


class GcsServer:
    """A server that accepts every bucket name and serves one request at a time."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}  # /bucket/key -> content, generation
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._generation = 1_700_000_000_000_000
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._handle, threaded=True, request_handler=Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment that a process needs to use it."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        account = {"disable_oauth": True, "client_email": "", "private_key": "hunter2", "private_key_id": ""}
        return {
            "GOOGLE_BASE_URL": url,
            "GOOGLE_ALLOW_HTTP": "true",
            "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps({"gcs_base_url": url, **account}),
        }

    def _handle(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode()
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        data = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self._lock:
            status, headers, body = self._answer(environ, path, query, data)
        start_response(status, [("Content-Length", str(len(body))), *headers])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    def _answer(
        self, environ: dict[str, Any], path: str, query: dict[str, list[str]], data: bytes
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        method = environ["REQUEST_METHOD"]
        if "list-type" in query:
            return "200 OK", [], self._listing(path, query.get("prefix", [""])[0])
        if "uploads" in query or "uploadId" in query:
            return self._upload(method, path, query, data)
        if method == "PUT":
            return self._write(path, data, environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH"))
        if path not in self.objects:
            return "404 Not Found", [], b"<Error><Code>NoSuchKey</Code></Error>"
        if method == "DELETE":
            del self.objects[path]
            return "204 No Content", [], b""
        content, generation = self.objects[path]
        return "200 OK", [*_version(content, generation), ("Last-Modified", "Mon, 06 May 2024 07:08:09 GMT")], content

    def _write(self, path: str, data: bytes, condition: str | None) -> tuple[str, list[tuple[str, str]], bytes]:
        if condition is not None and int(condition) != self.objects.get(path, (b"", 0))[1]:
            return "412 Precondition Failed", [], b"<Error><Code>PreconditionFailed</Code></Error>"
        self._generation += 1
        self.objects[path] = data, self._generation
        return "200 OK", _version(data, self._generation), b""

    def _upload(
        self, method: str, path: str, query: dict[str, list[str]], data: bytes
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        """Serve an upload in parts: start it, store a part, or join the parts."""
        if "uploads" in query:
            upload = f"upload-{len(self._uploads)}"
            self._uploads[upload] = {}
            return "200 OK", [], _xml("InitiateMultipartUploadResult", UploadId=upload)
        parts = self._uploads[query["uploadId"][0]]
        if method == "PUT":
            parts[int(query["partNumber"][0])] = data
            return "200 OK", [("ETag", _etag(data))], b""
        _, headers, _ = self._write(path, b"".join(parts[number] for number in sorted(parts)), None)
        return "200 OK", headers, _xml("CompleteMultipartUploadResult", ETag=_etag(self.objects[path][0]))

    def _listing(self, bucket: str, prefix: str) -> bytes:
        start = bucket.rstrip("/") + "/"
        found = {key.removeprefix(start): self.objects[key] for key in sorted(self.objects) if key.startswith(start)}
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size><LastModified>{_WHEN}</LastModified>"
            f"<ETag>{escape(_etag(content))}</ETag></Contents>"
            for key, (content, _) in found.items()
            if key.startswith(prefix)
        )
        return f"<ListBucketResult>{entries}</ListBucketResult>".encode()


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _version(content: bytes, generation: int) -> list[tuple[str, str]]:
    return [("ETag", _etag(content)), ("x-goog-generation", str(generation))]


def _xml(name: str, **fields: str) -> bytes:
    inner = "".join(f"<{key}>{escape(quote(value, safe=''))}</{key}>" for key, value in fields.items())
    return f"<{name}>{inner}</{name}>".encode()
