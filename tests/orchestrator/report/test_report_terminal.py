import numpy as np
import pandas as pd
from report_data import deletion_data, frame

from orchestrator.analysis.checks import CAUTION, FAILED, Check
from orchestrator.campaigns.results import Results
from orchestrator.terminal.results_table import headline_table, most_moved_query, results_table, summary_table


def test_columns_line_up_and_verdicts_follow():
    summary = deletion_data()[0]["summary"]
    lines = summary_table(summary, frame()["verdicts"]).splitlines()
    table = lines[: 2 + len(summary)]
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


AGREEMENT = pd.DataFrame(
    {
        "label": ["cross", "matched \x1b[31m"],
        "share": [0.655, 0.58],
        "share_ci_low": [0.5, 0.4],
        "share_ci_high": [0.75, 0.7],
        "n_units": [10, 10],
        "paper": [0.655, np.nan],
    }
)


def test_any_table_has_its_labels_left_its_numbers_right_and_its_verdicts_below():
    lines = headline_table(AGREEMENT, ("label",), ["cross agrees better"]).splitlines()
    assert lines[0].split("  ")[0] == "label"
    assert lines[2].split() == ["cross", "0.655", "[0.500,", "0.750]", "10", "0.655"]
    assert lines[3].endswith("10      —")
    assert len(lines[2]) == len(lines[3]) == len(lines[1])
    assert "\x1b" not in "\n".join(lines)
    assert lines[4:] == ["", "- cross agrees better"]


def test_the_headline_of_a_deletion_campaign_is_its_summary_and_of_others_any_table():
    summary = deletion_data()[0]["summary"]
    deletion = Results({"summary": summary}, ("v",))
    assert results_table(deletion) == summary_table(summary, ("v",))
    other = Results({"agreement": AGREEMENT}, ("v",), headline="agreement", labels=("label",))
    assert results_table(other) == headline_table(AGREEMENT, ("label",), ("v",))


def test_an_empty_headline_table_has_its_verdicts_only():
    assert headline_table(pd.DataFrame(), (), ["v"]) == "\n- v"


def test_failed_checks_stand_above_the_verdicts_and_cautions_below_and_control_characters_do_not_reach_the_terminal():
    checks = [
        Check("queries", "caution", "There are \x1b[31m2 queries."),
        Check("accuracy", "failed", "Right on 27%. " * 20, reason="chance"),
        Check("scores", "passed", "Every method ranks."),
    ]
    text = summary_table(deletion_data()[0]["summary"], ["The verdict."], checks=checks)
    lines = text.splitlines()
    places = [lines.index(part) for part in (FAILED, "- The verdict.", CAUTION, "! queries: There are ?[31m2 queries.")]
    assert places == sorted(places)
    assert lines[-1] == "Of 3 checks, 1 failed, 1 asks for caution, 1 passed (checks.csv)."
    assert "Every method ranks." not in text
    assert all(len(line) <= 100 for line in lines[lines.index(FAILED) :])
    table = headline_table(AGREEMENT, ["label"], ["The verdict."], checks=checks).splitlines()
    assert table[5:] == lines[lines.index(FAILED) :]


def test_sentences_in_short_stand_between_failed_checks_and_the_table_and_the_comparisons_are_counted():
    checks = (
        Check("repeats", "caution", "There are 2 repeats."),
        Check("controls", "failed", "A control moves.", reason="a control moves"),
        Check("accuracy", "passed", "Right on 90%."),
    )
    summary = deletion_data()[0]["summary"]
    results = Results({"summary": summary}, ("v", "w"), checks=checks, in_short=("Found \x1b[31m it.",))
    lines = results_table(results).splitlines()
    counted = "All 2 comparisons are in the report in words, and in contrasts.csv in numbers."
    order = [FAILED, "In short:", "- Found ?[31m it.", "- Right on 90%.", summary_table(summary, ()).splitlines()[0]]
    places = [lines.index(part) for part in (*order, counted, CAUTION, "! repeats: There are 2 repeats.")]
    assert places == sorted(places)
    assert "- v" not in lines


def test_the_query_that_a_removal_changed_most_is_found():
    curves = pd.DataFrame({"query_id": [3, 5, 7], "delta": [0.1, -0.4, np.nan]})
    assert most_moved_query(Results({"query_curves": curves}, ())) == "5"
    named = curves.assign(given_query_id=["a", "b\x1b", "c"])
    assert most_moved_query(Results({"query_curves": named}, ())) == "b?"
    for table in ({}, {"query_curves": curves.iloc[2:]}, {"query_curves": curves.iloc[:0]}):
        assert most_moved_query(Results(table, ())) == ""
