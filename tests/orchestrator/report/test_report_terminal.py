import numpy as np
import pandas as pd
from report_data import report_data

from orchestrator.report.terminal import summary_table


def test_columns_line_up_and_verdicts_follow():
    data = report_data()
    lines = summary_table(data.summary, data.verdicts).splitlines()
    table = lines[: 2 + len(data.summary)]
    starts = {line.index("prop" if "prop" in line else "opp") for line in table[2:]}
    assert starts == {table[0].index("group")}
    assert lines[0].split()[:3] == ["method", "group", "AUC-DEL"]
    assert " ".join(lines[len(table) + 1 :]).replace("  ", " ").startswith("- tracin_we beats random on proponents")
    assert all(len(line) <= 100 for line in lines[len(table) :])


def test_both_intervals_and_counts_are_there():
    row = {
        "method": "m",
        "group": "proponents",
        "auc_del": -0.5,
        "ci_low": -0.75,
        "ci_high": -0.25,
        "ci_fixed_low": -0.6,
        "ci_fixed_high": np.nan,
        "n_queries": 10,
        "n_repeats": 5,
    }
    line = summary_table(pd.DataFrame([row]), []).splitlines()[2]
    assert line.split() == ["m", "proponents", "−0.5000", "[−0.7500,", "−0.2500]", "—", "10", "5"]


def test_control_characters_do_not_reach_the_terminal():
    row = {"method": "\x1b[31mred\n", "group": "g", "auc_del": 0.0}
    text = summary_table(pd.DataFrame([row]), ["bad \x1b]0;title\x07 verdict"])
    assert "\x1b" not in text
    assert "\x07" not in text
    assert len(text.splitlines()) == 5


def test_an_empty_summary_has_a_header_only():
    assert len(summary_table(pd.DataFrame(), []).splitlines()) == 2
