"""refit verify: every kind of mismatch is found and named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis import tables
from orchestrator.api import open_run
from orchestrator.inspection.verify import same_bytes, verify
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.tables import read_plan, read_scores_table, write_plan, write_scores_table
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import Finished, result_bytes


def problems(spoilt: Finished, rerun: int = 0) -> list[str]:
    return verify(spoilt.pipeline, rerun).problems


def names(spoilt: Finished, *named: object) -> bool:
    """Whether the first problem found names all of these."""
    found = problems(spoilt)
    return bool(found) and all(str(name) in found[0] for name in named)


def parts_of(spoilt: Finished):
    return sorted((spoilt.folder / "runs" / "ledger").glob("*/part-*.parquet"))


def republish(spoilt: Finished, change):
    """Replace the ledger by one that holds `change(row)` for each row; rows that become None go."""
    ledger = spoilt.pipeline.store.ledger(spoilt.pipeline.experiment.task_id)
    rows = [changed for row in ledger.read().rows.values() if (changed := change(row)) is not None]
    for path in parts_of(spoilt):
        path.unlink()
    ledger.publish(rows)


def work(spoilt: Finished, position: int):
    return spoilt.pipeline.planned.works[position]


def test_a_sound_run_has_no_problem_and_says_what_was_checked(finished):
    found = verify(finished.pipeline)
    assert found.problems == []
    for what in ("ledger parts", "scores", "retrains, scoring models included", "plan.parquet", "results"):
        assert any(what in line for line in found.checked), what


def test_retrains_done_again_give_the_same_bytes(finished):
    found = verify(finished.pipeline, rerun=3)
    assert found.problems == []
    assert found.checked[-1].startswith("3 retrains done again")


def test_a_part_that_cannot_be_read_is_named_beside_what_else_is_wrong(own_copy, monkeypatch):
    ledger = own_copy.pipeline.store.ledger(own_copy.pipeline.experiment.task_id)
    copy = ledger.publish([next(iter(ledger.read().rows.values()))])
    [second], [first] = ([p for p in parts_of(own_copy) if (p.name == copy) is is_copy] for is_copy in (False, True))
    first.write_bytes(b"no")
    get = LocalBlobs.get

    def read(self, key):
        if key.endswith(second.name):
            raise OSError(5, "Input/output error")
        return get(self, key)

    monkeypatch.setattr(LocalBlobs, "get", read)
    found = sorted(problems(own_copy))
    assert len(found) == 2
    assert any(first.name in problem for problem in found)
    assert any(f"{second.name}: cannot be read: Input/output error" in problem for problem in found)


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_part_is_named(own_copy, damage):
    part = parts_of(own_copy)[0]
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 4
    part.write_bytes(data if damage == "flip" else data[:-1])
    assert names(own_copy, part.name)


def test_a_lost_row_is_named(own_copy):
    lost = work(own_copy, 5).spec_id
    republish(own_copy, lambda row: None if row.spec_id == lost else row)
    assert names(own_copy, f"1 of {len(own_copy.pipeline.planned.works) + 1} retrains", lost)


def test_a_lost_row_of_a_scoring_model_is_named(own_copy):
    """The report shows its accuracy, and queries may be judged by it: without the row the run is not complete."""
    lost = own_copy.pipeline.scoring[0].work.spec_id
    republish(own_copy, lambda row: None if row.spec_id == lost else row)
    assert names(own_copy, lost)


def test_a_row_under_the_name_of_another_spec_is_named(own_copy):
    lied, other = work(own_copy, 5), work(own_copy, 6)
    republish(
        own_copy, lambda row: dataclasses.replace(row, spec=other.spec.json) if row.spec_id == lied.spec_id else row
    )
    assert names(own_copy, lied.spec_id)


def test_a_row_with_the_edit_of_another_is_named(own_copy):
    lied, other = work(own_copy, 5), work(own_copy, 6)
    republish(own_copy, lambda row: dataclasses.replace(row, edit=other.edit) if row.spec_id == lied.spec_id else row)
    assert names(own_copy, lied.spec_id)


def with_other_outputs(row):
    outputs = {name: values + np.float32(0.25) for name, values in row.outcome.outputs.items()}
    return dataclasses.replace(row, outcome=dataclasses.replace(row.outcome, outputs=outputs))


def test_outputs_that_were_changed_show_in_the_tables(own_copy):
    changed = work(own_copy, 0).spec_id

    def other(row):
        outputs = {name: values * np.float32([3, 1]) for name, values in row.outcome.outputs.items()}
        return dataclasses.replace(row, outcome=dataclasses.replace(row.outcome, outputs=outputs))

    republish(own_copy, lambda row: other(row) if row.spec_id == changed else row)
    assert names(own_copy, "curves.csv", "differs")


def test_outputs_that_no_table_shows_are_found_by_doing_them_again(own_copy):
    """A constant added to all logits changes no probability."""
    republish(own_copy, with_other_outputs)
    for name, text in own_copy.pipeline.results.csv().items():  # rounding may have moved a last digit
        (own_copy.run_dir / "results" / name).write_text(text)
    assert problems(own_copy) == []
    found = problems(own_copy, rerun=2)
    assert len(found) == 2
    assert all("done again" in line for line in found)


def test_two_results_of_one_retrain_that_differ_are_named(own_copy):
    spec_id = work(own_copy, 4).spec_id
    row = own_copy.pipeline.ledger_rows([spec_id])[spec_id]
    own_copy.pipeline.store.ledger(own_copy.pipeline.experiment.task_id).publish([with_other_outputs(row)])
    assert names(own_copy, spec_id)


def test_a_lost_or_damaged_score_shard_is_named(own_copy):
    shard = sorted((own_copy.folder / "runs" / "scores").glob("*/shard-*.parquet"))[0]
    shard.unlink()
    assert names(own_copy, "scores of", "1 shards")


def test_damaged_weights_of_a_scoring_model_are_named(own_copy):
    path = sorted((own_copy.folder / "runs" / "checkpoints").rglob("*.safetensors"))[0]
    data = bytearray(path.read_bytes())
    data[-3] ^= 8
    path.write_bytes(data)
    assert names(own_copy, own_copy.pipeline.scoring[0].work.spec_id)


def test_lost_weights_end_in_no_internal_error(own_copy):
    for path in (own_copy.folder / "runs" / "checkpoints").rglob("*.safetensors"):
        path.unlink()
    assert all(own_copy.pipeline.scoring[0].work.spec_id in line for line in problems(own_copy))


def test_a_changed_score_table_is_named(own_copy):
    path = own_copy.run_dir / "scores" / "with_bias.parquet"
    query_ids, train_ids, scores = read_scores_table(path)
    write_scores_table(path, query_ids, train_ids, scores + np.float32(1e-3))
    assert names(own_copy, path, "differs")
    path.unlink()
    assert names(own_copy, path, "missing")


@pytest.mark.parametrize("name", ["scores/tracin_last.parquet", "plan.parquet", "results/curves.csv"])
def test_a_damaged_file_of_the_run_directory_is_named(own_copy, name):
    path = own_copy.run_dir / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)
    assert names(own_copy, path)


def test_a_truncated_plan_or_score_table_is_named(own_copy):
    for name in ("plan.parquet", "scores/tracin_last.parquet"):
        path = own_copy.run_dir / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        assert names(own_copy, path)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("column", "value"), [("spec_id", None), ("method", "random"), ("k", 99), ("query_id", 77), ("repeat", 1)]
)
def test_a_changed_plan_is_named(own_copy, column, value):
    path = own_copy.run_dir / "plan.parquet"
    columns = {name: list(values) for name, values in read_plan(path).items()}
    columns[column][0] = value if value is not None else columns[column][-1]
    write_plan(path, columns)
    assert names(own_copy, path, "differs")


def test_a_lost_plan_is_named(own_copy):
    (own_copy.run_dir / "plan.parquet").unlink()
    assert names(own_copy, "plan.parquet", "missing")


def test_a_changed_or_lost_table_is_named(own_copy):
    for name, text in result_bytes(own_copy.run_dir).items():
        path = own_copy.run_dir / "results" / name
        path.write_bytes(text + b"\n")
        assert names(own_copy, path, "differs")
        path.unlink()
        assert names(own_copy, path, "missing")
        path.write_bytes(text)
    assert problems(own_copy) == []


def test_a_config_that_was_changed_afterwards_is_refused(own_copy):
    """config.yaml and the run that its provenance names must be the same run."""
    path = own_copy.run_dir / "config.yaml"
    path.write_text(path.read_text().replace("base_seed: 2021", "base_seed: 2022"))
    with pytest.raises(InputError, match=f"holds {own_copy.run_dir.name}"):
        open_run(own_copy.run_dir).pipeline()


def test_same_bytes_compares_status_names_shapes_and_bits(finished):
    row = next(iter(finished.pipeline.ledger.read().rows.values()))
    one = row.outcome
    assert same_bytes(one, dataclasses.replace(one, seconds=9.0, worker="other"))
    values = one.outputs["test"]
    nudged = np.nextafter(values, np.float32(np.inf))
    for outputs in ({}, {"test": nudged}, {"test": values.reshape(-1)}, {"test": values, "more": values}):
        assert not same_bytes(one, dataclasses.replace(one, outputs=outputs))
    assert not same_bytes(one, dataclasses.replace(one, status="diverged"))


def test_tables_of_an_older_version_are_told_from_damaged_ones(own_copy):
    """Before there were families and columns over queries, p_holm was taken over all contrasts of a group."""
    later = [name for name in tables.SUMMARY if name.startswith(("p_flip", "share_moved", "median"))]
    results = own_copy.run_dir / "results"
    for name in ("summary", "contrasts"):
        frame = pd.read_csv(results / f"{name}.csv", dtype=str, keep_default_na=False)
        frame.drop(columns=[*later, "family"], errors="ignore").to_csv(results / f"{name}.csv", index=False)
    found = verify(own_copy.pipeline)
    assert found.problems == []
    assert sum("an older version wrote it without the columns" in line for line in found.checked) == 2
    frame = pd.read_csv(results / "contrasts.csv", dtype=str, keep_default_na=False)
    frame.assign(p_holm="0.123").to_csv(results / "contrasts.csv", index=False)
    assert names(
        own_copy, "contrasts.csv", "an older version wrote it", "p_holm differs", "refit report writes it again"
    )
