import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from report_data import HOSTILE, METHODS, deletion_data, query_page, report_data

from orchestrator.analysis import tables
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.checks import CAUTION, FAILED, Check
from orchestrator.report.render import page as page_of
from orchestrator.report.render import write_report

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a browser would see: the tags in order, the text, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.scripts, self.attributes = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


def rendered(data):
    text = page_of(data)
    page = Page(text)
    assert page.open == []
    return page, text


def test_the_page_holds_every_section_in_order():
    page, text = rendered(report_data(n_queries=2, drawn=True))
    sections = re.findall(r'<h2 id="(\w+)"', text)
    assert sections == [
        "verdict",
        "caveats",
        "asked",
        "cards",
        "curves",
        "auc",
        "contrasts",
        "pairing",
        "queries",
        "failures",
        "cost",
        "reproduce",
        "provenance",
    ]
    anchors = {value.removeprefix("#") for value in page.values("href") if value.startswith("#")}
    assert anchors <= set(page.values("id"))
    assert page.tags.count("svg") == 3 + 2


def test_what_the_tables_say_is_on_the_page():
    data = report_data()
    page, _ = rendered(data)
    for verdict in data.verdicts:
        assert verdict in page.text
    assert "−0.0413 [−0.0" in page.text
    for method in METHODS:
        assert method in page.text
    assert "0.032" in page.text
    assert "conditional on it" in page.text
    assert "refit verify runs/bbc-quickstart-0123456789abcdef --rerun 3" in page.text
    assert "versions.torch" in page.text
    assert "2.13.0" in page.text


def test_both_intervals_are_in_the_summary_table():
    options = {"methods": ("one",), "groups": ("proponents",)}
    summary = deletion_data(**options)[0]["summary"]
    summary.loc[0, ["auc_del", "ci_low", "ci_high", "ci_fixed_low", "ci_fixed_high"]] = [
        -0.5,
        -0.75,
        -0.25,
        -0.625,
        -0.375,
    ]
    page, _ = rendered(report_data({"summary": summary}, **options))
    assert "−0.5000 [−0.7500, −0.2500] [−0.6250, −0.3750]" in page.text


def test_checks_stand_in_the_box_of_the_verdicts_and_all_of_them_in_a_table():
    checks = [
        Check("accuracy", "failed", "Right on 27%.", reason="the models are at chance"),
        Check("few_queries", "caution", "There are 2 queries."),
        Check("scores", "passed", "Every method ranks."),
        Check("leaked", "not_checked", "No texts."),
    ]
    data = replace(report_data(), checks=checks)
    page, text = rendered(data)
    box = text[text.index('<section class="verdict') : text.index("</section>")]
    places = [box.index(part) for part in (FAILED, "Right on 27%.", data.verdicts[0], CAUTION, "There are 2 queries.")]
    assert places == sorted(places)
    assert "Few queries." in page.text
    assert not [sentence for sentence in ("Every method ranks.", "No texts.") if sentence in box]
    table = text[text.index('<h2 id="checks">') :]
    assert all(check.sentence in table for check in checks)
    assert "#checks" in page.values("href")


def test_without_a_failed_check_nothing_is_taken_back():
    page, text = rendered(replace(report_data(), checks=[Check("queries", "caution", "There are 2 queries.")]))
    assert FAILED not in page.text
    assert "unreliable" not in re.findall(r'class="([^"]*)"', text)
    assert CAUTION in page.text
    assert CAUTION not in rendered(report_data())[0].text


def test_user_text_is_text():
    rng = np.random.default_rng(0)
    data = replace(
        report_data(methods=(HOSTILE, "random"), queries=[query_page(rng, 7, [HOSTILE], hostile=True)]),
        name=HOSTILE,
        campaign=HOSTILE,
        notes=[HOSTILE],
        verdicts=[HOSTILE],
        asked=[(HOSTILE, HOSTILE)],
        reproduce=[HOSTILE],
        provenance={HOSTILE: {HOSTILE: [HOSTILE]}},
        checks=[Check(HOSTILE, "caution", HOSTILE), Check(HOSTILE, "failed", HOSTILE, reason=HOSTILE)],
        failures=pd.DataFrame([{"spec_id": HOSTILE, "status": "quarantined", "attempts": 1, "error": HOSTILE}]),
    )
    page, text = rendered(data)
    assert "<script>alert(1)</script> {{7*7}} {% raw %}" in page.text
    assert "<script>alert" not in text
    assert page.tags.count("script") == 1
    assert "alert" not in "".join(page.scripts)
    assert "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "49" not in re.findall(r"\{\{7\*7\}\}|\b49\b", page.text)


def test_hostile_labels_of_classes_and_words_are_text():
    data, (query,) = report_data(), deletion_data()[1]
    example = query.examples["tracin_we"]["proponents"][0]
    nasty = replace(
        example,
        label=HOSTILE,
        words=[(HOSTILE, HOSTILE, 1.0), (HOSTILE, "b", 0.5)],
        text=HOSTILE,
        train_spans=[(0, 8, 1.0), (8, 30, -1.0)],
    )
    query = replace(query, label=HOSTILE, predicted=HOSTILE, examples={"tracin_we": {"proponents": [nasty]}})
    card = [{**data.data_card[0], "split": HOSTILE, "classes": {HOSTILE: 3}}]
    page, text = rendered(replace(report_data(queries=[query]), data_card=card))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert "&lt;script&gt;</mark>" in text


def test_nothing_is_fetched_and_only_the_page_s_own_script_may_run():
    page, text = rendered(report_data(drawn=True))
    fetched = [value for name in ("src", "href", "xlink:href", "action") for value in page.values(name)]
    assert all(value.startswith(("#", "data:")) for value in fetched)
    assert not re.search(r"@import|url\((?!#)", text)
    policy = next(value for value in page.values("content") if value and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy


def test_the_same_data_give_the_same_bytes(tmp_path):
    write_report(report_data(drawn=True), tmp_path / "a")
    write_report(report_data(drawn=True), tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert [str(path) for path in files] == [
        "figures/accuracy.svg",
        "figures/auc-del.svg",
        "figures/curves.svg",
        "figures/query-7.svg",
        "report.html",
    ]
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)


def test_words_are_marked_in_both_texts_by_sign_and_size():
    (query,) = deletion_data()[1]
    example = replace(
        query.examples["tracin_we"]["proponents"][0],
        text="good bad",
        train_spans=[(0, 4, 0.5), (5, 8, -0.25)],
        query_spans=[(6, 10, 0.125)],
        words=[("good", "good", 0.5), ("bad", "bad", -0.25)],
    )
    query = replace(query, text="asked good", examples={"tracin_we": {"proponents": [example], "opponents": []}})
    _, text = rendered(report_data(queries=[query]))
    assert '<mark class="h5" title="+0.5">good</mark> <mark class="x3" title="−0.25">bad</mark>' in text
    assert 'asked <mark class="h5" title="+0.125">good</mark>' in text
    assert '<mark class="x3">bad</mark> −0.25' in text


def test_long_texts_are_behind_an_expander_in_full():
    words = " ".join(f"word{i}" for i in range(600))
    (query,) = deletion_data()[1]
    page, _ = rendered(report_data(queries=[replace(query, text=words, examples={})]))
    assert "530 more words" in page.text
    assert "word599" in page.text


@pytest.mark.parametrize("methods", [("only",), tuple(f"m{i}" for i in range(12))])
def test_one_method_and_twelve(methods, tmp_path):
    page, _ = rendered(report_data(methods=methods))
    assert all(method in page.text for method in methods)


def test_empty_parts_say_so():
    nothing = pd.DataFrame()
    data = replace(
        report_data({"contrasts": nothing, "pairing": nothing, "query_curves": nothing}, queries=[]),
        failures=nothing,
        holes=nothing,
        verdicts=[],
        notes=[],
        cost=[],
        accuracies=[],
        provenance={},
        reproduce=[],
        data_card=[],
        model_card=[],
    )
    page, text = rendered(data)
    for sentence in (
        "No retrain failed or diverged.",
        "No cell was left out",
        "No query pages were asked for.",
        "No contrasts:",
        "no comparison could be made",
    ):
        assert sentence in page.text
    assert 'id="caveats"' not in text


def test_no_tables_at_all_still_make_a_page():
    nothing = pd.DataFrame()
    tables = dict.fromkeys(("curves", "query_curves", "summary", "contrasts"), nothing)
    page, _ = rendered(report_data(tables, drawn=True))
    assert "svg" not in page.tags


def test_a_query_without_opponents_and_missing_numbers():
    tables, (query,) = deletion_data()
    tables["summary"]["ci_low"] = np.nan
    examples = {"tfidf": {"proponents": query.examples["tfidf"]["proponents"]}}
    page, _ = rendered(report_data(tables, queries=[replace(query, examples=examples, probability=float("nan"))]))
    assert "opponents None." in page.text
    assert "P(gold) —" in page.text
    assert "nan" not in re.findall(r"\b[Nn]a[Nn]\b", page.text)


def test_many_holes_are_counted_and_the_first_listed():
    holes = pd.DataFrame([{"method": "tfidf", "group": "proponents", "query_id": q, "repeat": 0} for q in range(1234)])
    page, text = rendered(replace(report_data(), holes=holes))
    assert "Cells that could not be used: 1 234, of which the first 40 are listed." in page.text
    assert text.count('<th>tfidf</th><td>proponents</td><td class="num">3') <= 12


def test_a_page_is_replaced_whole(tmp_path):
    write_report(report_data(), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "report.html").write_text("older")
    write_report(report_data(), tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_contrasts_stand_in_their_families_with_what_needs_no_normal_distribution():
    rng = np.random.default_rng(1)
    delta = 0.1 * rng.normal(size=(4, 1, 2, 9, 3))
    delta[0] -= 1
    cells = Cells(("good", "b", "random", "same_label"), ("proponents",), (5, 9), range(9), range(3), delta,
                  controls=("random", "same_label"))  # fmt: skip
    found = {"summary": tables.summary(cells), "contrasts": tables.contrasts(cells)}
    page, _ = rendered(report_data(found, queries=[], methods=cells.methods, groups=cells.groups))
    _, _, shown = page.text.partition("p, Holm p, sign flips")
    control, _, pairs = shown.partition("Pairs of methods")
    assert control.index("Methods against a control") < control.index("good random proponents")
    assert "good same_label proponents" in control
    assert "good b proponents" not in control
    assert "good b proponents" in pairs
    assert "0.004 1.00 [0.66, 1.00]" in control  # 2^-8; nine of nine queries moved, by Clopper and Pearson
