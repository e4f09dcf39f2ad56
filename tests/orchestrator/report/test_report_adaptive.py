"""The report of adaptive repeats: how many every curve took, and what fixed designs would have cost."""

import pandas as pd
from report_data import deletion_data, report_data

from orchestrator.campaigns.deletion.page import deletion_sections
from orchestrator.report.render import page

REPEATS = [
    {
        "method": "tfidf",
        "group": "proponents",
        "n_repeats": 4,
        "half_width": 0.0123,
        "target": 0.0392,
        "ended": "target",
    },
    {"method": "random", "group": "opponents", "n_repeats": 12, "half_width": 0.0456, "target": 0.0392, "ended": "max"},
]
DESIGNS = [
    {"design": "adaptive", "n_repeats": 12, "n_retrains": 311, "saved": 0},
    {"design": "fixed, same target", "n_repeats": 12, "n_retrains": 444, "saved": 133},
]


def test_a_section_says_what_every_curve_took_and_what_was_saved():
    text = page(report_data({"repeats": pd.DataFrame(REPEATS), "designs": pd.DataFrame(DESIGNS)}))
    for shown in ("Adaptive repeats", "0.0123", "0.0456", "0.0392", "fixed, same target", "311", "444", "133"):
        assert shown in text


def test_fixed_repeats_have_no_such_section():
    tables, pages = deletion_data()
    assert "repeats" not in [section.id for section in deletion_sections(tables, pages)]
