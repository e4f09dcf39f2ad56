"""`refit status RUN_DIR --spec ID`: which retrain it is, what became of it, and its story, from another process and after a crash."""

from __future__ import annotations

import json

import pytest

from orchestrator import api
from orchestrator.cli import main
from orchestrator.inspection.spec_story import spec_status
from orchestrator.storage.story_file import SpecStory, Step, StoryFile
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import run_here, small_config

TIME = "2020-01-01T00:00:00.000+00:00"  # before any row of these tests
LATER = "2999-01-01T00:00:00.000+00:00"


def shown(capsys, *arguments):
    code = main(["status", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_retrain_of_the_plan_is_described_with_its_row_and_its_steps(finished, capsys):
    plan = finished.pipeline.planned
    work, row = plan.works[3], finished.pipeline.rows[plan.works[3].spec_id]
    cells = [dict(zip(plan.columns(), cell, strict=True)) for cell in zip(*plan.columns().values(), strict=True)]
    code, out, _ = shown(capsys, finished.run_dir, "--spec", work.spec_id[:12])
    assert code == 0
    assert f"Retrain {work.spec_id}" in out
    assert f"Edit: {len(work.edit.ids)} training examples. Seed: {work.spec.seed}." in out
    for cell in cells:
        line = ", ".join(f"{name} {value}" for name, value in cell.items() if name != "spec_id")
        assert (line in out) == (cell["spec_id"] == work.spec_id)
    assert "State: it is finished" in out
    assert f"ok after 1 attempt, {row.outcome.seconds:.2f} s on worker local" in out
    story = out[out.index("Story:") :].splitlines()[1:]
    assert [line.partition("UTC  ")[2] for line in story] == [
        "attempt 1 was given to worker local",
        "worker local returned a result of attempt 1",
        "the driver began to write its row to the ledger",
        "its row was written to the ledger",
    ]


def test_json_holds_the_same(finished, capsys):
    work = finished.pipeline.planned.works[3]
    code, out, _ = shown(capsys, finished.run_dir, "--spec", work.spec_id, "--json")
    found = json.loads(out)
    assert (code, found["spec_id"], found["role"], found["state"]) == (0, work.spec_id, "cell", "finished")
    assert (found["seed"], found["n_edited"]) == (work.spec.seed, len(work.edit.ids))
    assert (found["row"]["status"], found["row"]["attempts"], found["row"]["worker"]) == ("ok", 1, "local")
    assert [step["event"] for step in found["steps"]] == ["submit", "result", "publish", "published"]


def test_references_and_scoring_models_are_found_too(finished):
    reference, model = finished.pipeline.planned.references()[0], finished.pipeline.scoring[0].work
    assert spec_status(finished.run_dir, reference).role == "reference"
    found = spec_status(finished.run_dir, model.spec_id)
    assert (found.role, found.seed, found.n_edited, found.state) == ("other", model.spec.seed, 0, "finished")


@pytest.mark.parametrize("prefix", ["", "xyz", "0" * 33])
def test_an_id_that_no_retrain_has_is_refused_in_one_line(finished, capsys, prefix):
    code, out, err = shown(capsys, finished.run_dir, "--spec", prefix)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"begins with {prefix!r}" in err


def test_digits_that_several_ids_begin_with_are_refused(finished, capsys):
    ids = [work.spec_id for work in finished.pipeline.planned.works]
    digit = next(spec_id[0] for spec_id in ids if sum(other[0] == spec_id[0] for other in ids) > 1)
    code, _, err = shown(capsys, finished.run_dir, "--spec", digit)
    assert code == 2
    assert "give more digits" in err


def test_a_retrain_that_was_never_submitted_waits(tmp_path):
    config = small_config(tmp_path)
    run_dir = run_here(config, until="plan").run_dir
    spec_id = api.open_pipeline(config, address="local").planned.works[1].spec_id
    found = spec_status(run_dir, spec_id)
    assert (found.state, found.row, found.steps, len(found.cells) > 0) == ("waiting", None, (), True)
    assert "It has no row in the ledger yet." in found.lines()


def test_after_a_crash_the_story_says_so_and_what_was_torn_costs_nothing_else(tmp_path):
    config = small_config(tmp_path)
    run_dir = run_here(config, until="plan").run_dir
    work = api.open_pipeline(config, address="local").planned.works[1]
    submit = Step(TIME, "submit", "waiting", "running", 1, "w1", "")
    StoryFile(run_dir / "story.jsonl").append([SpecStory(work.spec_id, [submit], work.spec.seed, 2)])
    with (run_dir / "story.jsonl").open("ab") as file:
        file.write(f'{{"spec":"{work.spec_id}","steps":[["2020'.encode())
    found = spec_status(run_dir, work.spec_id)
    assert (found.state, found.steps, found.n_edited) == ("running", (submit,), 2)
    assert any("it runs on a worker, as of 2020-01-01 00:00:00 UTC" in line for line in found.lines())
    run_here(config)
    found = spec_status(run_dir, work.spec_id)
    assert found.state == "finished"
    assert [step.event for step in found.steps] == ["submit", "submit", "result", "publish", "published"]
    assert sum("the driver ended here without recording a reason" in line for line in found.lines()) == 1


def test_a_failure_is_shown_in_one_line_with_its_cause(own_copy):
    spec_id = own_copy.pipeline.planned.works[3].spec_id
    steps = [
        Step(LATER, "submit", "waiting", "running", 1, "w1", ""),
        Step(LATER, "retry", "running", "waiting", 1, "w1", "error: ValueError: bad\nvalue"),
    ]
    StoryFile(own_copy.run_dir / "story.jsonl").append([SpecStory(spec_id, steps)])
    found = spec_status(own_copy.run_dir, spec_id)
    assert found.state == "waiting"  # a later session tries again what the ledger has
    assert any("a later session repeated this retrain" in line for line in found.lines())
    assert found.lines()[-1].endswith(
        "attempt 1 failed on worker w1 and will be repeated (error: ValueError: bad value)"
    )


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such run directory"):
        spec_status(tmp_path / "nothing", "a")


def test_watch_is_refused_together_with_an_id(finished, capsys):
    code, _, err = shown(capsys, finished.run_dir, "--spec", "a", "--watch")
    assert (code, "--watch" in err) == (2, True)


def test_a_story_that_cannot_be_written_does_not_fail_the_run(tmp_path):
    config = small_config(tmp_path)
    run_dir = run_here(config, until="plan").run_dir
    (run_dir / "story.jsonl").unlink()
    (run_dir / "story.jsonl").mkdir()
    assert run_here(config).exit_code == 0
    assert (run_dir / "refit.log").read_text().count("the story of the retrains could not be written") == 1
