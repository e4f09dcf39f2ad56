"""Data as people have it goes from plan to report, and people see their own ids everywhere; in-process, a few seconds each."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from orchestrator import api
from orchestrator.cli import main
from tasks.data.ids import number_of

WORDS = {"neg": ("calm", "river", "stone"), "pos": ("gear", "noise", "engine")}
CONFIG: dict[str, Any] = {
    "name": "inputs",
    "campaign": "deletion",
    "task": {
        "name": "text_classification",
        "model": {"name": "text_cnn", "embedding_dim": 4, "filters": 4, "max_length": 16},
        "recipe": {"name": "finetune", "epochs": 2, "batch_size": 8, "optimizer": "adam", "learning_rate": 0.02},
    },
    "queries": {"split": "test", "count": 3},
    "scores": {"models": 1},
    "methods": [{"name": "tracin_last"}, {"name": "random"}],
    "deletion": {"k": [2], "groups": ["proponents", "opponents"]},
    "repeats": {"count": 2},
    "compute": {"workers": 1},
    "tracking": None,
    "output": "runs",
}


def rows(n: int, kind: str) -> list[tuple[str, str, str]]:
    """(id, text, label) of every row; no text stands in both splits."""
    labels = ("neg", "pos")
    return [(f"{kind}-{i}", " ".join((*WORDS[labels[i % 2]], f"{kind}{i}")), labels[i % 2]) for i in range(n)]


def write_csv(path: Path, found: list[tuple[str, str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("id", "text", "label"), *found])


def write_config(folder: Path, data: dict[str, Any], **changes: Any) -> Path:
    blocks = {name: {"text": "text", "label": "label", "id": "id", **block} for name, block in data.items()}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "task": {**CONFIG["task"], "data": blocks}, **changes}))
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_text_ids(folder: Path, **changes: Any) -> Path:
    for name, n in (("train", 24), ("test", 8)):
        write_csv(folder / f"{name}.csv", rows(n, name))
    return write_config(
        folder, {name: {"path": f"{name}.csv", "format": "csv"} for name in ("train", "test")}, **changes
    )


def planned_and_run(path: Path, capsys) -> tuple[str, Path]:
    """What `plan` prints, and the run directory of the finished run."""
    assert main(["plan", str(path)]) == 0, capsys.readouterr().err
    planned = capsys.readouterr().out
    assert main(["run", str(path), "--yes", "--address", "local"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    return planned, next(path.parent.glob("runs/inputs-*/report.html")).parent


# --- ids of text -------------------------------------------------------------------------------------------------------


def test_a_campaign_with_ids_of_text_shows_them_everywhere(folder, capsys):
    asked = ["test-5", "test-2"]
    path = with_text_ids(folder, queries={"split": "test", "ids": asked})
    planned, run_dir = planned_and_run(path, capsys)
    assert "data train     24 rows; 'neg' 12, 'pos' 12" in planned
    curves = pd.read_csv(run_dir / "results" / "query_curves.csv")
    assert list(curves.columns[:4]) == ["method", "group", "query_id", "given_query_id"]
    assert set(zip(curves.query_id, curves.given_query_id, strict=True)) == {(number_of(one), one) for one in asked}
    assert "given_query_id" in pd.read_csv(run_dir / "results" / "holes.csv").columns
    report = (run_dir / "report.html").read_text()
    assert "Query test-5" in report
    assert "train train-" in report, "the examples beside a query have the ids of the data"
    assert f">train {number_of('train-0')}<" not in report
    checks = pd.read_csv(run_dir / "results" / "checks.csv").set_index("name")["sentence"]
    assert not any(str(number_of(one)) in sentence for one in asked for sentence in checks)
    assert main(["verify", str(run_dir)]) == 0, capsys.readouterr().out
    assert main(["run", str(path), "--yes", "--address", "local"]) == 0
    assert "retrained 0" in capsys.readouterr().out


def test_checks_name_queries_and_their_copies_as_the_data_does(folder, capsys):
    path = with_text_ids(folder, queries={"split": "test", "ids": ["test-5", "test-2"]}, deletion={"k": [1]})
    write_csv(folder / "train.csv", [*rows(24, "train"), ("the-copy", rows(8, "test")[5][1], "pos")])
    _, run_dir = planned_and_run(path, capsys)
    told = pd.read_csv(run_dir / "results" / "checks.csv").set_index("name")["sentence"]
    assert "query test-5; query test-5 is there as train example the-copy." in told["leaked_queries"]


def test_a_ledger_of_ids_of_text_is_found_again_from_another_format(folder, capsys):
    _, run_dir = planned_and_run(with_text_ids(folder), capsys)
    for name, n in (("train", 24), ("test", 8)):
        columns = dict(zip(("id", "text", "label"), map(list, zip(*rows(n, name), strict=True)), strict=True))
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    path = write_config(folder, {name: {"path": f"{name}.parquet", "format": "parquet"} for name in ("train", "test")})
    assert main(["plan", str(path), "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    assert estimate["to_do"] == 0
    assert estimate["run"] == run_dir.name


def test_unknown_and_unmeasured_query_ids_are_named_as_given(folder, capsys):
    for ids, says in (
        (["test_5"], "'test_5' is not an id of split 'test'; did you mean 'test-5'?"),
        ([3], "'3' is not an id"),
    ):
        path = with_text_ids(folder, queries={"split": "test", "ids": ids})
        assert main(["plan", str(path)]) == 2
        assert f"queries.ids: {says}" in capsys.readouterr().err
    task = {"measure": [{"split": "test", "limit": 4}]}
    path = with_text_ids(folder, queries={"split": "test", "ids": ["test-7"]})
    assert main(["plan", str(path), "--set", f"task.measure={json.dumps(task['measure'])}"]) == 2
    assert "queries.ids: 'test-7' is not measured" in capsys.readouterr().err


def test_a_number_and_its_text_are_one_id_where_ids_are_text(folder, capsys):
    for name, n in (("train", 24), ("test", 8)):
        numbered = [(f"{i}" if i else "first", text, label) for i, (_, text, label) in enumerate(rows(n, name))]
        write_csv(folder / f"{name}.csv", numbered)
    data = {name: {"path": f"{name}.csv", "format": "csv"} for name in ("train", "test")}
    path = write_config(folder, data, queries={"split": "test", "ids": [7, "7"]})
    for command in (["plan", str(path)], ["run", str(path), "--yes", "--address", "local"]):
        assert main(command) == 2
        assert "queries.ids: '7' is given twice" in capsys.readouterr().err


def test_text_is_no_id_where_ids_are_numbers(folder, capsys):
    for name, n in (("train", 24), ("test", 8)):
        write_csv(folder / f"{name}.csv", [(str(i), text, label) for i, (_, text, label) in enumerate(rows(n, name))])
    data = {name: {"path": f"{name}.csv", "format": "csv"} for name in ("train", "test")}
    path = write_config(folder, data, queries={"split": "test", "ids": ["5"]})
    assert main(["plan", str(path)]) == 2
    assert "queries.ids: '5' is text, and the ids of split 'test' are integers" in capsys.readouterr().err


def score_table() -> pd.DataFrame:
    train, test = ([one[0] for one in rows(n, name)] for name, n in (("train", 24), ("test", 8)))
    scores = np.random.default_rng(0).normal(size=len(train) * len(test))
    return pd.DataFrame({"query_id": np.repeat(test, len(train)), "train_id": train * len(test), "score": scores})


def write_scores(path: Path, table: pd.DataFrame) -> None:
    if path.suffix == ".npz":
        matrix = table.pivot(index="query_id", columns="train_id", values="score")
        np.savez(
            path,
            scores=matrix.to_numpy(np.float32),
            query_ids=np.asarray(list(matrix.index)),
            train_ids=np.asarray(list(matrix.columns)),
        )
    elif path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)


FOREIGN = {"name": "scores_file", "axes": "query_train", "orientation": "helpful_positive"}


@pytest.mark.parametrize("name", ["s.npz", "s.csv", "s.parquet"])
def test_a_file_of_scores_has_the_ids_of_the_data(folder, capsys, name):
    write_scores(folder / name, score_table())
    config = api.load_config(with_text_ids(folder, methods=[{**FOREIGN, "path": name}]))
    pipeline = api.open_pipeline(config, address="local")
    task, queries = pipeline.experiment.task, pipeline.queries
    prepared = pipeline.experiment.methods["scores_file"].prepare(task, folder, queries)
    given = score_table().set_index(["query_id", "train_id"]).score
    train, test = task.splits["train"], task.splits["test"]
    for q, query in enumerate(queries.ids):
        for t, example in enumerate(train.ids):
            wanted = given[test.shown_id(query), train.shown_id(example)]
            assert prepared.scores[q, t] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", ["s.npz", "s.csv", "s.parquet"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda t: t[t.train_id != "train-3"], "the first is 'train-3'"),
        (lambda t: t.assign(train_id=t.train_id.replace("train-3", "strange")), "'strange' is not in the train set"),
        (lambda t: t.assign(query_id=t.query_id + "x"), "query id 'test-"),
        (lambda t: t.assign(score=t.score.where(t.train_id != "train-3")), "'train-3'|row 4"),
    ],
)
def test_files_of_scores_that_do_not_fit_are_told_with_the_ids_of_the_data(folder, capsys, name, damage, says):
    write_scores(folder / name, damage(score_table()))
    path = with_text_ids(folder, methods=[{**FOREIGN, "path": name}])
    assert main(["plan", str(path)]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert any(text in error for text in says.split("|")), error


# --- the other inputs ------------------------------------------------------------------------------------------------------


def test_compressed_files_with_semicolons_go_from_plan_to_report(folder, capsys):
    for name, n in (("train", 24), ("test", 8)):
        lines = [
            "id;text;label",
            *(f"{i}.0;{text}, and more;{label}" for i, (_, text, label) in enumerate(rows(n, name))),
        ]
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    data = {name: {"path": f"{name}.csv.gz", "format": "csv", "delimiter": ";"} for name in ("train", "test")}
    planned, run_dir = planned_and_run(write_config(folder, data), capsys)
    assert "data test      8 rows (8 measured); 'neg' 4, 'pos' 4" in planned
    curves = pd.read_csv(run_dir / "results" / "query_curves.csv")
    assert "given_query_id" not in curves.columns
    assert set(curves.query_id) <= set(range(8))
    assert ", and more" in (run_dir / "report.html").read_text()


def test_parquet_parts_of_token_lists_go_from_plan_to_report(folder, capsys):
    for name, n in (("train", 24), ("test", 8)):
        found = rows(n, name)
        for part, chosen in (("b", found[n // 2 :]), ("a", found[: n // 2])):
            columns = {
                "id": [one[0] for one in chosen],
                "text": [one[1].split() for one in chosen],
                "label": [float(one[2] == "pos") for one in chosen],
            }
            pq.write_table(pa.table(columns), folder / f"{name}-{part}.parquet")
    data = {name: {"path": f"{name}-*.parquet", "format": "parquet"} for name in ("train", "test")}
    planned, run_dir = planned_and_run(write_config(folder, data), capsys)
    assert "data train     24 rows; '0' 12, '1' 12" in planned
    assert "calm river stone" in (run_dir / "report.html").read_text()


def test_plan_says_what_it_read(folder, capsys):
    path = with_text_ids(folder)
    same = rows(24, "train")[:3]
    write_csv(folder / "test.csv", [*rows(8, "test"), *[(f"leak-{i}", one[1], one[2]) for i, one in enumerate(same)]])
    write_csv(
        folder / "train.csv", [*rows(24, "train"), ("e-1", "", "Pos"), ("e-2", " ", "neg"), ("d", same[0][1], "neg")]
    )
    assert main(["plan", str(path)]) == 0
    out = capsys.readouterr().out
    assert "data train     27 rows; 'Pos' 1, 'neg' 14, 'pos' 12; 2 empty texts; 1 duplicate text" in out
    assert "data test      11 rows (11 measured); " in out
    assert "3 with a text that also occurs in train (3 of them measured)" in out
    assert main(["plan", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["split"] for one in found["data"]] == ["train", "test"]
    assert found["data"][0]["classes"] == {"Pos": 1, "neg": 14, "pos": 12}
    assert found["data"][1]["n_measured_in_train"] == 3
    assert found["warnings"] == [
        "train: 2 of 27 texts are empty",
        "train: the labels 'Pos' (1 row) and 'pos' (12 rows) differ only in upper and lower case and are separate classes",
        "test: the exact text of 3 of 11 measured rows also occurs in train",
    ]
    assert all(f"warning        {warning}" in out for warning in found["warnings"])


def test_measure_defaults_to_the_split_of_the_queries(folder, capsys):
    path = with_text_ids(folder)
    config = api.load_config(path)
    assert [item.split for item in config.task.measure] == ["test"]
    given = api.load_config(path, ["task.measure=[{split: test}]"])
    assert (
        api.open_pipeline(config, address="local").experiment.run_hex
        == api.open_pipeline(given, address="local").experiment.run_hex
    )
    assert main(["plan", str(path), "--set", "queries.split=tset"]) == 2
    assert "queries.split: no split 'tset'; splits: 'test', 'train'; did you mean 'test'?" in capsys.readouterr().err


def test_a_campaign_without_queries_says_that_measure_is_missing(folder, capsys):
    raw = yaml.safe_load(with_text_ids(folder).read_text())
    grid = {key: value for key, value in raw.items() if key not in ("queries", "scores", "methods", "deletion")}
    (folder / "grid.yaml").write_text(
        yaml.safe_dump({**grid, "campaign": "recipe_grid", "recipe_grid": {"arms": [{"name": "a"}]}})
    )
    assert main(["plan", str(folder / "grid.yaml")]) == 2
    assert "task.measure: is missing; it names the splits" in capsys.readouterr().err
