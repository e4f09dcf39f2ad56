"""Checks of the queries, the controls and the scores from which verdicts are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.analysis.checks import NO_NAMES, Check, counted, named, percent
from orchestrator.analysis.model_checks import FEW
from orchestrator.analysis.verdicts import number

MANY = 0.25  # share of wrong or saturated queries above which a verdict asks for caution
LISTED = 100  # copies of one query that `numbers` lists; if there are more, it also has their number
FEW_WORDS = 0.5  # share of the first k examples with a key word below which a verdict asks for caution
FLOOR, CEILING = 0.001, 0.999  # probabilities of the query's label beyond which a query is saturated
NO_INTERVAL = "No control has an interval (too few repeats, or too few finished retrains), so whether a control"


def queries_check(n_queries: int, n_asked: int | None = None) -> Check:
    """Check whether there are at least FEW queries.

    `n_queries`: the smallest number that a verdict rests on; `n_asked`: the number in the design, by default the same.
    """
    numbers = {"n_queries": n_queries, "at_least": FEW}
    if n_asked is not None and n_queries < n_asked:
        numbers["n_asked"] = n_asked
    there = counted(n_queries, numbers.get("n_asked", n_queries), "query", "queries")
    if n_queries >= FEW:
        return Check("queries", "passed", f"{there}.", numbers)
    sentence = f"{there}, fewer than {FEW}: what holds for them need not hold for other queries."
    return Check("queries", "caution", sentence, numbers)


def wrong_queries_check(
    wrong: np.ndarray, query_ids: Sequence[int], asked_for: bool = False, names: Mapping[int, str] = NO_NAMES
) -> Check:
    """Check how many queries most reference models answer wrongly; a share above MANY asks for caution.

    `wrong` float [n_queries]: the share of reference models whose largest output is not the gold label. `asked_for`: the config
    selects wrongly answered queries. `names`: query id -> the id as the data gives it.
    """
    ids = [int(i) for i, share in zip(query_ids, wrong, strict=True) if share > 0.5]
    numbers = {"n_wrong": len(ids), "n_queries": len(query_ids), "threshold": MANY, "query_ids": ids}
    if not ids:
        return Check("wrong_queries", "passed", "The reference models answer every query rightly.", numbers)
    found = f"The reference models answer {len(ids)} of {len(query_ids)} queries wrongly ({named(ids, names=names)})"
    if asked_for:
        return Check("wrong_queries", "passed", f"{found}, as queries.where asks.", numbers)
    if len(ids) <= MANY * len(query_ids):
        return Check("wrong_queries", "passed", f"{found}.", numbers)
    sentence = f"{found}: for these the gold label is not what the models say."
    return Check("wrong_queries", "caution", sentence, numbers)


def key_words_check(shares: Mapping[tuple[str, str, int], float]) -> Check:
    """Check in how many of the first k examples a word is replaced: those without a key word keep their text.

    `shares`: (method, group of words, k) -> mean share over queries. Below FEW_WORDS, "k examples" are far fewer than k, and a control, which
    finds a word in nearly every example, changes more of them than the method does.
    """
    curve = min(shares, key=lambda one: shares[one])
    numbers = {"threshold": FEW_WORDS, "shares": [[*one, share] for one, share in shares.items()]}
    method, group, k = curve
    least = f"{percent(shares[curve])} on average ({method}, {group}, k {k})"
    if shares[curve] >= FEW_WORDS:
        sentence = f"A word is replaced in most of the first k examples; the smallest share is {least}."
        return Check("key_words", "passed", sentence, numbers)
    sentence = (
        f"In many of the first k examples no word is replaced, since they have no key word; the smallest share with one is {least}. "
        "There a curve shows the effect of fewer than k words, and controls replace more words than the method."
    )
    return Check("key_words", "caution", sentence, numbers)


def saturated_queries_check(
    probability: np.ndarray, query_ids: Sequence[int], names: Mapping[int, str] = NO_NAMES
) -> Check:
    """Check how many queries are saturated, that is at the floor or ceiling of the measurement; a share above MANY asks for caution.

    `probability` float [n_queries]: probability of the query's label, mean over the reference models; a query is saturated if it lies
    outside [FLOOR, CEILING]. `names`: query id -> the id as the data gives it.
    """
    at_limit = {int(i): float(p) for i, p in zip(query_ids, probability, strict=True) if p > CEILING or p < FLOOR}
    n_high = sum(p > CEILING for p in at_limit.values())
    numbers = {
        "n_ceiling": n_high,
        "n_floor": len(at_limit) - n_high,
        "n_queries": len(query_ids),
        "threshold": MANY,
        "query_ids": list(at_limit),
    }
    if not at_limit:
        sentence = f"No query has a probability above {CEILING} or below {FLOOR} in the reference models."
        return Check("saturated_queries", "passed", sentence, numbers)
    found = (
        f"For {len(at_limit)} of {len(query_ids)} queries ({named(list(at_limit), names=names)}) the reference models give the label asked about "
        f"a probability above {CEILING} ({n_high}) or below {FLOOR} ({len(at_limit) - n_high})"
    )
    if len(at_limit) <= MANY * len(query_ids):
        return Check("saturated_queries", "passed", f"{found}.", numbers)
    sentence = f"{found}: a removal can hardly be seen to move them further."
    return Check("saturated_queries", "caution", sentence, numbers)


def leaked_queries_check(
    copies: Mapping[int, Sequence[int]],
    n_queries: int,
    how: str,
    names: Mapping[int, str] = NO_NAMES,
    train_names: Mapping[int, str] = NO_NAMES,
) -> Check:
    """Check whether queries, or near duplicates of them, are in the train set.

    `copies`: query id -> ids of the train examples that are copies. `how`: the definition of a copy in words. `names`, `train_names`:
    id of a query, or of a train example -> the id as the data gives it.
    """
    numbers: dict[str, Any] = {
        "n_leaked": len(copies),
        "n_queries": n_queries,
        "copies": {str(q): list(t[:LISTED]) for q, t in copies.items()},
    }
    if many := {str(q): len(t) for q, t in copies.items() if len(t) > LISTED}:
        numbers["n_copies"] = many
    if not copies:
        return Check("leaked_queries", "passed", f"No query stands in the train set ({how}).", numbers)
    first = next(iter(copies))
    sentence = (
        f"{len(copies)} of {n_queries} queries stand in the train set ({how}): {named(list(copies), names=names)}; "
        f"{named([first], names=names)} is there as "
        f"{named(list(copies[first]), 'train example', 'train examples', train_names)}. For these a method has only to find the copy."
    )
    return Check("leaked_queries", "caution", sentence, numbers)


def controls_check(summary: Iterable[Mapping[str, Any]], controls: Sequence[str]) -> Check:
    """Check whether a control changes the measurement, that is whether an interval of its own AUC-DEL excludes 0.

    `summary`: rows of summary.csv. Both intervals count, for queries of this kind and for these queries. Without any interval the
    result is not_checked; if some controls or groups have no interval, the check asks for caution.
    """
    if not controls:
        sentence = "No control (random, random_same_label) is among the methods: what any removal of this size does is not known."
        return Check("controls", "caution", sentence)
    rows = [row for row in summary if row["method"] in controls]
    unknown = [row for row in rows if not (_has_interval(row, "ci") or _has_interval(row, "ci_fixed"))]
    moved = [row for row in rows if _excludes_zero(row, "ci") or _excludes_zero(row, "ci_fixed")]
    numbers = {
        "controls": list(controls),
        "moved": [[row["method"], row["group"], row["auc_del"]] for row in moved],
    }
    if unknown:
        numbers["without_interval"] = [[row["method"], row["group"], row["auc_del"]] for row in unknown]
    if len(unknown) == len(rows):
        return Check("controls", "not_checked", f"{NO_INTERVAL} moves the measurement is not known.", numbers)
    lacking = _lacking([f"{row['method']}, {row['group']}" for row in unknown])
    if moved:
        shown = "; ".join(f"{row['method']}, {row['group']}: {_moved(row)}" for row in moved)
        sentence = f"A control moves the measurement by itself ({shown}): a method's own AUC-DEL says little, only its difference from the control does."
        return Check("controls", "caution", sentence + lacking, numbers)
    sentence = f"No control moves the measurement: every interval of {' and '.join(controls)} includes 0."
    if lacking:
        return Check("controls", "caution", f"Every interval of a control that there is includes 0.{lacking}", numbers)
    return Check("controls", "passed", sentence, numbers)


def _moved(row: Mapping[str, Any]) -> str:
    prefix = "ci" if _excludes_zero(row, "ci") else "ci_fixed"
    return f"{number(row['auc_del'])} [{number(row[f'{prefix}_low'])}, {number(row[f'{prefix}_high'])}]"


def _excludes_zero(row: Mapping[str, Any], prefix: str) -> bool:
    return row[f"{prefix}_low"] > 0 or row[f"{prefix}_high"] < 0


def _has_interval(row: Mapping[str, Any], prefix: str) -> bool:
    return not (math.isnan(row[f"{prefix}_low"]) or math.isnan(row[f"{prefix}_high"]))


def _lacking(names: Sequence[str]) -> str:
    """Return a sentence that names the controls without an interval, with a leading blank; "" if all have one."""
    if not names:
        return ""
    return f" There is no interval for {'; '.join(names)}: what they do is not known."


def random_sets_check(directions: Iterable[Mapping[str, Any]], controls: Sequence[str]) -> Check:
    """Check whether fine-tuning on random examples moves an effect in the predicted direction in half of the cases.

    `directions`: rows of directions.csv; actions of a control are named `<control> <action>`. The interval whose unit is the seed
    decides. Without any interval the result is not_checked; if some actions have no interval, the check asks for caution.
    """
    if not controls:
        sentence = "No control (random) is among the methods: what fine-tuning on any examples does is not known."
        return Check("controls", "caution", sentence)
    named_so = tuple(f"{control} " for control in controls)
    rows = [row for row in directions if row["test"] == "all" and str(row["action"]).startswith(named_so)]
    unknown = [row for row in rows if not _has_interval(row, "ci_seed")]
    moved = [row for row in rows if row["ci_seed_low"] > 0.5 or row["ci_seed_high"] < 0.5]
    numbers = {
        "controls": list(controls),
        "moved": [[row["start"], row["action"], row["share"]] for row in moved],
        "n_rows": len(rows),
    }
    if unknown:
        numbers["without_interval"] = [[row["start"], row["action"], row["share"]] for row in unknown]
    if len(unknown) == len(rows):
        return Check("controls", "not_checked", f"{NO_INTERVAL} moves the effects is not known.", numbers)
    lacking = _lacking([f"{row['action']} from {row['start']}" for row in unknown])
    if moved:
        shown = "; ".join(
            f"{row['action']} from {row['start']}: share {number(row['share'])} "
            f"[{number(row['ci_seed_low'])}, {number(row['ci_seed_high'])}]"
            for row in moved
        )
        sentence = f"Fine-tuning on random examples moves the effects too ({shown}): compare an action with its control, not with one half."
        return Check("controls", "caution", sentence + lacking, numbers)
    sentence = "Fine-tuning on random examples moves the effects the predicted way about as often as not."
    if lacking:
        return Check(
            "controls", "caution", f"Every interval of a control that there is includes one half.{lacking}", numbers
        )
    return Check("controls", "passed", sentence, numbers)


def scores_check(matrices: Iterable[tuple[str, np.ndarray]]) -> Check:
    """Check whether every method ranks the training examples for every query.

    `matrices`: (method, scores [n_queries, n_train]). A query whose row is all NaN has no scores; if its row is constant, the examples are
    ranked by their ids alone.
    """
    missing: dict[str, int] = {}
    constant: dict[str, int] = {}
    total: dict[str, int] = {}
    for method, scores in matrices:
        is_missing = np.isnan(scores).all(axis=1)
        is_constant = ~is_missing & (scores == scores[:, :1]).all(axis=1) & (scores.shape[1] > 1)
        for counts, rows in ((missing, is_missing), (constant, is_constant)):
            counts[method] = counts.get(method, 0) + int(rows.sum())
        total[method] = total.get(method, 0) + len(scores)
    numbers = {"missing": missing, "constant": constant, "rows": total}
    if not total:
        return Check("scores", "not_checked", "No method has scores.")
    problems = [f"{method} has no scores for {n} of {total[method]} queries" for method, n in missing.items() if n]
    problems += [
        f"{method} gives every training example the same score for {n} of {total[method]} queries and so ranks them by their ids"
        for method, n in constant.items()
        if n
    ]
    if not problems:
        return Check("scores", "passed", "Every method ranks the training examples of every query.", numbers)
    return Check("scores", "caution", f"Not every method ranks the training examples: {'; '.join(problems)}.", numbers)
