"""The checks of an LDS campaign: the common ones, and those of the noise ceiling, the subsets, their models and the random scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from influence.controls import Control
from orchestrator.analysis import model_checks
from orchestrator.analysis.checks import Check, counted
from orchestrator.analysis.model_checks import Accuracy
from orchestrator.analysis.verdicts import number
from orchestrator.campaigns.checks import NO_RIGHT, Rows, common_checks
from orchestrator.campaigns.plan import CellTable
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored

FEW_SUBSETS = 30  # below this the correlation of one query varies by about 0.2 by chance alone
LOW_CEILING = 0.5


def lds_checks(scored: Scored, plan: CellTable, rows: Rows, results: Results) -> list[Check]:
    """Return the checks of an LDS campaign."""
    table = results.tables["lds"]
    controls = [label for label, method in scored.experiment.methods.items() if isinstance(method, Control)]
    by_label = [label for label in controls if getattr(scored.experiment.methods[label], "by_label", False)]
    return [
        *common_checks(scored, plan, rows, results),
        subset_models_check(scored, plan, rows),
        subsets_check(int(table["n_subsets"].iloc[0]), int(table["n_excluded"].iloc[0])),
        ceiling_check(table),
        random_scores_check(table, [label for label in controls if label not in by_label]),
    ]


def subset_models_check(scored: Scored, plan: CellTable, rows: Rows) -> Check:
    """Check the accuracy of the models that were trained on subsets, on the split of the queries."""
    arm = scored.experiment.main
    split = arm.asked.split
    key, found = f"accuracy/{split}", []
    for spec_id in dict.fromkeys(plan.works[i].spec_id for i in plan.work):
        row = rows.get(spec_id)
        if row is not None and row.outcome.status == "ok" and key in row.outcome.metrics:
            found.append(row.outcome.metrics[key])
    accuracies = []
    if found:
        labels = arm.task.splits[split].labels[arm.task.measured[split]]
        accuracies = [Accuracy.of("models trained on subsets", split, found, labels)]
    return replace(model_checks.accuracy_check(accuracies, NO_RIGHT), name="subset_accuracy")


def subsets_check(n_subsets: int, n_excluded: int) -> Check:
    """Check whether there are at least FEW_SUBSETS subsets with results in every repeat."""
    numbers = {"n_subsets": n_subsets, "n_excluded": n_excluded, "at_least": FEW_SUBSETS}
    there = counted(n_subsets, n_subsets + n_excluded, "subset", "subsets")
    if n_subsets >= FEW_SUBSETS:
        return Check("subsets", "passed", f"{there}.", numbers)
    sentence = (
        f"{there}, fewer than {FEW_SUBSETS}: the rank correlation of a query varies much by the draw of its subsets."
    )
    return Check("subsets", "caution", sentence, numbers)


def ceiling_check(table: pd.DataFrame) -> Check:
    """Check whether retrains under different seeds agree about the subsets: the noise ceiling, and the split-half correlation.

    There is no interval with a single query, or if seeds change nothing; then only the ceiling itself counts. With fewer than FEW_SUBSETS
    subsets the interval may reach 0 although the seeds agree, so this asks for caution and does not fail.
    """
    value, low, high = (float(table[name].iloc[0]) for name in ("ceiling", "ceiling_ci_low", "ceiling_ci_high"))
    least_agreement = float(table["split_half_ci_low"].iloc[0])
    numbers = {
        "ceiling": value,
        "ci_low": low,
        "ci_high": high,
        "split_half_ci_low": least_agreement,
        "threshold": LOW_CEILING,
    }
    if not value >= 0:
        return Check("noise_ceiling", "not_checked", "No query has a noise ceiling.", numbers)
    interval = f" [{number(low)}, {number(high)}]" if low <= high else ""
    found = f"The noise ceiling, the largest LDS that could be expected, is {number(value)}{interval}"
    n_subsets = int(table["n_subsets"].iloc[0])
    if least_agreement <= 0 and n_subsets < FEW_SUBSETS:
        sentence = (
            f"{found}: {n_subsets} subsets are too few to tell whether retrains with different seeds agree about them."
        )
        return Check("noise_ceiling", "caution", sentence, numbers)
    if least_agreement <= 0:
        sentence = f"{found}: retrains with different seeds do not agree about the subsets, so there is hardly anything to predict."
        reason = f"retrains with different seeds do not agree about the subsets (noise ceiling {number(value)})"
        return Check("noise_ceiling", "failed", sentence, numbers, reason)
    if value < LOW_CEILING:
        sentence = f"{found}: the measurements are mostly noise of the seeds; more repeats would raise it."
        return Check("noise_ceiling", "caution", sentence, numbers)
    return Check("noise_ceiling", "passed", f"{found}.", numbers)


def random_scores_check(table: pd.DataFrame, controls: Sequence[str]) -> Check:
    """Check whether the interval of every control with random scores includes 0."""
    rows = table.loc[table["method"].isin(list(controls))].to_dict("records")
    if not rows:
        sentence = (
            "No control with random scores (random) is among the methods, so nothing shows what chance gives here."
        )
        return Check("controls", "caution", sentence)
    numbers = {row["method"]: [row["lds"], row["ci_low"], row["ci_high"]] for row in rows}
    if any(not row["ci_low"] <= row["ci_high"] for row in rows):
        return Check("controls", "not_checked", "A control with random scores has no interval.", numbers)
    shown = "; ".join(f"{r['method']} {number(r['lds'])} [{number(r['ci_low'])}, {number(r['ci_high'])}]" for r in rows)
    if all(row["ci_low"] <= 0 <= row["ci_high"] for row in rows):
        return Check("controls", "passed", f"The interval of random scores includes 0 ({shown}).", numbers)
    sentence = f"The interval of random scores excludes 0 ({shown}), which happens by chance in one campaign of 20."
    return Check("controls", "caution", sentence, numbers)
