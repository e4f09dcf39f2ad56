"""A real S3 API server (moto) on loopback for all tests that need a bucket: in this process, on a free port."""

from __future__ import annotations

import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log(self, *_: Any) -> None:
        pass


@dataclass
class S3Server:
    """A server that can be stopped and started again on the same port without losing its content.

    It serves one request at a time: moto checks and then writes where S3 does both in one step, so conditional writes
    would race.
    """

    n_requests: int = 0
    before: Callable[[dict[str, Any]], None] = lambda environ: None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _app: Any = field(default_factory=lambda: DomainDispatcherApplication(create_backend_app))
    _server: BaseWSGIServer | None = None
    _thread: threading.Thread | None = None
    _port: int = 0

    def start(self) -> S3Server:
        self._server = make_server("127.0.0.1", self._port, self._handle, threaded=True, request_handler=Quiet)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment that a process needs to use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
        }

    def make_bucket(self) -> str:
        """Return the name of a new, empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.ask("PUT", name)
        return name

    def ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        """Make one plain request, as another client would."""
        plain = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.url}/{path}", data=data, headers=plain, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def _handle(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._lock:
            self.n_requests += 1
            self.before(environ)
            return self._app(environ, start_response)
