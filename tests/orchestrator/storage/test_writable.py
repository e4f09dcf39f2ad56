"""Output that cannot be made is refused by plan and by run, and looking leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.storage.writable import check_writable
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import write_config


def tree(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.mark.parametrize("output", ["runs", "a/b/c/runs", "."])
def test_a_folder_that_can_be_made_is_not_left_behind(output, tmp_path):
    (tmp_path / "other").mkdir()
    before = tree(tmp_path)
    check_writable(tmp_path / output, "output")
    assert tree(tmp_path) == before


PLACES = {
    "a file system that is not for files": "/proc/refit-out",
    "below it": "/proc/refit/out/runs",
    "a name that is too long": "{folder}/" + "x" * 300,
    "a name that is too long below folders that are not there": "{folder}/a/b/" + "x" * 300 + "/c",
    "a path that is too long": "{folder}/" + "x/" * 3000,
    "a file in the way": "{folder}/file",
    "a file above": "{folder}/file/runs",
    "a link to itself": "{folder}/loop",
    "a link to nothing that can be made": "{folder}/nowhere",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "file").write_text("not a folder")
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    os.symlink("/proc/refit-out", tmp_path / "nowhere")
    return tmp_path


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_output_that_cannot_be_made_is_refused(place, command, folder, capsys):
    output = PLACES[place].format(folder=folder)
    path = write_config(folder, {"output": output})
    before = tree(folder)
    code = main([command, str(path), *(["--yes", "--address", "local"] if command == "run" else [])])
    err = capsys.readouterr().err
    assert code == 2, err
    assert len(err.splitlines()) == 1
    assert err.startswith(f"refit: {path}: output: ")
    assert tree(folder) == before


def test_a_run_directory_that_cannot_be_made_is_refused(tmp_path, capsys):
    path = write_config(tmp_path)
    for run_dir in ("/proc/refit-run", str(tmp_path / ("x" * 300))):
        assert main(["plan", str(path), "--run-dir", run_dir]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        check_writable(tmp_path / "runs", "output")
    tmp_path.chmod(0o700)


def test_plan_leaves_nothing_behind(tmp_path):
    path = write_config(tmp_path)
    before = tree(tmp_path)
    assert main(["plan", str(path)]) == 0
    assert tree(tmp_path) == before
