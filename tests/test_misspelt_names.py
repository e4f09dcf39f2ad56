"""A misspelt key or name is refused by `refit plan` with the name that was probably meant."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import main
from tests.malformed_campaigns import BASES
from tests.orchestrator.small_campaigns import write_corpus
from tests.test_malformed_inputs import CONFIG, ROWS

KEY, VALUE = "key", "value"
# (base, dotted key, key | value, what is written instead, what was meant)
SLIPS: list[tuple[str, str, str, Any, str]] = [
    ("plain", "methods", KEY, "method", "methods"),
    ("plain", "queries", KEY, "query", "queries"),
    ("plain", "deletion", KEY, "deletoin", "deletion"),
    ("plain", "campaign", VALUE, "deletions", "deletion"),
    ("plain", "task.name", VALUE, "text-classification", "text_classification"),
    ("plain", "task.measure", KEY, "mesure", "measure"),
    ("plain", "task.model.filters", KEY, "filtres", "filters"),
    ("plain", "task.model.name", VALUE, "textcnn", "text_cnn"),
    ("plain", "task.recipe.learning_rate", KEY, "lerning_rate", "learning_rate"),
    ("plain", "task.recipe.name", VALUE, "fine_tune", "finetune"),
    ("plain", "task.data.train", KEY, "trian", "train"),
    ("plain", "task.data.train.label", KEY, "labels", "label"),
    ("plain", "task.measure.0.split", VALUE, "tets", "test"),
    ("plain", "queries.split", VALUE, "tset", "test"),
    ("plain", "queries.where", VALUE, {"label": "yess"}, "yes"),
    ("plain", "measurement", VALUE, "gold_probabilty", "gold_probability"),
    ("plain", "methods.0.name", VALUE, "tracin-last", "tracin_last"),
    ("plain", "methods.1.name", VALUE, "Random", "random"),
    ("plain", "deletion.groups", KEY, "group", "groups"),
    ("plain", "repeats.count", KEY, "cuont", "count"),
    ("loo", "leave_one_out.comparisons.0.method", VALUE, "exakt", "exact"),
    ("loo", "leave_one_out.comparisons.1.scores", VALUE, "twins", "twin"),
    ("loo", "methods.0.solver.damping", KEY, "dampning", "damping"),
    ("debias", "debias.correct", VALUE, ["gendr"], "gender"),
    ("debias", "task.properties.0.name", VALUE, "waet", "weat"),
    ("grid", "recipe_grid.baseline", VALUE, "finetunning", "finetuning"),
    ("grid", "observe.0.name", VALUE, "confound_influence_diference", "confound_influence_difference"),
    ("grid", "recipe_grid.splits", VALUE, {"test": "tests"}, "test"),
]


def damaged(base: str, dotted: str, what: str, written: Any) -> dict[str, Any]:
    """A sound config with one key or value replaced."""
    config: dict[str, Any] = copy.deepcopy(CONFIG if base == "plain" else BASES[base])
    *parents, last = dotted.split(".")
    here: Any = config
    for part in parents:
        here = here[int(part)] if isinstance(here, list) else here[part]
    index: Any = int(last) if isinstance(here, list) else last
    if what == KEY:
        here[written] = here.pop(index)
    else:
        here[index] = written
    if dotted == "queries.where":
        config["queries"].pop("count")
    if dotted == "debias.correct":
        config["debias"].pop("halves", None)
    return {**config, "output": "runs"}


@pytest.mark.parametrize(("base", "dotted", "what", "written", "meant"), SLIPS, ids=lambda part: str(part)[:40])
def test_the_message_says_what_was_probably_meant(
    base, dotted, what, written, meant, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("train.csv", "test.csv"):
        Path(name).write_text(ROWS)
    write_corpus(tmp_path / "corpus.jsonl")
    Path("config.yaml").write_text(yaml.safe_dump(damaged(base, dotted, what, written)))
    code, err = main(["plan", "config.yaml"]), capsys.readouterr().err
    assert code == 2, err
    assert len(err.splitlines()) == 1
    assert f"did you mean {meant!r}?" in err
