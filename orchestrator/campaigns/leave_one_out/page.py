"""The report sections of a leave-one-out campaign: agreement, predicted against actual influence, correlations, examples in the plane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.leave_one_out import figures as drawn
from orchestrator.campaigns.leave_one_out.agreement import key_text
from orchestrator.campaigns.leave_one_out.block import LeaveOneOutBlock
from orchestrator.campaigns.leave_one_out.page_view import DrawnComparison, LeaveOneOutPageView
from orchestrator.report.columns import columns
from orchestrator.report.data import CampaignPage, Section
from orchestrator.report.numbers import number, rough

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = "figures.html.jinja"
PANELS, MOST_INFLUENTIAL = 6, 10
MAIN = (  # columns of the agreement table that are not folded
    *["mean_r", "ci_low", "ci_high"],
    "share_above",
    *["class_share", "class_share_ci_low", "class_share_ci_high", "paper"],
    *["over_median", "n_units"],
)


EXPLAINED = (
    "A method predicts what every training example does to every query. The prediction is tested by training again "
    "without each example in turn: positive influence means that the example helps, and that the query is worse off "
    "without it."
)


def leave_one_out_page(campaign: LeaveOneOutBlock, finished: FinishedRun) -> CampaignPage:
    """Return a leave-one-out campaign's part of the report."""
    experiment = finished.experiment
    asked = [("Campaign", experiment.settings.campaign), *campaign.asked(experiment, finished.plan)]
    return CampaignPage(asked, EXPLAINED, leave_one_out_sections(_view(finished, campaign.threshold)))


def _view(finished: FinishedRun, threshold: float) -> LeaveOneOutPageView:
    """Collect the tables, all comparisons, and the features of the examples of the first unit."""
    results = finished.results
    arm = next(iter(results.view.arms.values()))
    point_ids = results.view.point_ids[arm.label, "0"]
    found = results.view.comparisons
    comparisons = [
        DrawnComparison(
            key_text(one.key) if len({other.key for other in found if other.label == one.label}) > 1 else one.label,
            one.unit,
            one.predicted,
            one.actual,
            one.query_ids.tolist(),
            point_ids.tolist(),
            one.classes.tolist(),
            [arm.query_split.shown_id(number) for number in one.query_ids],
        )
        for one in found
    ]
    rows, queries = arm.train.rows_of(point_ids), arm.query_split
    placed, asked = arm.train.features, queries.features
    return LeaveOneOutPageView(
        results.tables["agreement"],
        comparisons,
        arm.train.classes,
        results.tables["agreement_classes"],
        results.tables["agreement_units"],
        features=None if placed is None else placed[rows],
        query_features=None if asked is None else asked[queries.rows_of(comparisons[0].query_ids)],
        train_labels=arm.train.labels[rows],
        labels=results.labels,
        threshold=threshold,
    )


def leave_one_out_sections(view: LeaveOneOutPageView) -> list[Section]:
    """Return the sections `agreement`, `scatter`, `correlations`, and, if the examples have two features, `mixture`."""
    found = [_agreement(view)]
    if view.comparisons:
        found += [_scatter(view), _correlations(view)]
    if _in_the_plane(view):
        found.append(_mixture(view))
    return found


def correlations(comparison: DrawnComparison) -> np.ndarray:
    """Return Pearson's r of predicted and actual influence per query, over the training examples that have both.

    float64 [n_queries]; NaN if one of the two does not vary, or fewer than two examples are left.
    """
    pairs = zip(np.asarray(comparison.predicted, float), np.asarray(comparison.actual, float), strict=True)
    return np.array([_pearson(p, a) for p, a in pairs])


def chosen(r: np.ndarray, n: int = PANELS) -> list[int]:
    """Return up to `n` queries by ascending correlation: a third each from the lowest, the middle and the highest."""
    order = [int(i) for i in np.argsort(r, kind="stable") if np.isfinite(r[i])]
    if len(order) <= n:
        return order
    third, middle = n // 3, (len(order) - n // 3) // 2
    return [*order[:third], *order[middle : middle + third], *order[-third:]]


def _pearson(predicted: np.ndarray, actual: np.ndarray) -> float:
    usable = np.isfinite(predicted) & np.isfinite(actual)
    if usable.sum() < 2:
        return float("nan")
    p, a = predicted[usable], actual[usable]
    p, a = p - p.mean(), a - a.mean()
    scale = np.sqrt((p**2).sum() * (a**2).sum())
    return float((p * a).sum() / scale) if scale > 0 else float("nan")


def _agreement(view: LeaveOneOutPageView) -> Section:
    labels = _labels(view, view.agreement)
    main = [name for name in (*labels, *MAIN) if name in view.agreement.columns]
    is_wide = len(main) > len(labels) and len(view.agreement.columns) > len(main)
    finer = [
        ("All columns", view.agreement if is_wide else None),
        ("By class of the query", view.by_class),
        ("By unit", view.by_unit),
    ]
    data = {
        "agreement": columns(view.agreement.loc[:, main] if is_wide else view.agreement, labels),
        "has_paper": "paper" in view.agreement.columns and bool(view.agreement["paper"].notna().to_numpy().any()),
        "threshold": f"{view.threshold:g}",
        "finer": [(title, columns(one, _labels(view, one))) for title, one in finer if one is not None and len(one)],
    }
    return Section("agreement", "Agreement with retraining", TEMPLATES / "page.html.jinja", data, nav="Agreement")


def _labels(view: LeaveOneOutPageView, table: pd.DataFrame) -> list[str]:
    texts = [str(name) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    return [*view.labels, *(name for name in texts if name not in view.labels)]


def _shown(view: LeaveOneOutPageView) -> list[tuple[str, DrawnComparison]]:
    """Return (short name, comparison) for the comparisons of the first unit."""
    unit = view.comparisons[0].unit
    return [(f"{i}", one) for i, one in enumerate(view.comparisons) if one.unit == unit]


def _scatter(view: LeaveOneOutPageView) -> Section:
    items, figures = [], {}
    for key, one in _shown(view):
        r = correlations(one)
        queries = chosen(r)
        if not queries:
            continue
        name = f"scatter-{key}"
        figures[name] = drawn.scatter_svg(
            name,
            np.asarray(one.predicted, float)[queries],
            np.asarray(one.actual, float)[queries],
            [_query_name(view, one, q) for q in queries],
            r[queries].tolist(),
            _train_classes(view, one),
            view.classes,
        )
        items.append(_item(name, one.label, f"Predicted against actual influence, {one.label}", _slopes_text(one)))
    intro = (
        "Every point is a training example. Horizontal: how retraining without it changed the query; vertical: the "
        "predicted change. Six queries of each comparison are drawn: two with the lowest correlation, two in the middle, "
        "and two with the highest. The correlation does not depend on scale, but the slope of the best fit does: with a "
        "slope of 1 the size of the change is predicted as well."
    )
    return Section(
        "scatter", "Predicted against actual", FIGURES, _figures_data(intro, items, view), figures, nav="Scatter"
    )


def _slopes_text(one: DrawnComparison) -> str:
    predicted, actual = np.asarray(one.predicted, float), np.asarray(one.actual, float)
    slopes = np.array([drawn.slope(p, a) for p, a in zip(predicted, actual, strict=True)])
    slopes = slopes[np.isfinite(slopes)]
    if not len(slopes):
        return "No query has influences that vary."
    low, middle, high = (rough(value) for value in np.quantile(slopes, (0, 0.5, 1)))
    return f"Slope of predicted on actual over all queries: median {middle}, from {low} to {high}."


def _correlations(view: LeaveOneOutPageView) -> Section:
    labels = list(dict.fromkeys(one.label for one in view.comparisons))
    found = {label: np.concatenate([correlations(one) for one in _of(view, label)]) for label in labels}
    classes = {
        label: [int(c) for one in _of(view, label) for c in one.query_labels]
        for label in labels
        if all(len(one.query_labels) for one in _of(view, label))
    }
    svg = drawn.correlations_svg("correlations", found, classes, view.classes, view.threshold)
    lacking = sum(int(np.isnan(r).sum()) for r in found.values())
    caption = "Distribution of the queries' correlations" + (", all units together." if _n_units(view) > 1 else ".")
    if lacking:
        caption += f" {lacking} queries have no correlation, since predicted or actual influence does not vary."
    items = [_item("correlations", "", "Distribution of the correlation of predicted and actual influence", caption)]
    return Section(
        "correlations",
        "Correlation by query",
        FIGURES,
        {"intro": "", "items": items},
        {"correlations": svg},
        nav="Correlations",
    )


def _mixture(view: LeaveOneOutPageView) -> Section:
    assert view.features is not None
    assert view.query_features is not None
    items, figures, shown = [], {}, _shown(view)
    r = correlations(shown[0][1])
    order = np.argsort(r, kind="stable")[: np.isfinite(r).sum()]
    query = int(order[len(order) // 2]) if len(order) else 0
    components = view.train_labels if view.train_labels is not None else np.zeros(len(view.features), int)
    for key, one in shown:
        name = f"mixture-{key}"
        true, predicted = _extremes(one.actual[query]), _extremes(one.predicted[query])
        figures[name] = drawn.mixture_svg(
            name, view.features, components, view.query_features[query], true, predicted, view.classes
        )
        caption = f"{_query_name(view, one, query)}; r {number(correlations(one)[query], 2)}."
        items.append(_item(name, one.label, f"The most influential examples of one query, {one.label}", caption))
    intro = (
        f"The {MOST_INFLUENTIAL} training examples that amplify and the {MOST_INFLUENTIAL} that mitigate the loss of "
        "one query the most: as retraining shows (left) and as predicted (right). The query is the one whose "
        "correlation is the median of the first comparison."
    )
    return Section(
        "mixture", "Where the influence lies", FIGURES, _figures_data(intro, items, view), figures, nav="Plane"
    )


def _extremes(scores: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the positions of the highest and of the lowest scores; ties are ordered by position, missing scores left out."""
    scores = np.asarray(scores, float)
    order = [int(i) for i in np.argsort(-scores, kind="stable") if np.isfinite(scores[i])]
    n = min(MOST_INFLUENTIAL, len(order) // 2)
    return order[:n], order[len(order) - n :]


def _in_the_plane(view: LeaveOneOutPageView) -> bool:
    return bool(
        view.comparisons
        and all(
            one is not None and np.ndim(one) == 2 and one.shape[1] == 2 for one in (view.features, view.query_features)
        )
    )


def _of(view: LeaveOneOutPageView, label: str) -> Iterable[DrawnComparison]:
    return [one for one in view.comparisons if one.label == label]


def _n_units(view: LeaveOneOutPageView) -> int:
    return len({one.unit for one in view.comparisons})


def _query_name(view: LeaveOneOutPageView, one: DrawnComparison, query: int) -> str:
    name = f"query {one.given_query_ids[query] if one.given_query_ids else one.query_ids[query]}"
    return (
        f"{name}, class {view.classes[one.query_labels[query]]}"
        if len(one.query_labels) and len(view.classes)
        else name
    )


def _train_classes(view: LeaveOneOutPageView, one: DrawnComparison) -> Sequence[int]:
    labels = view.train_labels
    return labels.tolist() if labels is not None and len(labels) == np.shape(one.predicted)[1] else ()


def _item(name: str, heading: str, label: str, caption: str) -> dict[str, str]:
    return {"name": name, "heading": heading, "label": label, "caption": caption}


def _figures_data(intro: str, items: list[dict[str, str]], view: LeaveOneOutPageView) -> dict[str, Any]:
    unit = f" Drawn for unit {view.comparisons[0].unit}, one of {_n_units(view)}." if _n_units(view) > 1 else ""
    return {"intro": intro + unit, "items": items}
