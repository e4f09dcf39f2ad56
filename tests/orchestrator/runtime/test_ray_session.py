from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ray_fixtures import MARK, marked, processes, refused, wait_until, wait_until_gone
from ray_tiny_task import HANGS, tiny_context

from orchestrator.runtime.ray_backend import RayBackend
from tasks.errors import InputError

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture
def driver(tmp_path):
    """Starts `ray_driver.py` with a home and a Ray temp dir of its own: process, mark, temp dir, home."""
    short = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"rt-{os.getpid()}"
    short.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    started = []

    def start(mark: str, *arguments: str):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"HOME": str(home), "RAY_TMPDIR": str(short), MARK: mark}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, HERE / "ray_driver.py", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, start_new_session=True, **pipes))
        return started[-1], short, home

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for file in sorted(short.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
    short.rmdir()


def test_a_ray_of_our_own_leaves_no_process_no_file_and_no_warning(driver):
    with marked() as mark:
        process, temp_dir, home = driver(mark)
        output, errors = process.communicate(timeout=120)
        assert (output, errors, process.returncode) == ("3 token\n", "", 0)
        wait_until_gone(mark)
    assert list(temp_dir.iterdir()) == []
    assert list(home.iterdir()) == []


def test_ray_dies_with_a_driver_that_is_killed(driver, tmp_path):
    with marked() as mark:
        process, _, _ = driver(mark, str(tmp_path))
        wait_until((tmp_path / str(HANGS)).exists)
        assert any("raylet" in command for command in processes(mark).values())
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: all("Agent" in command for command in processes(mark).values()), patience_s=30)
        for pid in processes(
            mark
        ):  # Ray's two idle agents try to report to the dead GCS for 60 s, then end by themselves
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until_gone(mark)


def test_ctrl_c_reaches_the_driver_only_so_that_it_can_close(driver, tmp_path):
    with marked() as mark:
        process, temp_dir, _ = driver(mark, str(tmp_path))
        wait_until((tmp_path / str(HANGS)).exists)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert (output, errors) == ("interrupted with 2 workers\n", "")
        wait_until_gone(mark)
    assert list(temp_dir.iterdir()) == []


def listening(pid: int) -> list:
    """Where a process listens, loopback left out."""
    found = [c.laddr for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return [address for address in found if not address.ip.startswith("127.") and address.ip != "::1"]


def test_beyond_loopback_only_ray_listens_and_it_refuses_who_has_no_token(driver, tmp_path):
    """Each process with Ray's core in it (the driver, a worker) answers Ray's calls at one port; everything else is Ray's own."""
    with marked() as mark:
        process, _, home = driver(mark, str(tmp_path))
        wait_until((tmp_path / str(HANGS)).exists)
        commands = processes(mark)
        for pid, command in commands.items():
            if pid == process.pid or command.startswith("ray::RayWorker"):
                assert len(listening(pid)) == 1, command
            elif listening(pid):
                assert command.startswith("ray::") or "/site-packages/ray/" in command, command
        [gcs] = [pid for pid, command in commands.items() if "/gcs_server " in command]
        stranger = refused(f"127.0.0.1:{listening(gcs)[0].port}", HOME=str(home))
        assert stranger.startswith("--address: no Ray cluster at '127.0.0.1:"), stranger
        assert "accepts this machine's token" in stranger, stranger
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        wait_until_gone(mark)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("ray://127.0.0.1:10001", "is not an address of a Ray cluster; allowed: auto, host:port, local"),
        ("nonsense", "is not an address of a Ray cluster; allowed: auto, host:port, local"),
        ("127.0.0.1:1", "nothing answers at '127.0.0.1:1'"),
        ("127.0.0.1:99999", "nothing answers at '127.0.0.1:99999'"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(address, problem):
    backend = RayBackend(tiny_context(), address=address)
    with pytest.raises(InputError, match=problem):
        backend.start()
    backend.close()
