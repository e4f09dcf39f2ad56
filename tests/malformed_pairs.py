"""Malformed pairs of texts, maps of labels, and subsets of a dataset: cases of test_malformed_inputs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tests.malformed_campaigns import Case

LABELS = {"0": "entailment", "1": "other", "2": "other"}
_READ = {"format": "csv", "text": "premise", "text_pair": "hypothesis", "label": "gold"}
PAIRS: dict[str, Any] = {
    "name": "pairs",
    "campaign": "deletion",
    "task": {
        "name": "text_classification",
        "data": {
            "train": {"path": "pairs.csv", **_READ, "labels": LABELS},
            "test": {"path": "two.csv", **_READ, "labels": {"no": "other", "yes": "entailment"}},
        },
        "model": {"name": "text_cnn", "embedding_dim": 4, "filters": 2, "max_length": 8},
        "recipe": {"name": "finetune", "epochs": 1, "batch_size": 4, "optimizer": "adam", "learning_rate": 0.01},
        "measure": [{"split": "test"}],
    },
    "queries": {"split": "test", "count": 1},
    "methods": [{"name": "tfidf"}, {"name": "random"}],
    "deletion": {"k": [1, 2], "groups": ["proponents"], "mode": "mask"},
    "repeats": {"count": 1},
    "tracking": None,
    "output": "runs",
}
HF = {"path": "somebody/something", "format": "hf", "text": "premise", "text_pair": "hypothesis", "label": "gold"}


def write_pairs(folder: Path) -> None:
    """Write the two files of PAIRS: the same two classes, under other labels."""
    header = "premise,hypothesis,gold\n"
    for name, labels in (("pairs.csv", ("0", "1", "2")), ("two.csv", ("no", "yes"))):
        rows = [f"the premise {row},the hypothesis {row},{labels[row % len(labels)]}\n" for row in range(12)]
        (folder / name).write_text(header + "".join(rows))


def use_pairs(bad: Any) -> None:
    """Replace the usual config and data by these valid ones, before they are damaged."""
    bad.config = copy.deepcopy(PAIRS)
    write_pairs(bad.folder)


def changed(key: str, value: Any, names: str) -> Case:
    """Return a case in which the key of task.data has this value."""

    def damage(bad: Any) -> None:
        use_pairs(bad)
        bad.set(f"task.data.{key}", value)

    return f"pairs {key}={value}"[:90], damage, names


def without(key: str, names: str) -> Case:
    def damage(bad: Any) -> None:
        use_pairs(bad)
        split, option = key.split(".")
        del bad.config["task"]["data"][split][option]

    return f"pairs without {key}", damage, names


def classes(value: Any, names: str) -> Case:
    def damage(bad: Any) -> None:
        use_pairs(bad)
        bad.set("task.classes", value)

    return f"pairs classes={value}", damage, names


def model(options: dict[str, Any], names: str) -> Case:
    def damage(bad: Any) -> None:
        use_pairs(bad)
        bad.config["task"]["model"].update(options)

    return f"pairs {options}", damage, names


IN_TRAIN, IN_TEST = "config.yaml: task.data.train.labels: ", "config.yaml: task.data.test.labels: "
PAIR_CASES: list[Case] = [
    # text_pair
    changed("train.text_pair", "hypotheses", "pairs.csv: no column 'hypotheses'; columns: "),
    changed("train.text_pair", ["hypothesis", 3], "task.data.train.text_pair"),
    changed("train.text_pair", [], "text_pair names at least one column"),
    changed("train.text_pair", "premise", "the column 'premise' is in text and in text_pair"),
    without("test.text_pair", "split train has text_pair and split test has not"),
    without("train.text_pair", "split test has text_pair and split train has not"),
    model({"max_length": 4}, "task.model.max_length: 4 is too small for text_pair; allowed: at least 5"),
    # labels
    changed("train.labels", {}, "at least one label is needed"),
    changed("train.labels", ["entailment"], "task.data.train.labels"),
    changed("train.labels", {**LABELS, "1": 7}, "task.data.train.labels"),
    changed("train.labels", {**LABELS, "1": " "}, "label '1' becomes ' '; a class needs a name"),
    changed("train.labels", {**LABELS, "1": "other "}, "the classes 'other ' and 'other' differ only in the blanks"),
    changed(
        "train.labels",
        {"0": "entailment", "1": "other"},
        "pairs.csv: line 4: gold: label '2' is not named in task.data.train.labels: '0', '1'",
    ),
    changed("train.labels", {**LABELS, "neutral": "other"}, f"{IN_TRAIN}no record has the label 'neutral'; labels: "),
    changed(
        "test.labels",
        {"No": "other", "yes": "entailment"},
        "two.csv: line 2: gold: label 'no' is not named in task.data.test.labels: 'No', 'yes'; did you mean 'No'?",
    ),
    changed("train.labels", dict.fromkeys("012", "other"), "has the label 'other'; two classes are needed"),
    changed(
        "test.labels",
        {"no": "others", "yes": "entailment"},
        f"{IN_TEST}label 'no' becomes 'others', which is not one of the train split's classes: 'entailment', 'other'; did you mean",
    ),
    without("test.labels", "two.csv: line 2: label 'no' is not one of the train split's classes"),
    without("train.labels", f"{IN_TEST}label 'no' becomes 'other', which is not one of the train split's classes"),
    classes(["entailment", "neutral"], f"{IN_TRAIN}label '1' becomes 'other', which is not one of task.classes"),
    classes({"0": "entailment", "1": "other"}, f"{IN_TRAIN}label '0' becomes 'entailment', which is not one of"),
    # config
    changed("train.config", "mnli", "config is an option of format hf, not of csv"),
    changed("train", {**HF, "config": ""}, "task.data.train.config"),
    changed("train", {**HF, "config": ["a"]}, "task.data.train.config"),
    changed("train", {**HF, "path": ["a", "b"], "config": "mnli"}, "format: hf takes one path"),
]
