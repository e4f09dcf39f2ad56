"""Bad input ends in one line that names the file and the key or row, with exit code 2, before torch is imported or a worker starts."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from orchestrator.cli import main
from tests.malformed_campaigns import BASES, CAMPAIGN_CASES, use
from tests.malformed_pairs import PAIR_CASES, use_pairs

ROOT = Path(__file__).resolve().parent.parent
CONFIG: dict[str, Any] = {
    "name": "bad",
    "campaign": "deletion",
    "task": {
        "name": "text_classification",
        "data": {
            "train": {"path": "train.csv", "format": "csv", "text": "text", "label": "label"},
            "test": {"path": "test.csv", "format": "csv", "text": "text", "label": "label"},
        },
        "model": {"name": "text_cnn", "embedding_dim": 4, "filters": 2, "max_length": 8},
        "recipe": {"name": "finetune", "epochs": 1, "batch_size": 4, "optimizer": "adam", "learning_rate": 0.01},
        "measure": [{"split": "test"}],
    },
    "queries": {"split": "test", "count": 1},
    "measurement": "gold_probability",
    "scores": {"models": 1},
    "methods": [{"name": "tracin_last"}, {"name": "random"}],
    "deletion": {"k": [1, 2], "groups": ["proponents"], "mode": "mask"},
    "repeats": {"count": 1},
    "tracking": None,
    "output": "runs",
}
ROWS = "text,label\n" + "".join(f"good words number {i},{'yes' if i % 2 else 'no'}\n" for i in range(12))


class Bad:
    """A folder with a sound config and data, to be damaged by one case."""

    def __init__(self, folder: Path):
        self.folder, self.config = folder, copy.deepcopy(CONFIG)
        (folder / "train.csv").write_text(ROWS)
        (folder / "test.csv").write_text(ROWS)

    @property
    def train(self) -> dict[str, Any]:
        return self.config["task"]["data"]["train"]

    def set(self, dotted: str, value: Any) -> None:
        *parents, last = dotted.split(".")
        here = self.config
        for part in parents:
            here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
        if isinstance(here, list):
            here[int(last)] = value
        else:
            here[last] = value

    def write(self) -> Path:
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.config))
        return path

    def train_text(self, text: str | bytes, name: str = "train.csv", **options: Any) -> None:
        (self.folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        self.train.update(path=name, **options)

    def scores(self, name: str, **options: Any) -> Path:
        self.config["methods"].append(
            {"name": "scores_file", "path": name, "axes": "query_train", "orientation": "helpful_positive", **options}
        )
        return self.folder / name

    def score_arrays(self) -> dict[str, np.ndarray]:
        return {"scores": np.ones((12, 12), np.float32), "query_ids": np.arange(12), "train_ids": np.arange(12)}


Case = tuple[str, Callable[[Bad], Any], str]


def setting(dotted: str, value: Any, names: str) -> Case:
    return f"{dotted}={json.dumps(value, default=str)}", lambda bad: bad.set(dotted, value), names


def npz(change: Callable[[dict], None]) -> Callable[[Bad], None]:
    def damage(bad: Bad) -> None:
        arrays = bad.score_arrays()
        change(arrays)
        np.savez(bad.scores("scores.npz"), **arrays)

    return damage


def truncated_parquet(bad: Bad) -> None:
    path = bad.folder / "train.parquet"
    pd.DataFrame({"text": ["a b"] * 12, "label": ["x", "y"] * 6}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    bad.train.update(path="train.parquet", format="parquet")


def nan_at(arrays: dict) -> None:
    arrays["scores"][3, 4] = np.nan


CASES: list[Case] = [
    setting("colour", "red", "colour"),
    setting("name", "no/slash", "name"),
    setting("name", 3, "name"),
    setting("campaign", "delete", "campaign"),
    setting("task", [1], "task"),
    setting("task.name", "classification", "task.name"),
    setting("task.model.name", "cnn", "task.model.name"),
    setting("task.model.filters", 0, "task.model.filters"),
    setting("task.model.filters", "ten", "task.model.filters"),
    setting("task.model.filtres", 4, "task.model"),
    setting("task.recipe.learning_rate", -1, "task.recipe.learning_rate"),
    setting("task.recipe.optimizer", "lion", "task.recipe.optimizer"),
    setting("task.recipe.epochs", 1.5, "task.recipe.epochs"),
    setting("task.measure", [], "task.measure"),
    setting("task.measure", [{"split": "dev"}], "measure"),
    setting("task.data.train.format", "xls", "task.data.train.format"),
    setting("task.data.train.path", "nowhere.csv", "nowhere.csv"),
    setting("task.data.train.path", "package:no_such_module_here/data", "no_such_module_here"),
    setting("task.data.train.label", "klass", "klass"),
    setting("task.data.train.text", ["text", "title"], "title"),
    setting("task.data.train.limit", 0, "limit"),
    setting("queries", {"split": "test"}, "queries"),
    setting("queries.count", 0, "queries.count"),
    setting("queries.count", 500, "queries.count"),
    setting("queries", {"split": "dev", "count": 1}, "queries.split"),
    setting("queries", {"split": "test", "ids": [3, 77]}, "77"),
    setting("queries", {"split": "test", "ids": [3, 3]}, "queries"),
    setting("queries", {"split": "test", "per_class": 50}, "queries.per_class"),
    setting("queries", {"split": "test", "where": {"probability": [0.9, 0.1]}}, "probability"),
    setting("measurement", "accuracy", "measurement"),
    setting("scores.models", 0, "scores.models"),
    setting("scores.checkpoints", [9], "scores.checkpoints"),
    setting("methods", [], "methods"),
    setting("methods", [{"name": "tracin_last"}, {"name": "tracin_last"}], "methods[1]"),
    setting("methods", [{"name": "magic"}], "methods[0]"),
    setting("methods", [{"name": "tracin", "layers": "last", "lr": 1}], "methods[0]"),
    setting("methods", [{"name": "os:system"}], "plugins"),
    setting("methods", [{"name": "scores_file", "path": "s.npz"}], "methods[0]"),
    setting(
        "methods",
        [{"name": "scores_file", "path": "s.npz", "axes": "query_train", "orientation": "helpful_positive"}],
        "s.npz",
    ),
    setting("deletion.k", [0], "deletion.k"),
    setting("deletion.k", [12], "deletion.k"),
    setting("deletion.k", [1.5], "deletion.k"),
    setting("deletion.k", [], "deletion.k"),
    setting("deletion.groups", ["best"], "deletion.groups"),
    setting("deletion.mode", "erase", "deletion.mode"),
    setting("repeats", {"count": 0}, "repeats.count"),
    setting("repeats", {"count": 2, "seeds": [1]}, "repeats"),
    setting("compute.workers", 0, "compute.workers"),
    setting("compute.gpus_per_worker", -1, "compute.gpus_per_worker"),
    setting("tracking", {"uri": "postgresql://me:hunter2@host/db"}, "tracking.uri"),
    setting("tracking", {"uri": "file:///tmp/mlruns"}, "tracking"),
    setting("output", "s3://key:secret@bucket/x", "output"),
    setting("output", "ftp://host/x", "output"),
    ("empty train set", lambda bad: bad.train_text("text,label\n"), "train.csv"),
    ("empty train file", lambda bad: bad.train_text(""), "train.csv"),
    ("one class only", lambda bad: bad.train_text("text,label\na,x\nb,x\n"), "train"),
    (
        "a label that train does not have",
        lambda bad: (bad.folder / "test.csv").write_text(ROWS + "odd one,maybe\n"),
        "maybe",
    ),
    ("an empty label", lambda bad: bad.train_text(ROWS + "no label,\n"), "train.csv"),
    ("a ragged row", lambda bad: bad.train_text(ROWS + "a,b,c,d\n"), "train.csv"),
    ("duplicate ids", lambda bad: bad.train_text("id,text,label\n1,a,x\n1,b,y\n", id="id"), "train.csv"),
    ("ids that are fractions", lambda bad: bad.train_text("id,text,label\n1.5,a,x\n2,b,y\n", id="id"), "train.csv"),
    ("bytes that are not UTF-8", lambda bad: bad.train_text(ROWS.encode() + b"caf\xe9,yes\n"), "train.csv"),
    (
        "a bad JSON line",
        lambda bad: bad.train_text('{"text": "a", "label": "x"}\n{oops\n', "train.jsonl", format="jsonl"),
        "train.jsonl",
    ),
    (
        "text that is a number in JSON",
        lambda bad: bad.train_text('{"text": 5, "label": "x"}\n', "train.jsonl", format="jsonl"),
        "train.jsonl",
    ),
    ("truncated parquet", truncated_parquet, "train.parquet"),
    ("a directory where a file is expected", lambda bad: bad.train.update(path="."), "is a directory"),
    ("NaN scores", npz(nan_at), "scores.npz"),
    ("scores of the wrong shape", npz(lambda a: a.update(scores=np.ones((12, 11), np.float32))), "scores.npz"),
    ("scores without ids", npz(lambda a: a.pop("train_ids")), "scores.npz"),
    ("scores for other training examples", npz(lambda a: a.update(train_ids=np.arange(1, 13))), "scores.npz"),
    ("scores that lack a query", npz(lambda a: a.update(query_ids=np.arange(100, 112))), "scores.npz"),
    ("duplicate query ids in scores", npz(lambda a: a.update(query_ids=np.zeros(12, int))), "scores.npz"),
    ("pickled scores", npz(lambda a: a.update(scores=np.array([[object()]], object))), "scores.npz"),
    ("a score file that is text", lambda bad: bad.scores("scores.npz").write_text("hello"), "scores.npz"),
    (
        "a csv of scores without its columns",
        lambda bad: bad.scores("scores.csv").write_text("a,b\n1,2\n"),
        "scores.csv",
    ),
]


CASES += CAMPAIGN_CASES + PAIR_CASES


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Bad(tmp_path)


def check_refused(code: int, err: str, names: str) -> None:
    assert code == 2, err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert names in lines[0], lines[0]
    assert "Traceback" not in err
    assert not [word for word in ("hunter2", "secret") if word in err]


def test_the_undamaged_config_is_accepted(at, capsys):
    assert main(["plan", str(at.write())]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("base", BASES)
def test_other_undamaged_campaigns_are_accepted(at, capsys, base):
    use(at, base)
    assert main(["plan", str(at.write())]) == 0, capsys.readouterr().err


def test_undamaged_pairs_are_accepted(at, capsys):
    use_pairs(at)
    assert main(["plan", str(at.write())]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(("damage", "names"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused_with_one_line_that_names_the_place(at, capsys, damage, names):
    damage(at)
    path = at.write()
    check_refused(main(["run", str(path), "--yes", "--address", "local"]), capsys.readouterr().err, names)
    assert not list(at.folder.glob("runs/*/provenance.json")), "a run was begun"


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "no such file"),
    "a directory": (lambda path: path.mkdir(), "directory"),
    "bad YAML": (lambda path: path.write_text("name: [a\nb: }"), "line"),
    "empty": (lambda path: path.write_text(""), "nothing"),
    "a list": (lambda path: path.write_text("- a\n- b\n"), "list"),
    "duplicate key": (lambda path: path.write_text("name: a\nname: b\n"), "duplicate"),
    "a Python object": (lambda path: path.write_text("name: !!python/object/apply:os.system [ls]\n"), "YAML"),
    "not UTF-8": (lambda path: path.write_bytes(b"name: \xff\xfe\n"), "UTF-8"),
    "NaN": (lambda path: path.write_text("name: .nan\n"), "finite"),
    "a date is text, and no list": (lambda path: path.write_text("methods: 2020-01-01\n"), "methods"),
    "a key that is a number": (lambda path: path.write_text("1: a\n"), "key"),
    "deep nesting": (lambda path: path.write_text("[" * 5000), "YAML"),
}


@pytest.mark.parametrize("kind", FILES)
def test_config_files_that_are_no_configs(kind, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    write, names = FILES[kind]
    write(path)
    check_refused(main(["run", str(path), "--yes"]), capsys.readouterr().err, names)


@pytest.mark.parametrize(
    "override",
    ["deletion.k", "=3", "deletion..k=3", "methods.7.name=random", "name.x=3", "deletion.k=[", "deletion.k=none"],
)
def test_bad_overrides(override, at, capsys):
    path = at.write()
    check_refused(main(["plan", str(path), "--set", override]), capsys.readouterr().err, "config.yaml")


@pytest.mark.parametrize("command", ["status", "report", "verify", "sync"])
@pytest.mark.parametrize("kind", ["missing", "empty", "damaged"])
def test_run_directories_that_are_none(command, kind, tmp_path, capsys):
    path = tmp_path / "run"
    if kind != "missing":
        path.mkdir()
    if kind == "damaged":
        (path / "config.yaml").write_text("name: [")
        (path / "provenance.json").write_text("{")
    check_refused(main([command, str(path)]), capsys.readouterr().err, str(path))


def test_no_refusal_imports_torch_or_starts_a_worker(at):
    """All cases in one fresh process: each is refused, and none of the heavy packages is there at the end."""
    configs = []
    for number, (_, damage, _names) in enumerate(CASES):
        folder = at.folder / str(number)
        folder.mkdir()
        bad = Bad(folder)
        damage(bad)
        configs.append(str(bad.write()))
    code = (
        "import sys\nfrom orchestrator.cli import main\ncodes = [main(['run', path, '--yes']) for path in sys.argv[1:]]\n"
        "print(codes.count(2), [m for m in ('torch', 'ray', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *configs], cwd=at.folder, capture_output=True, text=True, timeout=240, check=True
    )
    assert done.stdout.strip() == f"{len(CASES)} []", done.stderr
