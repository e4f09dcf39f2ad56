from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.runtime import ray_environment as environment
from tasks.errors import InputError


def test_token_authentication_is_on_and_a_ray_of_our_own_gets_a_token(tmp_path):
    found = {}
    environment.secure(found, make_token=True, home=tmp_path)
    assert found["RAY_AUTH_MODE"] == "token"
    assert len(found["RAY_AUTH_TOKEN"]) == 64
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [{"RAY_AUTH_TOKEN": "mine"}, {"RAY_AUTH_TOKEN_PATH": "file"}])
def test_a_token_of_the_user_is_kept(given, tmp_path):
    found = dict(given)
    environment.secure(found, make_token=True, home=tmp_path)
    assert {name: value for name, value in found.items() if "TOKEN" in name} == given


def test_the_token_file_of_the_user_is_kept(tmp_path):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("mine")
    found = {}
    environment.secure(found, make_token=True, home=tmp_path)
    assert "RAY_AUTH_TOKEN" not in found


def test_no_token_is_made_up_for_a_cluster_and_a_chosen_mode_stays(tmp_path):
    found = {"RAY_AUTH_MODE": "disabled"}
    environment.secure(found, make_token=False, home=tmp_path)
    assert found["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in found


def test_child_processes_import_what_this_one_can_while_it_lasts(tmp_path, monkeypatch):
    (tmp_path / "refit_plugin_of_a_user.py").write_text("print('found')")
    monkeypatch.syspath_prepend(tmp_path)
    before = os.environ.get("PYTHONPATH")
    with environment.driver_import_path():
        shown = subprocess.run([sys.executable, "-c", "import refit_plugin_of_a_user"], capture_output=True, text=True)
    assert (shown.stdout, shown.stderr) == ("found\n", "")
    assert os.environ.get("PYTHONPATH") == before


def test_the_sigterm_handler_of_before_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with environment.keeping_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is before


def test_temp_dir_is_short_enough_for_the_sockets_in_it_and_goes_away(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    folder = environment.TempDir()
    socket = Path(folder.path) / "session_2000-01-01_00-00-00_000000_4194304" / "sockets" / "plasma_store.1"
    assert len(str(socket)) < 107
    (Path(folder.path) / "log").write_text("x")
    folder.remove()
    folder.remove()
    assert not Path(folder.path).exists()


def test_auto_without_a_cluster_says_that_there_is_none_and_nothing_of_tokens():
    def find() -> str:
        raise ConnectionError("Could not find any running Ray instance. Please specify the one to connect to")

    for nothing in (find, lambda: None, lambda: ""):
        with pytest.raises(InputError, match="'auto' finds no Ray cluster: none runs on this machine") as refused:
            environment.found_address(nothing)
        assert "token" not in str(refused.value)
    assert environment.found_address(lambda: "10.0.0.1:6379") == "10.0.0.1:6379"


@pytest.mark.parametrize(
    ("address", "ray_address", "problem"),
    [
        ("auto", "127.0.0.1:1", "nothing answers at '127.0.0.1:1'"),
        ("127.0.0.1:1", None, "nothing answers at '127.0.0.1:1'"),
        ("nonsense", None, "'nonsense' is not an address of a Ray cluster"),
    ],
)
def test_a_cluster_that_is_not_there_is_refused_before_torch_is_imported(tmp_path, address, ray_address, problem):
    from tests.orchestrator.tiny_campaign import write_config

    code = (
        "import sys\nfrom orchestrator.cli import main\ncode = main(sys.argv[1:])\nprint(code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(write_config(tmp_path)), "--yes", "--address", address],
        env={**os.environ, **({"RAY_ADDRESS": ray_address} if ray_address else {})},
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "2 False", done.stderr
    assert done.stderr.splitlines()[-1].startswith("refit: --address: ")
    assert problem in done.stderr
    assert "token" not in done.stderr
    assert not list(tmp_path.glob("runs/*"))
