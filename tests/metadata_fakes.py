"""A fake instance metadata service of a cloud on loopback, and functions that run deploy/spot_watch.py against it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

WATCH = Path(__file__).parents[1] / "deploy" / "spot_watch.py"
PATIENCE_S = 60
PATHS = {"aws": "/latest/meta-data/spot/instance-action", "gcp": "/computeMetadata/v1/instance/preempted"}
Reply = tuple[int, str] | None  # status and body; None: no response at all
NONE_YET: Reply = (404, "")  # of AWS


class Metadata(ThreadingHTTPServer):
    """The service of a cloud. `replies` are its responses about a notice, one per request; the last one is repeated."""

    def __init__(self, cloud: str, replies: list[Reply]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cloud, self.replies, self.asked = cloud, replies, 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def reply_of(self, path: str, headers) -> Reply:
        """Return the response, given the headers that the service requires."""
        if self.cloud == "aws" and headers["X-aws-ec2-metadata-token"] != "session":
            return 401, ""
        if self.cloud == "gcp" and headers["Metadata-Flavor"] != "Google":
            return 403, ""
        if path != PATHS[self.cloud]:
            return 404, ""
        self.asked += 1
        return self.replies[min(self.asked, len(self.replies)) - 1]


class Handler(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        is_login = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self.reply((200, "session") if self.server.cloud == "aws" and is_login else (404, ""))

    def do_GET(self) -> None:
        self.reply(self.server.reply_of(self.path, self.headers))

    def reply(self, reply: Reply) -> None:
        if reply is None:
            self.close_connection = True
            return
        self.send_response(reply[0])
        self.send_header("Content-Length", str(len(reply[1])))
        self.end_headers()
        self.wfile.write(reply[1].encode())

    def log_message(self, *_) -> None:
        pass


@contextmanager
def metadata_service(cloud: str, *replies: Reply) -> Iterator[Metadata]:
    """Run the service of `aws` or `gcp`."""
    with Metadata(cloud, list(replies)) as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join()


def notice_in(seconds: float) -> Reply:
    """Return a notice as AWS words it."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return 200, json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})


def watch(url: str, ray: Path, node_id: str, address: str) -> subprocess.CompletedProcess[str]:
    """Run the script until it ends. With -I it can import nothing but the standard library."""
    flags = ["--metadata", url, "--ray", str(ray), "--poll-s", "0.02", "--node-id", node_id, "--address", address]
    command = [sys.executable, "-I", "-S", str(WATCH), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


@contextmanager
def spot_watch_module() -> Iterator[ModuleType]:
    """Import the script as a module, although it is not part of the package."""
    spec = importlib.util.spec_from_file_location("spot_watch", WATCH)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]
