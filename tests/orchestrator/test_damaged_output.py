"""Whatever is damaged in an output, every command ends in one clear line: no traceback, no internal error."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_campaign import run_here, small_config

from orchestrator import cli


def absent(path: Path) -> None:
    _removed(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 3)


def a_list(path: Path) -> None:
    path.write_text("[1, 2]\n")


def of_wrong_types(path: Path) -> None:
    """JSON and YAML whose every value is something else."""
    path.write_text(
        '{"numerics": [3], "store": 7, "run": null, "task_ids": {"a": 1}, "config_dir": 4, "overrides": 5}\n'
    )


def a_folder(path: Path) -> None:
    _removed(path)
    path.mkdir()


def a_file(path: Path) -> None:
    _removed(path)
    path.write_text("no folder\n")


def a_link_to_itself(path: Path) -> None:
    _removed(path)
    path.symlink_to(path)


def _removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


OF_FILES = (absent, empty, truncated, binary, a_list, of_wrong_types, a_folder, a_link_to_itself)
OF_FOLDERS = (absent, a_file, a_link_to_itself)
FILES = (
    *("{run}/config.yaml", "{run}/provenance.json", "{run}/plan.parquet", "{run}/report.html", "{run}/refit.log"),
    *("{run}/results/curves.csv", "{run}/scores/tracin_last.parquet", "{run}/figures/*.svg"),
    *("ledger/*/part-*", "ledger/*/task.json", "ledger/*/lease.json"),
    *("scores/*/*.parquet", "checkpoints/*/*.safetensors"),
)
FOLDERS = (
    *("{run}/results", "{run}/scores", "{run}/figures", "ledger", "ledger/*", "scores", "scores/*"),
    *("checkpoints", "checkpoints/*", "spend", "{run}"),
)
COMMANDS = ("status", "report", "verify", "run")
CASES = [*itertools.product(FILES, OF_FILES), *itertools.product(FOLDERS, OF_FOLDERS)]


class Output:
    """A finished run, and the same again after each damage."""

    def __init__(self, folder: Path):
        self.config = small_config(
            folder, queries__count=1, deletion__k=[2], deletion__groups=["proponents"], repeats__count=1
        )
        self.run_dir = run_here(self.config).run_dir
        self.store, self.whole = folder / "runs", folder / "whole"
        shutil.copytree(self.store, self.whole)

    def mend(self) -> None:
        _removed(self.store)
        shutil.copytree(self.whole, self.store)

    def find(self, pattern: str) -> Path:
        """The first path of this kind."""
        return min(self.store.glob(pattern.format(run=self.run_dir.name)))

    def told_by(self, command: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of one command on the run."""
        run = ["run", str(self.config.path), "--address", "local", "--yes"]
        arguments = run if command == "run" else [command, str(self.run_dir)]
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = cli.main(arguments)
        return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Output:
    return Output(tmp_path_factory.mktemp("damaged"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "damage"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_every_command_ends_in_one_line(output: Output, kind: str, damage: Callable[[Path], None]):
    place = output.find(kind)
    opens = kind in ("{run}/config.yaml", "{run}/provenance.json", "{run}")
    for command in (*COMMANDS, "sync") if opens else COMMANDS:  # sync reads a run as report does
        damage(place)
        code, out, err = output.told_by(command)
        output.mend()
        told = f"{command} after {damage.__name__} {kind}: exit {code}\n{out}\n{err}"
        assert "internal error" not in err, told
        assert "Traceback" not in err + out, told
        if code == 1:
            assert command == "verify", told
            assert "MISMATCH" in out, told
        if code in (2, 3):
            assert err.strip().splitlines()[-1].startswith("refit: "), told


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def on_read_only(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command that sees `folder` as a read-only file system, in a mount namespace of its own."""
    as_user = ["--user", "--map-root-user"] if os.geteuid() else []
    shell = ["unshare", *as_user, "--mount", "sh", "-c", READ_ONLY, str(folder), *command]
    return subprocess.run(shell, capture_output=True, text=True, timeout=300, check=False)


def test_a_run_on_a_read_only_file_system_is_read_and_what_must_write_says_so(output: Output):
    if shutil.which("unshare") is None or on_read_only(output.store, "true").returncode:
        pytest.skip("mount namespaces are not permitted here")
    told = {
        command: on_read_only(output.store, sys.executable, "-m", "orchestrator.cli", command, str(output.run_dir))
        for command in ("status", "verify", "report")
    }
    assert {command: found.returncode for command, found in told.items()} == {"status": 0, "verify": 0, "report": 2}, (
        told
    )
    assert told["report"].stderr.count("\n") == 1
    assert told["report"].stderr.startswith(f"refit: {output.run_dir}")
    assert "Read-only file system" in told["report"].stderr


@pytest.mark.parametrize("folder", ["ledger", "scores", "checkpoints", "spend"])
@pytest.mark.parametrize("damage", [a_file, a_link_to_itself])
def test_a_store_whose_folder_is_no_folder_is_not_taken_for_an_empty_one(output: Output, folder: str, damage):
    (output.store / folder).mkdir(exist_ok=True)
    damage(output.store / folder)
    told = [output.told_by(command) for command in ("status", "report", "verify", "run")]
    output.mend()
    assert [(code, out) for code, out, _ in told] == [(2, "")] * 4
    for _, _, err in told:
        assert f"{output.store / folder} is not a folder; a store keeps its {folder} there" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("numerics", [3], "numerics: '[3]' is not a mapping"),
        ("numerics", {"cores": 2}, "numerics: "),
        ("numerics", {"environment": 4}, "numerics: "),
        ("store", 7, "store: '7' is not a path or URI"),
        ("task_ids", {"a": 1}, "task_ids: \"{'a': 1}\" is not a list of ids"),
        ("references", [["a"]], "references: \"[['a']]\" is not a list of ids"),
        ("overrides", 5, "overrides: '5' is not a list of dotted.key=value"),
        ("plugins", None, "plugins: 'None' is not a mapping of modules to digests"),
        ("plugins", ["foo"], "plugins: \"['foo']\" is not a mapping of modules to digests"),
        ("plugins", {"foo": 3}, "plugins.foo: '3' is not a digest"),
        ("plugins", {"foo": None}, "plugins.foo: 'None' is not a digest"),
        ("config_dir", None, "config_dir: 'None' is not a path"),
    ],
)
def test_a_value_of_another_kind_in_provenance_is_named(output: Output, key: str, value, told: str):
    path = output.run_dir / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    code, out, err = output.told_by("report")
    output.mend()
    assert (code, out) == (2, "")
    assert err.startswith(f"refit: {path}: {told}")
    assert err.endswith("move the run directory away to start again\n")
