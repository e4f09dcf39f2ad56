from dataclasses import replace

import numpy as np
import pandas as pd

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


def make_record(directory, methods=METHODS, ks=KS, seed=0):
    rng = np.random.default_rng(seed)
    pairs = [(method, group) for method in methods for group in GROUPS]
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
        artifacts=artifacts,
        started_at=STAMP - 5000,
    )


def with_more_repeats(record, delta):
    """The record after (tracin_we, proponents, k=10) moved: new delta and n_repeats, and a later ledger time."""
    curves = record.curves.copy()
    curves.loc[0, ["delta", "n_repeats"]] = [delta, 6]
    stamps = {**record.committed_at, ("tracin_we", "proponents"): STAMP + 60_000}
    return replace(record, curves=curves, committed_at=stamps)
