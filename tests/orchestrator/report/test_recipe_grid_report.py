import re
from dataclasses import replace

import numpy as np
import pytest
from grid_views import ARMS, RULE, made_grid
from report_data import report_data

from orchestrator.campaigns.recipe_grid.page import recipe_grid_sections
from orchestrator.campaigns.recipe_grid.page_tables import ROWS_SHOWN, options_text
from orchestrator.report.render import page, write_report

FAILING = [("influence", 0.05, (0, 3)), ("adversarial", None, (4,))]


def shown(tables, view):
    """id -> section, without figures where `drawn` is not asked for."""
    return {section.id: section for section in recipe_grid_sections(tables, view)}


def text_of(sections):
    bare = [replace(section, figures={}) for section in sections]
    source = page(replace(report_data(), sections=bare, holes=None))
    body = re.sub(r"<(style|script)>.*?</\1>", "", source, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def rows_of(columns):
    return [
        dict(zip([c.title for c in columns], row, strict=True)) for row in zip(*(c.cells for c in columns), strict=True)
    ]


@pytest.fixture(scope="module")
def whole():
    made = made_grid(n_settings=3, levels=(0.05, 1.0), failing=FAILING, steps=(25, 50), n_probes=5)
    return *made, shown(*made)


def test_a_searched_and_ablated_grid_has_every_section_and_its_figures_are_files(whole, tmp_path):
    _, _, sections = whole
    assert list(sections) == ["accuracy", "levels", "cid", "influence", "failed", "search"]
    write_report(replace(report_data(), sections=list(sections.values()), holes=None), tmp_path)
    assert {p.stem for p in (tmp_path / "figures").iterdir()} == {"accuracy", "levels", "cid", "influence"}
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_sections_without_data_are_left_out():
    tables, view = made_grid(ARMS[:2], steps=())
    assert list(shown(tables, view)) == ["accuracy", "failed"]
    assert list(shown(tables | {"accuracy": tables["accuracy"].iloc[:0]}, view)) == ["failed"]
    unknown = made_grid(ARMS[:2])[0]["cid"].assign(cid=np.nan)
    assert "cid" not in shown(tables | {"cid": unknown}, view)


def test_the_accuracy_table_says_what_the_tables_say(whole):
    tables, _, sections = whole
    rows = rows_of(sections["accuracy"].data["columns"])
    one = tables["accuracy"].query("arm == 'influence' and level == 0.05").iloc[0]
    (said,) = [row for row in rows if (row["arm"], row["access rate"]) == ("influence", "0.05")]
    assert (said["trials"], said["failed"]) == ("5", "2")
    assert said["test"] == f"{one['test']:.3f}"
    assert said["test 95% CI"] == f"[{one['ci_low']:.3f}, {one['ci_high']:.3f}]"
    assert {"difference", "difference 95% CI", "p", "p Holm", "paper"} <= set(said)
    assert said["setting"].startswith("learning_rate ")
    assert [row["arm"] for row in rows] == [*ARMS[:2], *["influence"] * 2, *["embedding"] * 2, "no_spurious"]
    assert (rows[0]["difference"], rows[0]["access rate"]) == ("—", "—")


def test_without_a_search_or_levels_no_column_speaks_of_them():
    tables, view = made_grid(ARMS[:3], paper=False)
    titles = [column.title for column in shown(tables, view)["accuracy"].data["columns"]]
    assert not {"setting", "options", "level", "paper"} & set(titles)


def test_the_table_by_level_counts_failed_trials(whole):
    tables, _, sections = whole
    rows = rows_of(sections["levels"].data["columns"])
    assert [row["access rate"] for row in rows] == ["0.05", "1"]
    assert rows[0]["influence"].endswith(", 2 failed")
    one = tables["accuracy"].query("arm == 'embedding' and level == 1").iloc[0]
    assert rows[-1]["embedding"] == f"{one['test']:.3f} [{one['ci_low']:.3f}, {one['ci_high']:.3f}]"


def test_the_last_influence_difference_of_every_arm_is_told_after_its_round():
    tables, view = made_grid(ARMS[:3], steps=(25, 50), n_probes=5)
    rows = rows_of(shown(tables, view)["cid"].data["columns"])
    assert [(row["arm"], row["step"], row["stage"]) for row in rows] == [
        ("finetuning", "50", "update"),
        ("adversarial", "50", "update"),
        ("influence", "50", "round"),
    ]
    last = tables["cid"].query("arm == 'influence' and stage == 'round'").iloc[-1]
    assert float(rows[2]["mean difference"].replace("−", "-")) == pytest.approx(last["cid"], abs=1e-3)


def test_failed_trials_are_counted_by_status_and_listed(whole):
    _, _, sections = whole
    data = sections["failed"].data
    assert data["pairs"] == [("Rule", RULE)]
    rows = {(row["arm"], row["access rate"]): row for row in rows_of(data["columns"])}
    assert rows["influence", "0.05"] == {
        "arm": "influence",
        "access rate": "0.05",
        "trials": "15",
        "ok": "9",
        "failed": "6",
        "diverged": "0",
        "quarantined": "0",
    }
    details = {one["title"]: rows_of(one["columns"]) for one in data["details"]}
    assert len(details["By setting"]) == 3 + 3  # three settings of one level of influence, three of adversarial
    assert len(details["Every failed trial"]) == 3 * 2 + 3
    assert {row["status"] for row in details["Every failed trial"]} == {"failed"}
    quiet = shown(*made_grid(ARMS[:2], steps=()))["failed"]
    assert (quiet.data["details"], quiet.data["notes"]) == ([], ["None of 10 trials failed."])


def test_the_search_marks_one_chosen_setting_per_arm_and_level(whole):
    tables, _, sections = whole
    details = sections["search"].data["details"]
    assert [one["title"].split(",")[0] for one in details] == list(ARMS)
    picked = tables["settings"].query("arm == 'finetuning' and chosen").iloc[0]
    assert details[0]["title"] == f"finetuning, 3 settings, chosen: {options_text(picked['options'])}"
    for one in details:
        rows = rows_of(one["columns"])
        levels = [row.get("access rate") for row in rows if row["chosen"] == "chosen"]
        assert len(levels) == len(set(levels)) == len({row.get("access rate") for row in rows})
    assert "access_rate" not in text_of([sections["search"]])


def test_a_long_list_of_settings_is_cut_and_says_where_the_rest_is():
    tables, view = made_grid(("finetuning",), n_settings=ROWS_SHOWN + 5, seeds=(1, 2), steps=())
    sections = shown(tables, view)
    assert f"The first {ROWS_SHOWN} of {ROWS_SHOWN + 5} rows; all are in results/settings.csv" in text_of(
        [sections["search"]]
    )


def test_a_grid_of_one_arm_whose_trials_all_failed_is_told():
    tables, view = made_grid(("only",), failing=[("only", None, (0, 1, 2, 3, 4))])
    sections = shown(tables, view)
    assert list(sections) == ["accuracy", "failed"]
    text = text_of(sections.values())
    assert "5 of 5 trials failed, diverged or were quarantined" in text
    assert "Difference:" not in text


def test_a_level_called_like_a_column_keeps_its_own_name():
    tables, view = made_grid(ARMS[:3], levels=(0.5, 1.0), steps=())
    failed = shown(tables, replace(view, ablate="data.seed"))["failed"].data["columns"]
    assert [column.title for column in failed][:2] == ["arm", "seed"]
    sections = shown(tables, replace(view, ablate="data.test"))
    assert [column.title for column in sections["accuracy"].data["columns"]][:2] == ["arm", "level"]


def test_options_are_said_by_the_last_part_of_their_key_where_that_is_clear():
    assert options_text('{"recipe.learning_rate":2e-05,"recipe.epochs":10}') == "learning_rate 2e-05, epochs 10"
    assert options_text('{"a.lr":0.1,"b.lr":0.2,"c.on":true,"d.x":null}') == "a.lr 0.1, b.lr 0.2, on true, x null"
    assert (
        options_text('{"recipe.access_rate":1.0,"recipe.optimizer":"adam"}', "recipe.access_rate") == "optimizer adam"
    )
    assert (options_text(""), options_text("{}")) == ("", "")
