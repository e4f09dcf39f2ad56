"""A copied run directory is read from the store around it; a run made elsewhere from the one it names; either is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from orchestrator import api
from orchestrator.cli import main
from orchestrator.experiment.run_dir import RunDir, existing
from orchestrator.inspection.status import status
from orchestrator.inspection.verify import verify
from orchestrator.storage.blobs import LocalBlobs
from tests.orchestrator.tiny_campaign import Finished


@pytest.fixture
def copy(own_copy, tmp_path) -> Path:
    """The run directory in a copy of the whole store; the original stays."""
    shutil.copytree(own_copy.folder / "runs", tmp_path / "archive")
    return tmp_path / "archive" / own_copy.run_dir.name


def spoil(folder: Path, kind: str) -> None:
    """Damage, or take away, one file of a kind in a store."""
    pattern = {
        "ledger part": "ledger/*/part-*.parquet",
        "score shard": "scores/*/shard-*",
        "checkpoint": "checkpoints/*/*",
    }
    path = sorted(folder.glob(pattern[kind.removesuffix(" gone")]))[0]
    if kind.endswith("gone"):
        path.unlink()
    else:
        path.write_bytes(b"no")


@pytest.mark.parametrize("kind", ["ledger part", "ledger part gone", "score shard", "score shard gone", "checkpoint"])
def test_damage_in_a_copy_is_found_while_the_original_lives(kind, copy, own_copy, capsys):
    spoil(copy.parent, kind)
    assert main(["verify", str(own_copy.run_dir)]) == 0
    assert main(["verify", str(copy)]) == 1
    said = capsys.readouterr().out
    assert f"the store {copy.parent} was read; the run was made in {own_copy.folder / 'runs'}" in said


def test_damage_in_the_original_is_none_in_the_copy(copy, own_copy):
    spoil(own_copy.folder / "runs", "ledger part")
    assert main(["verify", str(copy)]) == 0


def test_a_lost_ledger_of_a_copy_is_not_replaced_by_the_original(copy):
    shutil.rmtree(copy.parent / "ledger")
    assert status(copy).finished == 0
    assert main(["verify", str(copy)]) == 1


def test_status_counts_what_the_copy_has_and_names_it(copy, own_copy):
    assert status(own_copy.run_dir).notes == ()
    assert f"store      {own_copy.folder / 'runs'}" in status(own_copy.run_dir).lines()
    for part in (copy.parent / "ledger").glob("*/part-*.parquet"):
        part.unlink()
    found = status(copy)
    assert (found.finished, found.store) == (0, str(copy.parent))
    assert any(f"the run was made in {own_copy.folder / 'runs'}" in line for line in found.lines())


@pytest.mark.parametrize("command", ["report", "verify"])
def test_commands_on_a_copy_say_which_store_they_read(command, copy, capsys):
    assert main([command, str(copy)]) == 0
    said = capsys.readouterr()
    assert f"the store {copy.parent} was read" in said.out + said.err


def test_open_run_reads_the_copy(copy):
    view = api.open_run(copy)
    assert view.store == view.pipeline().store.uri == str(copy.parent)


def test_a_run_made_elsewhere_is_read_from_the_store_it_names(own_copy, tmp_path, capsys):
    """Also where there happens to be another store around it."""
    elsewhere = tmp_path / "elsewhere" / "run"
    api.run(own_copy.config, run_dir=elsewhere, address="local")
    LocalBlobs(elsewhere.parent).put("ledger/another/part-0.parquet", b"somebody else's")
    assert status(elsewhere).complete
    assert main(["verify", str(elsewhere)]) == 0
    assert f"the store {own_copy.folder / 'runs'}" in capsys.readouterr().out


def test_a_run_directory_copied_alone_is_read_from_the_store_it_names(own_copy, tmp_path):
    alone = tmp_path / "mail" / own_copy.run_dir.name
    shutil.copytree(own_copy.run_dir, alone)
    assert status(alone).store == str(own_copy.folder / "runs")
    assert not verify(api.open_run(alone).pipeline()).problems


def test_a_store_that_was_moved_is_found(own_copy, tmp_path):
    moved = tmp_path / "moved"
    (own_copy.folder / "runs").rename(moved)
    found = status(moved / own_copy.run_dir.name)
    assert (found.complete, found.store) == (True, str(moved))
    assert any(
        note.endswith(f"the run was made in {own_copy.folder / 'runs'}, which does not exist any more")
        for note in found.notes
    )


@pytest.mark.parametrize("folder", ["spend", "checkpoints"])
def test_a_folder_that_only_a_store_and_others_have_makes_no_store(own_copy, tmp_path, folder):
    """A run directory copied alone, into a folder in which somebody keeps something else."""
    alone = tmp_path / "mail" / own_copy.run_dir.name
    shutil.copytree(own_copy.run_dir, alone)
    (alone.parent / folder).mkdir()
    assert status(alone).store == str(own_copy.folder / "runs")


def test_the_same_store_by_another_path_is_the_recorded_one(own_copy, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(own_copy.folder / "runs")
    assert status(link / own_copy.run_dir.name).notes == ()


def test_a_run_of_before_it_was_recorded_where_it_lies_is_known_by_its_name(copy):
    path = copy / "provenance.json"
    provenance = json.loads(path.read_text())
    del provenance["in_store"]
    path.write_text(json.dumps(provenance))
    assert status(copy).store == str(copy.parent)
    other_name = copy.rename(copy.parent / "a-run-made-with-run-dir")
    assert status(other_name).store == provenance["store"]


def test_a_local_copy_of_a_bucket_is_read_itself(copy):
    path = copy / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "store": "s3://gone/runs"}))
    assert existing(copy).store("s3://gone/runs") == str(copy.parent)
    assert "the run was made in s3://gone/runs" in existing(copy).store_note(str(copy.parent))


def test_the_mirror_of_a_bucket_is_read_from_the_bucket(tmp_path):
    """The work folder has run directories and a cache, and nothing of a store."""
    run = tmp_path / "work" / "small-0123456789abcdef"
    run.mkdir(parents=True)
    (tmp_path / "work" / "cache").mkdir()
    (run / "provenance.json").write_text(json.dumps({"run": run.name, "store": "s3://bucket/runs", "in_store": True}))
    assert RunDir(run).store(None) == "s3://bucket/runs"


def test_a_copied_bucket_says_that_it_is_not_the_recorded_one(copy, own_copy: Finished):
    fetched = RunDir(copy, "s3://copy/runs")
    assert fetched.store(None) == "s3://copy/runs"
    assert f"the run was made in {own_copy.folder / 'runs'}" in fetched.store_note("s3://copy/runs")
