"""The parts of a user's own that docs/guide/plugins.md and the README show, run as those pages have them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from orchestrator import api
from orchestrator.inspection.track_record import track_record

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```(python|yaml)\n(.*?)```", re.DOTALL)


def blocks(page: str) -> list[str]:
    return [text for _, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))]


def test_the_examples_of_the_page_run_and_end_as_it_says(tmp_path, plugin):
    parts, config = blocks("docs/guide/plugins.md")
    plugin("my_parts", parts)
    plugin("length_influence", next(text for text in blocks("README.md") if "class TextLength" in text))
    path = tmp_path / "parts.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(config), "output": str(tmp_path / "runs")}, sort_keys=False))
    result = api.run(api.load_config(path), address="local")
    assert result.report.retrained == 17
    summary = api.open_run(result.run_dir).summary()
    assert len(summary) == 6
    assert set(summary["method"]) == {"length", "tracin_we", "random"}
    # A campaign that derives from Deletion has its page with figures and its parameters, whatever its own name is.
    assert (result.run_dir / "figures" / "curves.svg").is_file()
    assert 'id="auc"' in (result.run_dir / "report.html").read_text()
    record = track_record(api.open_run(result.run_dir).pipeline())
    assert record.params["campaign"] == "my_parts:DropDeletion"
    assert (record.params["k"], record.params["groups"]) == ([10], ["proponents", "opponents"])
    assert record.children[0].labels == {"method": "length", "group": "proponents"}
