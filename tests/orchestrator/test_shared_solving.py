"""Solutions for queries: each is computed once, kept until the scores are complete, and used again after a failure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.config.schema import LoadedConfig
from orchestrator.inspection.verify import verify
from orchestrator.runtime.worker import make_scorer
from tasks.errors import RefitError
from tests.orchestrator.counted_influence import FOLDER, METHOD, SHARED, solved
from tests.orchestrator.tiny_campaign import pipeline_of, run_here, small_config

ROWS = dict.fromkeys(range(5), 1)  # the queries are rows 0 to 4; they are solved as [0, 1], [2, 3], [4]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The store of the campaign with its scoring model."""
    folder = tmp_path_factory.mktemp("trained")
    run_here(small_config(folder, **SHARED), until="train")
    return folder / "runs"


@pytest.fixture
def diary(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "diary"
    folder.mkdir()
    monkeypatch.setenv(FOLDER, str(folder))
    return folder


@pytest.fixture
def config(trained, diary, tmp_path) -> LoadedConfig:
    shutil.copytree(trained, tmp_path / "runs")
    return small_config(tmp_path, **SHARED)


def score(config: LoadedConfig) -> dict[str, bytes]:
    """Run the score stage, and return path -> bytes of everything that it has stored."""
    run_here(config, until="score")
    folder = config.path.parent / "runs" / "scores"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def solutions(config: LoadedConfig) -> list[Path]:
    """Return the stored solutions, in the order of their queries."""
    return sorted((config.path.parent / "runs" / "scores").glob("*/solutions-*"))


@pytest.fixture(scope="module")
def quiet(trained, tmp_path_factory) -> dict[str, bytes]:
    """What the score stage stores if nothing disturbs it."""
    folder = tmp_path_factory.mktemp("quiet")
    shutil.copytree(trained, folder / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder))
        found = score(small_config(folder, **SHARED))
    assert solved(folder) == ROWS
    return found


def test_the_store_holds_the_scores_and_their_diagnostics_and_no_solutions(quiet):
    assert [name.rpartition("/")[2].partition("-")[0] for name in quiet] == ["diagnostics.json", *["shard"] * 3]
    [told] = [json.loads(data) for name, data in quiet.items() if name.endswith("diagnostics.json")]
    [model] = told["diagnostics"]["models"]
    assert len(told["diagnostics"]["query_ids"]) == len(model["residual"]) == 5
    # 4 steps per query, each on one batch of rows, and a check on 48 rows in one batch
    assert model["batch_products"] == {"solver": 5 * 4, "check": 5}


def fail_at(config: LoadedConfig, diary: Path, row: int) -> None:
    """Run the score stage until solving for one query fails, and let it succeed from now on."""
    (diary / "fail_at").write_text(str(row))
    with pytest.raises(RefitError, match="as the test asks"):
        score(config)
    (diary / "fail_at").unlink()
    (diary / "diary").unlink()


def test_after_a_failure_only_what_is_not_stored_is_solved_for_and_the_bytes_are_the_same(config, diary, quiet):
    fail_at(config, diary, 4)
    assert len(solutions(config)) == 2
    assert score(config) == quiet
    assert solved(diary) == {4: 1}


def truncated(path: Path, others: list[Path]) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def empty(path: Path, others: list[Path]) -> None:
    path.write_bytes(b"")


def swapped(path: Path, others: list[Path]) -> None:
    """The solutions of other queries, undamaged."""
    shutil.copy(others[1], path)


@pytest.mark.parametrize("damage", [truncated, empty, swapped])
def test_a_damaged_file_is_solved_again(config, diary, quiet, damage):
    fail_at(config, diary, 4)
    damage(solutions(config)[0], solutions(config))
    assert score(config) == quiet
    assert solved(diary) == {0: 1, 1: 1, 4: 1}
    [log] = (config.path.parent / "runs").glob("*/refit.log")
    assert "is damaged or holds something else; its queries are solved again" in log.read_text()


def test_a_worker_solves_for_what_is_lost_after_the_driver_has_looked(config, diary, quiet):
    """Such as when another run has just completed the same scores and deleted the solutions."""
    fail_at(config, diary, 4)
    pipeline = pipeline_of(config)
    stage = pipeline.scores
    job = stage.job(stage.missing())
    solutions(config)[0].unlink()
    ids = {"counted": stage.score_id(job.methods["counted"])}
    made = make_scorer(pipeline.context(), replace(job, solved=ids))
    assert solved(diary) == {0: 1, 1: 1, 4: 1}
    stage.keep("counted", 0, 16, made.score_range(0, 16)["counted"])
    assert score(config) == quiet


def test_a_file_that_an_earlier_run_has_left_is_deleted_and_nothing_is_solved(config, diary, quiet):
    fail_at(config, diary, 4)
    left = {path: path.read_bytes() for path in solutions(config)}
    score(config)
    (diary / "diary").unlink()
    for path, data in left.items():
        path.write_bytes(data)
    assert score(config) == quiet
    assert solved(diary) == {}


def test_two_labels_of_one_method_are_solved_for_once(config, diary):
    twice = [*SHARED["methods"], {**SHARED["methods"][0], "as": "twin"}]
    score(small_config(config.path.parent, **{**SHARED, "methods": twice}))
    assert solved(diary) == ROWS


def test_verify_solves_and_scores_again(config, diary):
    run = small_config(config.path.parent, **SHARED, **{"deletion.k": [2], "repeats.count": 1})
    run_here(run)
    (diary / "diary").unlink()
    found = verify(pipeline_of(run), rerun=3)
    assert found.problems == []
    assert solved(diary) == ROWS


def test_progress_tells_for_how_many_queries_it_has_solved(config, diary, monkeypatch):
    told: list[str] = []
    update: Callable[..., None] = lambda self, done, total, note="": told.append(note)  # noqa: E731
    monkeypatch.setattr("orchestrator.terminal.progress.Progress.update", update)
    score(config)
    assert [note for note in told if note] == [f"solved for {n} of 5 queries" for n in (0, 2, 4, 5)]


def test_by_default_one_worker_solves_for_all_queries_together_under_the_score_id_without_the_option(config, diary):
    plain = small_config(config.path.parent, **{**SHARED, "methods": [METHOD]})
    ids = [next(iter(pipeline_of(c).scores.experiment.scored.values())).identity() for c in (plain, config)]
    assert "queries_at_once" not in ids[0]
    assert ids[1] == {**ids[0], "queries_at_once": 2}
    score(plain)
    assert solved(diary) == ROWS
    assert [len(line.partition(" by ")[0].split()) for line in (diary / "diary").read_text().splitlines()] == [5, 5]
