"""The pages that users read to write a config name every registered part."""

import re
from pathlib import Path

import pytest

from influence.registry import DIAGNOSTICS, METHODS, OBSERVERS
from orchestrator.registry import CAMPAIGNS
from tasks.registry import MEASUREMENTS, MODELS, PROPERTIES, RECIPES, TASKS

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {"methods.md": DOCS / "methods.md", "config.md": DOCS / "guide" / "config.md"}
NAMED_IN = [
    ("methods.md", METHODS),
    ("methods.md", DIAGNOSTICS),
    ("methods.md", MEASUREMENTS),
    ("config.md", CAMPAIGNS),
    ("config.md", TASKS),
    ("config.md", RECIPES),
    ("config.md", MODELS),
    ("config.md", MEASUREMENTS),
    ("config.md", OBSERVERS),
    ("config.md", PROPERTIES),
]


@pytest.mark.parametrize(("page", "registry"), NAMED_IN, ids=[f"{page}-{r.kind}" for page, r in NAMED_IN])
def test_every_registered_part_is_named(page, registry):
    text = PAGES[page].read_text(encoding="utf-8")
    missing = [name for name in registry.entries() if not re.search(rf"\b{name}\b", text)]
    assert not missing


def test_the_row_of_the_campaign_and_that_of_its_block_list_all_of_them():
    rows = PAGES["config.md"].read_text(encoding="utf-8").splitlines()
    for row in (
        next(r for r in rows if r.startswith("| `campaign` |")),
        next(r for r in rows if "the block of the campaign" in r),
    ):
        assert all(f"`{name}`" in row for name in CAMPAIGNS.entries()), row
