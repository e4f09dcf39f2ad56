"""Polls the cloud for a notice that it will preempt this machine, and passes the notice to Ray by draining the node.

Ray then schedules no new work on the node, and running retrains can be stored. `cluster.yaml` starts this program on every worker. It uses
only the standard library, so that it does not depend on Ray. It exits with code 0 if no instance metadata service answers, and after it
has passed on a notice.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

METADATA = "http://169.254.169.254"  # AWS and GCP
ANSWER_TIMEOUT_S = 2.0
FIRST_TRIES = 3  # to reach a metadata service, which may not exist
AWS_NOTICE_S, GCP_NOTICE_S = 120.0, 30.0
DRAIN_TIMEOUT_S = 20.0  # for one call of `ray drain-node`
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Notice:
    """The cloud will preempt the machine in `seconds_left`."""

    text: str
    seconds_left: float


@dataclass(frozen=True)
class Raylet:
    """Ray's daemon on this machine: the id of its node and the address of its cluster."""

    node_id: str
    address: str


Ask = Callable[[str], Notice | None]


def ask_aws(url: str) -> Notice | None:
    """The interruption notice of an EC2 spot instance (IMDSv2), None while there is none. Raises OSError."""
    token = _fetch(f"{url}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "300"}, method="PUT")
    try:
        text = _fetch(f"{url}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:  # the answer until two minutes before a preemption
            return None
        raise
    try:
        notice = json.loads(text)
        until = datetime.fromisoformat(notice["time"]).astimezone(UTC) - datetime.now(UTC)
        return Notice(f"AWS: {notice['action']} at {notice['time']}", until.total_seconds())
    except (ValueError, KeyError, TypeError):
        return Notice(f"AWS: {' '.join(text.split())[:200]}", AWS_NOTICE_S)


def ask_gcp(url: str) -> Notice | None:
    """The preemption notice of a Compute Engine instance, None while there is none. Raises OSError."""
    text = _fetch(f"{url}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return Notice("GCP: preempted", GCP_NOTICE_S) if text == "TRUE" else None


def find_service(url: str, pause_s: float) -> Ask | None:
    """The cloud whose metadata service answers at `url`; None if neither does."""
    for attempt in range(FIRST_TRIES):
        time.sleep(pause_s if attempt else 0)
        for ask in (ask_aws, ask_gcp):
            try:
                ask(url)
                return ask
            except OSError:
                continue
    return None


def next_notice(ask: Ask, url: str, poll_s: float) -> Notice:
    """Poll until there is a notice; a request that fails or times out is repeated."""
    while True:
        try:
            if (notice := ask(url)) is not None:
                return notice
        except OSError as error:
            _say(f"{url} does not answer ({error}); trying again")
        time.sleep(poll_s)


def find_raylets(proc: Path) -> list[Raylet]:
    """Ray's daemons among the processes of `proc`, by their command lines."""
    found = []
    for file in proc.glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # the process has ended meanwhile
            continue
        flags = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if Path(words[0]).name == "raylet" and {"node_id", "gcs-address"} <= flags.keys():
            found.append(Raylet(flags["node_id"], flags["gcs-address"]))
    return found


def drain_command(ray: str, raylet: Raylet, notice: Notice, seconds_left: float) -> list[str]:
    """The command that passes the notice to Ray. Ray stops neither the work nor the node at the deadline; Refit reads it."""
    return [
        *(ray, "drain-node", "--address", raylet.address, "--node-id", raylet.node_id),
        *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", notice.text),
        *("--deadline-remaining-seconds", str(max(1, int(seconds_left)))),
    ]


def drain(find: Callable[[], list[Raylet]], ray: str, notice: Notice, margin_s: float, poll_s: float) -> bool:
    """Drain every node found on this machine, and try again until the deadline. Returns whether all were drained."""
    end = time.monotonic() + notice.seconds_left - margin_s
    drained: set[str] = set()
    while True:
        raylets = find()
        for raylet in raylets:
            if raylet.node_id not in drained and _run(drain_command(ray, raylet, notice, end - time.monotonic())):
                drained.add(raylet.node_id)
        if raylets and {raylet.node_id for raylet in raylets} <= drained:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(poll_s)


def main(argv: list[str] | None = None) -> int:
    """Poll until there is a notice, then drain the node. Exit code 1: the notice could not be passed to Ray."""
    options = _options(argv)
    ask = find_service(options.metadata, options.poll_s)
    if ask is None:
        _say(f"no instance metadata service at {options.metadata}: nothing to watch")
        return 0
    notice = next_notice(ask, options.metadata, options.poll_s)
    _say(f"{notice.text}: {notice.seconds_left:.0f} s left")
    given = [Raylet(options.node_id, options.address)] if options.node_id else None
    done = drain(lambda: given or find_raylets(Path("/proc")), options.ray, notice, options.margin_s, options.poll_s)
    _say("drained" if done else "not drained")
    return 0 if done else 1


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Drain this machine's Ray node when the cloud announces a preemption.")
    parser.add_argument("--metadata", default=METADATA, metavar="URL", help="the instance metadata service")
    parser.add_argument("--poll-s", type=float, default=2.0, metavar="S", help="seconds between two requests")
    parser.add_argument("--margin-s", type=float, default=5.0, metavar="S", help="seconds subtracted from the deadline")
    parser.add_argument("--ray", default="ray", metavar="PATH", help="the command `ray`")
    parser.add_argument("--node-id", metavar="HEX", help="the node to drain; default: those found on this machine")
    parser.add_argument("--address", metavar="HOST:PORT", help="the cluster of --node-id")
    options = parser.parse_args(argv)
    if bool(options.node_id) != bool(options.address):
        parser.error("--node-id and --address go together")
    return options


def _fetch(url: str, headers: dict[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with NO_PROXY.open(request, timeout=ANSWER_TIMEOUT_S) as answer:
            return answer.read(10_000).decode(errors="replace").strip()
    except (http.client.HTTPException, ValueError) as error:  # the answer is not HTTP, or the token cannot be a header
        raise OSError(f"the answer cannot be understood: {error}") from error


def _run(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRAIN_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        _say(f"{command[0]} drain-node: {error}")
        return False
    if done.returncode:
        _say(f"{command[0]} drain-node: exit {done.returncode}: {' '.join(done.stderr.split())[-500:]}")
    return done.returncode == 0


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} spot_watch: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
