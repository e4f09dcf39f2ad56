from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from orchestrator.campaigns.deletion.tracking import deletion_children
from orchestrator.tracking.record import TrackRecord

METHODS, GROUPS, KS = ("tracin_we", "tfidf", "random"), ("proponents", "opponents"), (10, 20)
STAMP = 1_700_000_000_000


def intervals(rng):
    return {
        "se": rng.random(),
        "ci_low": -rng.random(),
        "ci_high": rng.random(),
        "se_fixed": rng.random(),
        "ci_fixed_low": -rng.random(),
        "ci_fixed_high": rng.random(),
        "n_queries": 8,
        "n_repeats": 5,
        "n_excluded": 0,
    }


@dataclass(frozen=True)
class Tables:
    """The tables of a deletion campaign and the commit time of every curve."""

    curves: pd.DataFrame
    summary: pd.DataFrame
    contrasts: pd.DataFrame
    committed_at: dict[tuple[str, str], int]

    def children(self):
        return deletion_children(self.curves, self.summary, self.contrasts, self.committed_at)


def make_tables(methods=METHODS, ks=KS, seed=0):
    rng = np.random.default_rng(seed)
    pairs = [(method, group) for method in methods for group in GROUPS]
    return Tables(
        curves=pd.DataFrame(
            [dict(method=m, group=g, k=k, delta=rng.normal(), **intervals(rng)) for m, g in pairs for k in ks]
        ),
        summary=pd.DataFrame([dict(method=m, group=g, auc_del=rng.normal(), **intervals(rng)) for m, g in pairs]),
        contrasts=pd.DataFrame(
            [
                {
                    "method": m,
                    "baseline": "random",
                    "group": g,
                    "diff": rng.normal(),
                    "p": rng.random(),
                    "p_holm": np.nan,
                }
                for m, g in pairs
                if m != "random"
            ]
        ),
        committed_at={pair: STAMP + 1000 * position for position, pair in enumerate(pairs)},
    )


def make_record(directory, children=None):
    """Return a record of `children`, by default those of `make_tables`, with four artifacts under `directory`."""
    artifacts = []
    for name, where in (
        ("curves.csv", "results"),
        ("report.html", ""),
        ("curves.svg", "figures"),
        ("ledger.parquet", "ledger"),
    ):
        path = directory / name
        path.write_text(f"content of {name}")
        artifacts.append((path, where))
    return TrackRecord(
        campaign="tiny",
        run="00ff00ff00ff00ff",
        params={"deletion.k": [10, 20], "task": "planted"},
        tags={"git_commit": "abc", "state": "complete"},
        children=make_tables().children() if children is None else children,
        artifacts=artifacts,
        started_at=STAMP - 5000,
    )


def with_more_repeats(record, delta):
    """Return the record after a change of (tracin_we, proponents, k=10): new delta and n_repeats, and a later ledger time."""
    tables = make_tables()
    tables.curves.loc[0, ["delta", "n_repeats"]] = [delta, 6]
    tables.committed_at["tracin_we", "proponents"] = STAMP + 60_000
    return replace(record, children=tables.children())
