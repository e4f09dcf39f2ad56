"""deploy/spot_watch.py passes the cloud's notice on to Ray: once, in time, whatever the metadata service does."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from metadata_fakes import NONE_YET, PATIENCE_S, metadata_service, notice_in, spot_watch_module, watch

NODE = ("ab" * 28, "10.0.0.1:6379")
FOR_EVER = 10**6


@pytest.fixture
def ray(tmp_path) -> Callable[..., tuple[Path, Path]]:
    """A command `ray` that writes down how it was called: (command, its notes). It fails the first `failures` times."""

    def make(failures: int = 0) -> tuple[Path, Path]:
        command, notes = tmp_path / "ray", tmp_path / "calls"
        command.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"with open({str(notes)!r}, 'a+') as notes:\n"
            f"    notes.write(json.dumps(sys.argv[1:]) + '\\n')\n    notes.seek(0)\n"
            f"    sys.exit(len(notes.readlines()) <= {failures})\n"
        )
        command.chmod(0o755)
        return command, notes

    return make


def calls(notes: Path) -> list[list[str]]:
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def test_a_notice_on_aws_drains_the_node_once_with_the_time_that_is_left(ray):
    command, notes = ray()
    with metadata_service("aws", NONE_YET, NONE_YET, NONE_YET, notice_in(3600)) as service:
        done = watch(service.url, command, *NODE)
    assert done.returncode == 0, done.stderr
    [call] = calls(notes)
    assert call[:5] == ["drain-node", "--address", NODE[1], "--node-id", NODE[0]]
    assert call[5:8] == ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message"]
    assert call[8].startswith("AWS: terminate at 20")
    assert call[9] == "--deadline-remaining-seconds"
    assert 3600 - PATIENCE_S < int(call[10]) <= 3595  # the margin is kept back
    assert service.asked == 4


def test_a_notice_on_gcp_drains_the_node(ray):
    command, notes = ray()
    with metadata_service("gcp", (200, "FALSE"), (200, "FALSE\n"), (200, "TRUE")) as service:
        assert watch(service.url, command, *NODE).returncode == 0
    [call] = calls(notes)
    assert call[8] == "GCP: preempted"
    assert 1 <= int(call[10]) <= 25


def test_a_service_that_fails_or_says_nothing_is_asked_again(ray):
    command, notes = ray()
    replies = [NONE_YET, (500, ""), None, (503, "busy"), NONE_YET, notice_in(3600)]
    with metadata_service("aws", *replies) as service:
        done = watch(service.url, command, *NODE)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("trying again") == 3
    assert len(calls(notes)) == 1


def test_a_notice_in_words_that_nobody_knows_is_a_notice(ray):
    command, notes = ray()
    with metadata_service("aws", (200, "stop soon")) as service:
        assert watch(service.url, command, *NODE).returncode == 0
    [call] = calls(notes)
    assert call[8] == "AWS: stop soon"
    assert 1 <= int(call[10]) <= 115


def test_a_drain_that_fails_is_tried_again(ray):
    command, notes = ray(failures=2)
    with metadata_service("aws", notice_in(3600)) as service:
        done = watch(service.url, command, *NODE)
    assert done.returncode == 0, done.stderr
    assert len(calls(notes)) == 3
    assert done.stderr.count("exit 1") == 2


def test_a_drain_that_never_works_ends_at_the_deadline(ray):
    command, notes = ray(failures=FOR_EVER)
    with metadata_service("aws", notice_in(0)) as service:
        assert watch(service.url, command, *NODE).returncode == 1
    assert calls(notes)[0][10] == "1"


def test_a_command_that_is_missing_is_named(tmp_path):
    with metadata_service("aws", notice_in(0)) as service:
        done = watch(service.url, tmp_path / "no-ray", *NODE)
    assert done.returncode == 1
    assert "no-ray" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_metadata_service_it_ends_quietly(ray):
    command, notes = ray()
    done = watch("http://127.0.0.1:9", command, *NODE)
    assert done.returncode == 0
    assert "nothing to watch" in done.stderr
    assert not calls(notes)


def test_a_proxy_is_not_asked(ray, monkeypatch):
    command, notes = ray()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with metadata_service("aws", notice_in(3600)) as service:
        assert watch(service.url, command, *NODE).returncode == 0
    assert len(calls(notes)) == 1


def test_a_service_that_hangs_is_given_up_on(monkeypatch):
    held = threading.Event()
    with spot_watch_module() as spot_watch, metadata_service("aws", NONE_YET) as service:
        monkeypatch.setattr(spot_watch, "ANSWER_TIMEOUT_S", 0.05)
        monkeypatch.setattr(service, "reply_of", lambda *_: held.wait(PATIENCE_S) and NONE_YET)
        try:
            with pytest.raises(OSError, match="timed out"):
                spot_watch.ask_aws(service.url)
        finally:
            held.set()


def test_raylets_are_found_by_their_command_lines(tmp_path):
    raylet = ["/x/core/src/ray/raylet/raylet", f"--node_id={NODE[0]}", f"--gcs-address={NODE[1]}", "--labels={}"]
    agent = ["python", "-u", "raylet/agent.py", f"--node-id={NODE[0]}", f"--gcs-address={NODE[1]}"]
    for pid, words in {"7": raylet, "8": agent, "9": [], "self": raylet}.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes("\0".join(words).encode())
    (tmp_path / "10").mkdir()  # it has ended
    with spot_watch_module() as spot_watch:
        assert spot_watch.find_raylets(tmp_path) == [spot_watch.Raylet(*NODE)]


def test_a_node_without_its_address_is_refused():
    with spot_watch_module() as spot_watch, pytest.raises(SystemExit, match="2"):
        spot_watch.main(["--node-id", NODE[0]])
