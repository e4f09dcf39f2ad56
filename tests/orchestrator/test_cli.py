"""The command line: what is printed where, and with which exit code it ends."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from influence.registry import METHODS, OBSERVERS
from orchestrator import api
from orchestrator.cli import main
from orchestrator.registry import CAMPAIGNS
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.lease import Lease
from tasks.registry import RECIPES, TASKS
from tests.orchestrator.tiny_campaign import CONFIG, pipeline_of, run_here, small_config, write_config

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("run", "plan", "status", "report", "verify", "sync", "list")


def help_of(capsys, *command):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_command_and_every_exit_code(capsys):
    text = help_of(capsys)
    assert all(command in text for command in COMMANDS)
    for code in ("0 complete", "1 error", "2 invalid", "3 stopped", "4 complete with"):
        assert code in " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys, command):
    assert f"refit {command}" in help_of(capsys, command)


def test_run_offers_what_the_public_interface_promises(capsys):
    text = help_of(capsys, "run")
    for option in ("--set", "--until", "--run-dir", "--address", "--yes"):
        assert option in text


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["run"], ["list"], ["list", "nonsense"], ["run", "c.yaml", "--until", "nonsense"]]
)
def test_a_command_that_is_none_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("kind", "registry"),
    [
        ("methods", METHODS),
        ("tasks", TASKS),
        ("recipes", RECIPES),
        ("campaigns", CAMPAIGNS),
        ("observers", OBSERVERS),
    ],
)
def test_list_shows_every_part_with_a_line_and_its_paper(capsys, kind, registry):
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(registry.entries())
    for line, entry in zip(lines, registry.entries().values(), strict=True):
        assert entry.summary in line
        assert entry.paper == "-" or f"[{entry.paper}]" in line


def test_plan_as_json_has_the_promised_keys(tmp_path, capsys):
    assert main(["plan", str(write_config(tmp_path)), "--json", "--set", "repeats.count=1"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert {"run", "run_dir", "cells", "scores", "distinct", "distinct_max", "in_ledger", "to_do", "time_s"} <= set(
        value
    )
    assert (value["scores"], value["distinct"], value["time_s"], value["cost"]) == (
        "missing",
        None,
        "unknown",
        "unknown",
    )
    assert value["distinct_max"] == 1 + 4 * (2 * 3 + 1)


def test_plan_and_status_in_words_and_as_json_agree(finished, capsys):
    assert main(["plan", str(finished.config.path)]) == 0
    assert "0 to do" in capsys.readouterr().out
    assert main(["status", str(finished.run_dir), "--json"]) == 0
    now = json.loads(capsys.readouterr().out)
    assert now["complete"] is True
    assert main(["status", str(finished.run_dir), "--watch"]) == 0, "a complete run ends the watch"
    assert f"{now['finished']}/{now['planned']}" in capsys.readouterr().out


# --- exit codes ----------------------------------------------------------------------------------------------------


def run_arguments(folder, *more):
    return ["run", str(write_config(folder)), "--yes", "--address", "local", *more]


def one_line(capsys):
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1, err
    assert err[0].startswith("refit: ")
    return err[0]


def test_0_a_run_prints_the_summary_and_where_the_report_is(own_copy, capsys):
    assert main(["run", str(own_copy.config.path), "--yes", "--address", "local"]) == 0
    out = capsys.readouterr().out
    for text in ("tracin_last", "random", str(own_copy.run_dir / "report.html"), "retrained 0 (attempts 0)"):
        assert text in out


def test_0_a_stage_ends_where_it_was_told(tmp_path, capsys):
    assert main(run_arguments(tmp_path, "--until", "train")) == 0
    out = capsys.readouterr().out
    assert "retrained 1 (attempts 1)" in out
    assert "report.html" not in out


def test_1_a_mismatch(own_copy, capsys):
    assert main(["verify", str(own_copy.run_dir)]) == 0
    assert "MISMATCH" not in capsys.readouterr().out
    (own_copy.run_dir / "results" / "curves.csv").unlink()
    assert main(["verify", str(own_copy.run_dir)]) == 1
    assert "MISMATCH" in capsys.readouterr().out


def test_3_a_report_of_what_is_not_finished(tmp_path, capsys):
    run_dir = run_here(small_config(tmp_path), until="plan").run_dir
    assert main(["report", str(run_dir)]) == 3
    assert "refit run finishes them" in one_line(capsys)


BROKEN = """
from influence.base import Method
class Broken(Method):
    name = "broken"
    def check(self, task, base_dir, where):
        raise ZeroDivisionError("a bug\\nin two lines")
"""


def test_1_an_internal_error_is_one_line_and_a_traceback_on_request(tmp_path, plugin, monkeypatch, capsys):
    methods = [{"name": f"{plugin('plugin_broken', BROKEN)}:Broken", "as": "broken"}]
    path = write_config(tmp_path, {"plugins": ["plugin_broken"], "methods": methods})
    assert main(["plan", str(path)]) == 1
    line = one_line(capsys)
    assert "ZeroDivisionError: a bug in two lines" in line
    monkeypatch.setenv("REFIT_TRACEBACK", "1")
    assert main(["plan", str(path)]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_2_bad_input_names_file_and_key(tmp_path, capsys):
    assert main(run_arguments(tmp_path, "--set", "deletion.k=[0]")) == 2
    assert f"{tmp_path / 'config.yaml'}: deletion.k" in one_line(capsys)


@pytest.mark.parametrize("count", ["-1", "-5"])
def test_2_a_negative_number_of_retrains_to_verify(finished, capsys, count):
    assert main(["verify", str(finished.run_dir), "--rerun", count]) == 2
    assert f"--rerun: {count}" in one_line(capsys)


def test_3_a_ledger_that_another_driver_holds(tmp_path, capsys):
    pipeline = pipeline_of(small_config(tmp_path))
    lease = Lease(pipeline.store.blobs, pipeline.experiment.task_id)
    lease.acquire(time.time())
    try:
        assert main(run_arguments(tmp_path)) == 3
    finally:
        lease.release()
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("refit: ")
    assert str(os.getpid()) in last


def test_3_a_full_disk_is_nobodys_bug_and_the_same_command_resumes(own_copy, monkeypatch, capsys):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    command = ["run", str(own_copy.config.path), "--yes", "--address", "local"]
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.stages.stages.write_file", full)
        assert main(command) == 3
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.endswith(".csv: No space left on device; the same command resumes")
    assert main(command) == 0


def test_a_disk_that_is_full_for_a_moment_when_a_run_begins_is_waited_for(tmp_path, monkeypatch):
    put, n_failures = LocalBlobs.put, 0

    def full_at_first(self, key, data):
        nonlocal n_failures
        if key.endswith("task.json") and not n_failures:
            n_failures += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, key, data)

    monkeypatch.setattr(LocalBlobs, "put", full_at_first)
    assert main(run_arguments(tmp_path, "--until", "train")) == 0
    assert n_failures == 1


INTERRUPTING = """
import os, signal
from tasks.recipes.finetune import Finetune
countdown = [4]
class Interrupting(Finetune):
    name = "interrupting"
    def train(self, task, training):
        countdown[0] -= 1
        if countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().train(task, training)
"""


def test_3_ctrl_c_keeps_what_is_finished_and_the_same_command_resumes(tmp_path, plugin, capsys):
    plugin("plugin_interrupting", INTERRUPTING)
    recipe = {**CONFIG["task"]["recipe"], "name": "plugin_interrupting:Interrupting"}
    changes = {"task.recipe": recipe, "plugins": ["plugin_interrupting"], "repeats.count": 1}
    command = ["run", str(write_config(tmp_path, changes)), "--yes", "--address", "local", "--until", "retrain"]
    assert main(command) == 3
    assert "refit: " in capsys.readouterr().err
    assert main(command) == 0
    out = capsys.readouterr().out
    config = small_config(tmp_path, task__recipe=recipe, plugins=["plugin_interrupting"], repeats__count=1)
    found = api.plan(config)
    assert found.to_do == 0
    assert f"retrained {found.distinct - 2} " in out, "the two that were finished before are kept"


# --- as a process --------------------------------------------------------------------------------------------------


@pytest.fixture
def unread():
    """A pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def as_process(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE):
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)],
        cwd=ROOT, stdout=stdout, stderr=stderr, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_a_reader_that_goes_away_is_no_error(unread):
    done = as_process("list", "methods", stdout=unread)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_was_never_open_is_no_error(stream):
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.{stream} = None; import orchestrator.cli as c; sys.exit(c.main(['list', 'tasks']))",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_run_goes_on_when_nobody_reads_what_it_says(tmp_path, unread):
    done = as_process(*run_arguments(tmp_path), stdout=unread, stderr=unread)
    assert done.returncode == 0
    [run_dir] = (tmp_path / "runs").glob("small-*")
    assert (run_dir / "report.html").exists()
    (run_dir / "results/summary.csv").write_text("method\n")
    assert as_process("verify", run_dir, stdout=unread).returncode == 1, "the exit code is the command's own"
    assert as_process("status", run_dir, "--watch", stdout=unread).returncode == 0
