import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from campaign_views import CLASSES, debias_view, leave_one_out_view
from report_data import HOSTILE, report_data

from orchestrator.campaigns.debias.figures import effects_svg
from orchestrator.campaigns.debias.page import cause, debias_sections, pivots, side_by_side, spans
from orchestrator.campaigns.debias.page_view import Sentence
from orchestrator.campaigns.leave_one_out.figures import POINTS_SHOWN, scatter_svg, slope
from orchestrator.campaigns.leave_one_out.page import chosen, correlations, leave_one_out_sections
from orchestrator.campaigns.leave_one_out.page_view import DrawnComparison
from orchestrator.report.data import Section
from orchestrator.report.ready_made import table_sections
from orchestrator.report.render import page, write_report


def texts(svg):
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def rendered(sections):
    """The page's visible text and its source, without figures."""
    bare = [replace(section, figures={}) for section in sections]
    source = page(replace(report_data(), sections=bare, holes=None))
    body = re.sub(r"<(style|script)>.*?</\1>", "", source, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split()), source


@pytest.fixture(scope="module")
def loo():
    view = leave_one_out_view(n=12)
    return view, leave_one_out_sections(view)


@pytest.fixture(scope="module")
def debias():
    view = debias_view()
    return view, debias_sections(view)


def figures_of(sections):
    return {name: svg for section in sections for name, svg in section.figures.items()}


# --- leave one out -----------------------------------------------------------------------------------------------


def test_agreement_stands_beside_the_paper_and_every_comparison_is_drawn(loo):
    _, sections = loo
    assert [section.id for section in sections] == ["agreement", "scatter", "correlations", "mixture"]
    text, _ = rendered(sections)
    assert "cross-loss NLL retraining 0.600 [0.500, 0.700] 0.700 0.700 0.655 12.50 2 " in text
    assert "tfidf NLL retraining 0.200 [0.100, 0.300] 0.300 0.300 — 12.50 2 " in text
    assert "All columns" in text
    drawn = figures_of(sections)
    assert sorted(drawn) == ["correlations", *(f"{kind}-{i}" for kind in ("mixture", "scatter") for i in (0, 2, 4))]
    assert set(CLASSES) <= {one.strip() for one in texts(drawn["scatter-0"])}


def test_figures_are_the_same_bytes_every_time(loo):
    view, sections = loo
    assert figures_of(leave_one_out_sections(view)) == figures_of(sections)


def test_without_a_plane_there_is_no_map_and_without_comparisons_no_figure():
    view = leave_one_out_view(n=8, units=("0",))
    wide = replace(view, features=np.zeros((24, 3)))
    assert [section.id for section in leave_one_out_sections(wide)] == ["agreement", "scatter", "correlations"]
    bare = leave_one_out_sections(replace(view, comparisons=()))
    assert [section.id for section in bare] == ["agreement"]


def test_correlation_and_slope_are_those_of_the_finite_pairs():
    actual = np.array([[1.0, 2.0, 4.0, np.nan], [1.0, 1.0, 1.0, 1.0]])
    predicted = np.array([[50.0, 90.0, 170.0, 7.0], [1.0, 2.0, 3.0, 4.0]])
    one = DrawnComparison("m", "0", predicted, actual, [1, 2], [1, 2, 3, 4])
    r = correlations(one)
    assert r[0] == pytest.approx(1.0)
    assert np.isnan(r[1])
    assert slope(predicted[0], actual[0]) == pytest.approx(40.0)
    assert np.isnan(slope(predicted[1], actual[1]))


def test_queries_of_low_middle_and_high_correlation_are_drawn():
    r = np.array([0.9, 0.1, np.nan, 0.5, 0.4, 0.95, 0.2, 0.55, 0.7, 0.3])
    assert r[chosen(r)].tolist() == [0.1, 0.2, 0.4, 0.5, 0.9, 0.95]
    assert chosen(np.array([0.3, np.nan, 0.1])) == [2, 0]


def test_a_panel_says_its_correlation_and_its_slope():
    x = np.linspace(-1, 1, 20)
    svg = scatter_svg("s", 400 * x[None], x[None], ["query 7"], [1.0])
    assert {"query 7", "r 1.00, slope 400", "best fit", "predicted = actual"} <= set(texts(svg))


def test_a_large_train_set_does_not_make_a_large_figure():
    rng = np.random.default_rng(0)
    predicted, actual = rng.normal(size=(2, 1, 20_000))
    svg = scatter_svg("s", predicted, actual, ["q"], [0.0])
    assert svg.count("<use ") < POINTS_SHOWN + 100


def test_queries_without_any_number_are_counted_and_not_drawn():
    view = leave_one_out_view(n=8, units=("0",))
    lost = replace(view.comparisons[0], actual=np.full((24, 24), np.nan))
    sections = leave_one_out_sections(replace(view, comparisons=[lost, view.comparisons[1]]))
    assert set(sections[1].figures) == {"scatter-1"}
    assert "24 queries have no correlation" in sections[2].data["items"][0]["caption"]


# --- debias ------------------------------------------------------------------------------------------------------


def test_the_sections_of_a_debias_campaign(debias):
    view, sections = debias
    assert [section.id for section in sections] == [
        *["effects", "directions", "grid", "sentences", "neighbours", "refused"],
    ]
    text, _ = rendered(sections)
    assert "algebra 0.71, physics 0.66" in text
    assert "3 of 8 attribute words B occur in the corpus" in text
    empty = replace(view, sentences=(), neighbours=(), refused=(), grid=pd.DataFrame(), directions=pd.DataFrame())
    assert [section.id for section in debias_sections(empty)] == ["effects"]


def test_held_out_effects_stand_beside_those_chosen_on_the_test():
    rows = [
        ("math", "original", "all", "", 0.5),
        ("math", "original", "halves", "", 0.45),
        ("math", "ours", "held_out", "undo 5 x 5", 0.2),
        ("math", "ours", "chosen", "undo 10 x 5", 0.1),
        ("math", "ours", "chosen_per_seed", "", 0.05),
    ]
    effects = pd.DataFrame(rows, columns=["test", "variant", "half", "setting", "effect"])
    effects = effects.assign(ci_low=effects.effect - 0.1, ci_high=effects.effect + 0.1, n_seeds=5, extra="x")
    table = side_by_side(effects).set_index("variant")
    assert table["held_out"].to_dict() == {"original": 0.45, "ours": 0.2}
    assert table["whole_test"].to_dict() == {"original": 0.5, "ours": 0.1}
    assert table.loc["ours", "setting"] == "undo 5 x 5"
    assert table.loc["ours", "setting_on_whole_test"] == "undo 10 x 5"
    assert table.loc["ours", "chosen_per_seed"] == 0.05
    assert table.loc["ours", "held_out_ci_high"] == pytest.approx(0.3)
    assert "paper" not in table


def test_effects_without_halves_are_drawn_and_told_as_they_are(debias):
    view, _ = debias
    whole = view.effects.loc[view.effects["half"].isin(["all", "chosen"])]
    table = side_by_side(whole)
    assert "held_out" not in table
    assert table["whole_test"].notna().all()
    assert "the whole test" in texts(effects_svg(whole))
    assert "words on which nothing was chosen" in texts(effects_svg(view.effects))


def test_the_effects_figure_is_the_same_bytes_and_names_every_test_and_variant(debias):
    view, _ = debias
    svg = effects_svg(view.effects)
    assert effects_svg(view.effects) == svg
    assert {*view.effects["test"], "original", "hard debiased", "ours", "ours after hard"} <= set(texts(svg))


def test_the_cause_names_the_words_that_pull_the_sentence_s_way_first():
    words = [("calculus", "a", -0.001), ("he", "x", 0.004), ("math", "a", 0.02)]
    told = cause(Sentence("math", "A", 1, 7, "", 0.1, words))
    assert told == (
        "Adds to the bias through math (attribute A, +0.02) and he (target X, +0.004); "
        "against it: calculus (attribute A, −0.001)."
    )
    told = cause(Sentence("math", "M", 1, 7, "", -0.1, words))
    assert told.startswith("Takes from the bias through calculus (attribute A, −0.001); against it: math")
    assert cause(Sentence("math", "A", 1, 7, "", 0.1)).startswith("Holds no word of the test")


def test_words_are_found_as_whole_words_in_any_case():
    assert spans("He and the hero: HE.", [("he", "x", 1.0)]) == [(0, 2, 1.0), (17, 19, 1.0)]
    assert spans("a c++ b", [("c++", "a", 2.0)]) == [(2, 5, 2.0)]


def test_the_grid_has_a_table_per_test_and_action_with_the_value_nearest_zero_marked(debias):
    view, _ = debias
    found = pivots(view.grid)
    assert len(found) == 3 * 3
    for one in found:
        cells = [cell for row in one["rows"] for cell in row["cells"]]
        assert sum(cell["best"] for cell in cells) == 1
    rows = view.grid.query("corrected == 'gender-math' and test == 'gender-math' and action == 'undo'")
    best = rows.loc[rows["effect"].abs().idxmin()]
    (row,) = [row for row in found[3]["rows"] if row["size"] == best["size"]]
    assert row["cells"][found[3]["passes"].index(best["passes"])]["best"]


def test_a_grid_of_several_seeds_is_a_plain_table():
    grid = pd.DataFrame({"test": "a", "seed": [0, 1], "size": 5, "passes": 1, "effect": [0.1, 0.2]})
    assert pivots(grid) == []
    assert pivots(grid.drop(columns="effect")) == []


def test_sentences_words_and_reasons_are_text(debias):
    view, _ = debias
    nasty = replace(
        view,
        neighbours=[(HOSTILE, [(HOSTILE, 0.5)])],
        refused=[(HOSTILE, HOSTILE)],
        names={"gender-math": {"x": HOSTILE}},
    )
    text, source = rendered(debias_sections(nasty))
    assert "<script>alert" not in source
    assert source.count("<script") == 1
    assert "&lt;<mark" in source
    assert "{{7*7}}" in text


# --- any campaign ------------------------------------------------------------------------------------------------


def test_a_campaign_without_sections_of_its_own_shows_every_table_the_headline_first():
    tables = {"points": pd.DataFrame({"test": ["<b>x"] * 250, "r": 0.5}), "summary": pd.DataFrame({"test": ["a"]})}
    sections = table_sections({**tables, "none": pd.DataFrame()}, ("test",), "summary")
    assert [section.id for section in sections] == ["table-summary", "table-points", "table-none"]
    text, source = rendered(sections)
    assert "&lt;b&gt;x" in source
    assert "The first 200 of 250 rows" in text
    assert "The table is empty." in text


def test_anchors_and_names_of_sections_are_in_the_list_of_sections(loo, debias):
    for _, sections in (loo, debias):
        _, source = rendered(sections)
        for section in sections:
            assert f'<h2 id="{section.id}">' in source
            assert f'<a href="#{section.id}">{section.nav or section.title}</a>' in source


def test_two_figures_of_one_name_are_refused(tmp_path):
    twice = [Section(f"s{i}", "s", "figures.html.jinja", {"intro": "", "items": []}, {"f": "<svg/>"}) for i in (0, 1)]
    with pytest.raises(ValueError, match="figure named 'f'"):
        write_report(replace(report_data(), sections=twice), tmp_path)


def test_a_campaign_that_keeps_no_list_of_holes_says_nothing_about_them():
    text, source = rendered([])
    assert '<h2 id="failures">Failures</h2>' in source
    assert "cell" not in text.partition("How to reproduce")[0].partition("Failures")[2].lower().replace("cells", "")
