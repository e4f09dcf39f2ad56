"""`refit compare`: the figures of a deletion run and an LDS run over the same task side by side, and how far both order the methods alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.rank_agreement import RankAgreement, rank_agreement
from orchestrator.analysis.verdicts import SENSE
from orchestrator.config.schema import LoadedConfig
from orchestrator.experiment.run_dir import RunDir, existing
from orchestrator.storage.tables import about_scores, read_scores_table
from orchestrator.terminal.results_table import headline_table
from tasks.digests import canonical_json
from tasks.errors import InputError

KINDS = ("deletion", "lds")
# key of provenance.json -> its name in messages
SAME = {"train_digest": "train set", "model": "model", "recipe": "recipe", "task_id": "measured splits"}


@dataclass(frozen=True)
class ComparedRun:
    """A run that is compared, with what must be the same in all of them."""

    given: str
    run_dir: RunDir
    config: LoadedConfig

    @staticmethod
    def opened(path: str) -> ComparedRun:
        """Open a run directory. Raises InputError."""
        run_dir = existing(path)
        return ComparedRun(path, run_dir, run_dir.config())

    @property
    def campaign(self) -> str:
        return self.config.settings.campaign

    def table(self, name: str) -> pd.DataFrame:
        """Read a result table. Raises InputError if it is not there yet."""
        path = self.run_dir.results / f"{name}.csv"
        if not path.exists():
            raise InputError(path, "no results yet; refit run writes them")
        return pd.read_csv(path)

    @cached_property
    def query_ids(self) -> list[int]:
        """The ids of the queries, ascending, from the stored scores. Raises InputError if no method has scores."""
        label = next((label for label, method in self.config.methods.items() if not method.is_control), None)
        if label is None:
            raise InputError(self.given, "every method of this run is a control, so there are no scores to compare")
        path, run = self.run_dir.scores(label), self.run_dir.provenance().get("run")
        if not path.exists():
            raise InputError(path, "no scores yet; refit run writes them")
        query_ids, _, _ = read_scores_table(path, about_scores(run, label) if run else None)
        return sorted(int(one) for one in query_ids)

    def failed_checks(self) -> list[str]:
        """Return a sentence for every check that failed."""
        checks = self.table("checks")
        rows = checks.loc[checks["status"] == "failed"].to_dict("records")
        return [f"In {Path(self.given).name}, the check {row['name']} failed: {row['sentence']}" for row in rows]


@dataclass(frozen=True)
class Compared:
    """The figures of every method by both judges, and the rank agreement for every group of removals.

    `methods`: columns `method, lds, lds_ci_low, lds_ci_high`, then for every group `<group>, <group>_ci_low, <group>_ci_high` with
    AUC-DEL; empty where a run does not have the method. `doubts`: sentences on failed checks.
    """

    methods: pd.DataFrame
    agreement: dict[str, RankAgreement]
    doubts: tuple[str, ...]
    runs: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the table, and below it a sentence for every group of removals."""
        found = [one.sentence("LDS", f"AUC-DEL of {group}") for group, one in self.agreement.items()]
        note = "Columns with the name of a group are AUC-DEL. Controls have no part in the agreement."
        return headline_table(self.methods, ["method"], [*found, note, *self.doubts]).splitlines()

    def json(self) -> dict[str, Any]:
        """Return the same as plain data; null where there is no number."""
        rows = self.methods.astype(object).where(self.methods.notna(), None).to_dict("records")
        agreement = {group: one.json() for group, one in self.agreement.items()}
        return {"runs": self.runs, "methods": rows, "agreement": agreement, "doubts": list(self.doubts)}


def compare(paths: Sequence[str]) -> Compared:
    """Compare a deletion run with an LDS run. Raises InputError if their task, measurement, queries, scores or methods differ."""
    runs = {run.campaign: run for run in map(ComparedRun.opened, paths)}
    if len(paths) != len(KINDS) or sorted(runs) != sorted(KINDS):
        given = ", ".join(ComparedRun.opened(path).campaign for path in paths)
        raise InputError("compare", f"got runs of {given}; allowed: one run of deletion and one of lds")
    deletion, lds = runs["deletion"], runs["lds"]
    require_same(deletion, lds)
    summary, by_lds = deletion.table("summary"), lds.table("lds").set_index("method")
    labels = list(dict.fromkeys([*by_lds.index, *summary["method"]]))
    found = pd.DataFrame({"method": labels})
    for name in ("lds", "ci_low", "ci_high"):
        found[name if name == "lds" else f"lds_{name}"] = by_lds[name].reindex(labels).to_numpy()
    agreement = {}
    controls = {label for run in runs.values() for label, method in run.config.methods.items() if method.is_control}
    judged = found["method"].isin(sorted(set(labels) - controls))
    for group in dict.fromkeys(summary["group"]):
        of_group = summary.loc[summary["group"] == group].set_index("method")
        for name in ("auc_del", "ci_low", "ci_high"):
            found[group if name == "auc_del" else f"{group}_{name}"] = of_group[name].reindex(labels).to_numpy()
        both = found.loc[judged & found["lds"].notna() & found[group].notna()]
        auc = both[group].abs() if group == "least" else both[group]  # the claim of `least` is that nothing changes
        agreement[group] = rank_agreement(both["lds"].tolist(), (SENSE[group][0] * auc).tolist())
    doubts = (*deletion.failed_checks(), *lds.failed_checks())
    return Compared(found, agreement, doubts, {kind: runs[kind].given for kind in KINDS})


def require_same(one: ComparedRun, other: ComparedRun) -> None:
    """Check that two runs judge the same methods on the same task, measurement and queries. Raises InputError with the first difference."""
    first, second = one.run_dir.provenance(), other.run_dir.provenance()
    for key, name in SAME.items():
        if first.get(key) != second.get(key):
            _refuse(one, other, f"their {name} differs")
    for name, of_run in (
        ("measurement", lambda run: run.config.measurement.identity()),
        ("block `scores`", lambda run: run.config.settings.scores.model_dump(mode="json", exclude={"rows_per_shard"})),
    ):
        if of_run(one) != of_run(other):
            values = f"{canonical_json(of_run(one))} and {canonical_json(of_run(other))}"
            _refuse(one, other, f"their {name} differs: {values}")
    for label in one.config.methods.keys() & other.config.methods.keys():
        if one.config.methods[label].identity() != other.config.methods[label].identity():
            _refuse(one, other, f"the method {label} has other options in one than in the other")
    if one.query_ids != other.query_ids:
        alone = np.setxor1d(one.query_ids, other.query_ids).tolist()
        shown = f"{len(one.query_ids)} and {len(other.query_ids)} queries, {len(alone)} of them in one run only"
        _refuse(one, other, f"their queries differ: {shown}, first {alone[0]}")


def _refuse(one: ComparedRun, other: ComparedRun, problem: str) -> None:
    raise InputError(
        "compare", f"{one.given} and {other.given}: {problem}; only runs over the same task can be compared"
    )
