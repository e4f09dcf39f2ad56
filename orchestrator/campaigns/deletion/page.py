"""The report sections of a deletion campaign: curves, AUC-DEL, contrasts, pairing, and a page per query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.campaigns.deletion.candidates import Candidates
from orchestrator.campaigns.deletion.correct import are_mistakes, correct_note
from orchestrator.campaigns.deletion.word_edits import SIDES
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.report import figures
from orchestrator.report.canvas import unique
from orchestrator.report.data import CampaignPage, QueryPage, Section

if TYPE_CHECKING:
    from orchestrator.campaigns.plan import Plan

EXAMPLE_GROUPS = ("proponents", "opponents")
EXPLAINED = (
    "A method scores every training example by how much it helped a query. The claim is tested by removing the k "
    "examples with the highest scores (proponents) or the lowest (opponents), training again with the same seed, and "
    "measuring how the query's outcome changed. Where a method is right, removing proponents lowers the measurement "
    "and removing opponents raises it."
)
EXPLAINED_WORDS = (
    " In the groups opponent_words and proponent_words the k examples stay, and in each of them one word is replaced: the one that "
    "contributes most to its score, by the word decomposition of TracIn on word embeddings. A control replaces a random word."
)
_REPLACED = {
    "pad": "padding, which is hidden from attention",
    "unknown": "the token for unknown words",
    "mask": "the tokeniser's mask token",
}
_EDITS = {
    "mask": "a removed example keeps its slot with weight zero",
    "drop": "batches are rebuilt without the removed examples",
}
_CANDIDATES = "per query, the {:,} training examples that have the least TF-IDF similarity to it"


def deletion_page(
    finished: FinishedRun, mode: str, candidates: Candidates | None = None, replace_by: str = "pad"
) -> CampaignPage:
    """Return a deletion campaign's part of the report, from the ledger, the scores and the result tables."""
    from orchestrator.campaigns.deletion.query_pages import query_pages

    return CampaignPage(
        _asked(finished, mode, candidates, replace_by),
        EXPLAINED + (EXPLAINED_WORDS if _replaces(finished) else ""),
        deletion_sections(
            finished.results.tables,
            query_pages(finished, finished.rows, candidates),
            mistakes=are_mistakes(finished.experiment),
        ),
        _notes(finished),
        _cost(finished),
    )


def deletion_sections(
    tables: Mapping[str, pd.DataFrame], queries: Sequence[QueryPage], *, mistakes: bool = False
) -> list[Section]:
    """Return the sections of the tables `curves`, `summary`, `contrasts` and `pairing`, and the query pages with their `query_curves`.

    With adaptive repeats there is also a section of the tables `repeats` and `designs`, and for the measurement `correct` one of the table
    `correct`. `mistakes`: the queries were chosen because the scoring model is wrong about them.
    """
    curves, summary = tables["curves"], tables["summary"]
    groups = unique(summary, "group")
    return [
        Section(
            "curves",
            "Deletion curves",
            _template("curves"),
            {"curves": curves, "groups": groups},
            {"curves": figures.curves_svg(curves), **_accuracy_figure(curves)} if len(curves) else {},
        ),
        Section(
            "auc",
            "AUC-DEL",
            _template("auc"),
            {"summary": summary, "groups": groups},
            {"auc-del": figures.forest_svg(summary)} if len(summary) else {},
        ),
        Section("contrasts", "Contrasts", _template("contrasts"), {"contrasts": tables["contrasts"]}),
        *_correct(tables, mistakes=mistakes),
        *_repeats(tables),
        Section("pairing", "What pairing saves", _template("pairing"), {"pairing": tables["pairing"]}, nav="Pairing"),
        Section(
            "queries",
            "Queries, one by one",
            _template("queries"),
            {"queries": queries, "example_groups": EXAMPLE_GROUPS},
            _query_figures(tables["query_curves"], queries, unique(curves, "method")),
            nav="Queries",
        ),
    ]


def _correct(tables: Mapping[str, pd.DataFrame], *, mistakes: bool) -> list[Section]:
    """Return the section on the share of correct answers, if it was measured."""
    if "correct" not in tables:
        return []
    table = tables["correct"]
    title = "Mistakes that are fixed" if mistakes else "Share of correct answers"
    data = {"correct": table, "note": correct_note(table, mistakes=mistakes)}
    return [Section("correct", title, _template("correct"), data, {"correct": figures.correct_svg(table)})]


def _accuracy_figure(curves: pd.DataFrame) -> dict[str, str]:
    """Return the figure of the changes of accuracy, if the task has an accuracy."""
    return {"accuracy": figures.accuracy_svg(curves)} if bool(curves["accuracy_delta"].notna().to_numpy().any()) else {}


def _repeats(tables: Mapping[str, pd.DataFrame]) -> list[Section]:
    """Return the section on adaptive repeats, if they are: the repeats of every curve, and the retrains of fixed designs."""
    if "repeats" not in tables:
        return []
    data = {"repeats": tables["repeats"], "designs": tables["designs"]}
    return [Section("repeats", "Adaptive repeats", _template("repeats"), data, nav="Repeats")]


def _template(name: str) -> Path:
    return Path(__file__).parent / "templates" / f"{name}.html.jinja"


def _query_figures(table: pd.DataFrame, queries: Sequence[QueryPage], methods: Sequence[str]) -> dict[str, str]:
    drawn = {}
    for query in queries:
        curves = table.loc[table["query_id"] == query.query_id] if len(table) else table
        if len(curves):
            drawn[f"query-{int(query.query_id)}"] = figures.query_svg(query.query_id, curves, methods)
    return drawn


def _replaces(finished: FinishedRun) -> bool:
    return not SIDES.keys().isdisjoint(finished.plan.groups)


def _asked(finished: FinishedRun, mode: str, candidates: Candidates | None, replace_by: str) -> list[tuple[str, str]]:
    experiment, plan = finished.experiment, finished.plan
    restricted = [("Candidates", _CANDIDATES.format(candidates.least_overlap))] if candidates else []
    replaced = [("Words are replaced by", _REPLACED[replace_by])] if _replaces(finished) else []
    steps = finished.scoring[0].work.keep_steps
    return [
        ("Campaign", "deletion: remove the top k training examples of a group, retrain, measure the query"),
        ("Methods", ", ".join(plan.methods)),
        ("Groups", ", ".join(plan.groups)),
        ("k", ", ".join(map(str, plan.ks))),
        *restricted,
        ("Edit", f"{mode} ({_EDITS[mode]})"),
        *replaced,
        ("Queries", f"{len(plan.query_ids)} of split {experiment.main.asked.split}"),
        ("Measurement", experiment.config.measurement.name),
        ("Repeats", _repeats_asked(plan)),
        ("Scoring models", f"{len(experiment.scoring_seeds)}, weights kept at steps {', '.join(map(str, steps))}"),
    ]


def _repeats_asked(plan: Plan) -> str:
    made, seeds, rule = len(plan.seeds), ", ".join(map(str, plan.seeds)), plan.stopping
    if rule is None:
        return f"{made} (seeds {seeds})"
    asked = f"{rule.least} to {rule.most}, until the seed interval of a curve is within 1.96 x {rule.target_se}"
    return f"{asked}; {made} were made (seeds {seeds})"


def _notes(finished: FinishedRun) -> list[str]:
    notes = []
    if len(finished.plan.seeds) == 1:
        notes.append(
            "There is one repeat: seed noise cannot be told from effect, so there are no intervals for these queries."
        )
    excluded = finished.results.n_excluded
    if excluded:
        notes.append(
            f"{excluded} (query, repeat) cells are incomplete for at least one method and were left out of every table, for all methods alike."
        )
    return notes


def _cost(finished: FinishedRun) -> list[tuple[str, str]]:
    plan = finished.plan
    naive = 2 * plan.n_requested
    return [
        ("Cells asked for", str(plan.n_requested)),
        ("Retrains if nothing were shared", f"{naive} (every cell and its reference)"),
        ("Distinct retrains", str(len(plan.works))),
        ("Saved by deduplication", f"{naive - len(plan.works)} ({1 - len(plan.works) / naive:.0%})"),
    ]
