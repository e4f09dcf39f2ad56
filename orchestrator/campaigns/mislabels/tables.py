"""The tables of a mislabels campaign, and the verdicts from its contrasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.contrasts import holm
from orchestrator.analysis.retrieval import Retrieval, difference
from orchestrator.analysis.verdicts import interval, number
from orchestrator.campaigns.mislabels.suspects import Suspects
from tasks.base import Split

PAIRS = (
    ("self_influence", "random"),
    ("clusters", "random"),
    ("loss", "random"),
    ("self_influence", "loss"),
    ("clusters", "loss"),
    ("clusters", "self_influence"),
)
NAMES = {"self_influence": "self-influence", "clusters": "cluster size", "loss": "loss", "random": "random order"}


def suspects_table(found: Suspects, train: Split) -> pd.DataFrame:
    """Return one row per difficult example, cluster by cluster, within a cluster from the largest mean loss to the smallest.

    wrong_frac: share of the repeated models that classify it wrongly; predicted: their most frequent class; mean_loss in nats;
    rank_*: place among all training examples, 1 = most suspicious.
    """
    rows, repeated = found.rows, found.repeated
    loss, itself = repeated.losses.mean(axis=0), found.self_influence.mean(axis=0)
    classes = np.array(train.classes, object)
    columns: dict[str, Any] = {
        "train_id": train.ids[rows],
        **({} if train.given_ids is None else {"given_train_id": [train.given_ids[row] for row in rows]}),
        "label": classes[train.labels[rows]],
        "predicted": classes[repeated.predicted[rows]],
        "wrong_frac": repeated.wrong_frac[rows],
        "mean_loss": loss[rows],
        "rank_loss": _ranks(loss)[rows],
        "self_influence": itself[rows],
        "rank_self_influence": _ranks(itself)[rows],
        "cluster": found.clusters.labels,
        "cluster_size": found.clusters.sizes,
    }
    if found.true is not None and found.mislabeled is not None:
        columns |= {"true_label": classes[found.true[rows]], "is_mislabeled": found.mislabeled[rows]}
    order = np.lexsort((train.ids[rows], -loss[rows], found.clusters.labels))
    return pd.DataFrame(columns).iloc[order].reset_index(drop=True)


def _ranks(suspicion: np.ndarray) -> np.ndarray:
    return pd.Series(-suspicion).rank(method="min").to_numpy(np.int64)


def clusters_table(found: Suspects, classes: Sequence[str], smallest: int) -> pd.DataFrame:
    """Return one row per cluster with at least `smallest` members: its most frequent given and predicted class, and their shares.

    mean_distance: mean influence distance between two members.
    """
    columns = ["cluster", "size", "label", "label_frac", "predicted", "predicted_frac", "mean_distance"]
    columns += ["n_mislabeled", "precision"] if found.true is not None else []
    made = []
    for cluster in range(int(found.clusters.labels.max()) + 1):
        members = np.flatnonzero(found.clusters.labels == cluster)
        if len(members) < smallest:
            break
        rows = found.rows[members]
        row: dict[str, Any] = {"cluster": cluster, "size": len(members)}
        for name, values in (("label", found.repeated.labels), ("predicted", found.repeated.predicted)):
            counts = np.bincount(values[rows])
            row |= {name: classes[int(counts.argmax())], f"{name}_frac": float(counts.max() / len(rows))}
        row["mean_distance"] = found.clusters.within(members)
        if found.mislabeled is not None:
            wrong = int(found.mislabeled[rows].sum())
            row |= {"n_mislabeled": wrong, "precision": wrong / len(rows)}
        made.append(row)
    return pd.DataFrame(made, columns=columns)


def linkages_table(found: Suspects, smallest: int) -> pd.DataFrame:
    """Return one row per linkage: how the clusters depend on it.

    n_large: clusters with at least `smallest` members; n_clustered: examples in them; agreement: adjusted Rand index with the clusters of
    the chosen linkage (1 = the same clusters, 0 = as alike as by chance). precision and recall are those of the n_clustered examples as
    a set of suspects.
    """
    from sklearn.metrics import adjusted_rand_score

    made = []
    for linkage, labels in found.clusters.by_linkage.items():
        sizes = np.bincount(labels)
        inside = sizes[labels] >= smallest
        row: dict[str, Any] = {
            "linkage": linkage,
            "chosen": linkage == found.clusters.linkage,
            "n_difficult": len(labels),
            "n_clusters": len(sizes),
            "n_large": int((sizes >= smallest).sum()),
            "n_clustered": int(inside.sum()),
            "largest": int(sizes.max()),
            "agreement": float(adjusted_rand_score(found.clusters.labels, labels)),
        }
        if found.mislabeled is not None:
            hits = int(found.mislabeled[found.rows[inside]].sum())
            row |= {
                "precision": hits / max(int(inside.sum()), 1) if inside.any() else float("nan"),
                "recall": hits / int(found.mislabeled.sum()),
            }
        made.append(row)
    return pd.DataFrame(made)


def retrieval_table(judged: Mapping[str, Retrieval], truth: np.ndarray) -> pd.DataFrame:
    """Return one row per ranking: average precision with its intervals (see orchestrator.analysis.retrieval)."""
    return pd.DataFrame(
        [
            {
                "ranking": name,
                "average_precision": float(one.values[0]),
                **_intervals(one, 0, ""),
                "over": one.ranking.over,
                "n_models": one.ranking.n_models,
                "n_examples": len(truth),
                "n_mislabeled": int(truth.sum()),
            }
            for name, one in judged.items()
        ]
    )


def at_k_table(judged: Mapping[str, Retrieval], ks: Sequence[int]) -> pd.DataFrame:
    """Return one row per ranking and k: precision and recall among the first k suspects, with their intervals."""
    made = []
    for name, one in judged.items():
        for i, k in enumerate(ks):
            row: dict[str, Any] = {"ranking": name, "k": k}
            for what, position in (("precision", 1 + i), ("recall", 1 + len(ks) + i)):
                row |= {what: float(one.values[position]), **_intervals(one, position, f"{what}_")}
            made.append(row)
    return pd.DataFrame(made)


def _intervals(one: Retrieval, position: int, prefix: str) -> dict[str, float]:
    found = {}
    for kind, fixed in (("ci", False), ("ci_fixed", True)):
        low, high = one.interval(position, fixed=fixed)
        found |= {f"{prefix}{kind}_low": low, f"{prefix}{kind}_high": high}
    return found


def contrasts_table(judged: Mapping[str, Retrieval], n_examples: int) -> pd.DataFrame:
    """Return the differences of average precision between rankings; Holm's family is all of them."""
    made = [
        {
            "ranking": one,
            "baseline": other,
            **difference(judged[one], judged[other]),
            "n_examples": n_examples,
        }
        for one, other in PAIRS
    ]
    frame = pd.DataFrame(made)
    frame.insert(frame.columns.get_loc("p") + 1, "p_holm", holm(frame["p"].to_numpy(np.float64)))  # pyright: ignore[reportArgumentType, reportOperatorIssue]
    return frame


def verdicts(contrasts: pd.DataFrame, level: float = 0.05) -> list[str]:
    """Return one sentence per contrast."""
    return [_verdict(row, level) for row in contrasts.to_dict("records")]


def _verdict(row: Mapping[Any, Any], level: float) -> str:
    one, other = (NAMES[row[side]] for side in ("ranking", "baseline"))
    numbers = (
        f"difference {number(row['diff'])} {interval(row['ci_low'], row['ci_high'])}, Holm p {number(row['p_holm'])}."
    )
    if not row["p_holm"] < level:
        return f"By average precision, {one} and {other} could not be told apart: {numbers}"
    outcome = "better" if row["diff"] > 0 else "worse"
    return f"By average precision, {one} retrieves mislabeled examples {outcome} than {other}: {numbers}"
