"""Tables of the confound influence difference (CID) of the chosen settings of a recipe grid. Han & Tsvetkov 2021, section 6.1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.analysis.curves import Row
from orchestrator.analysis.verdicts import number
from orchestrator.campaigns.recipe_grid.confound_influence import cid, cid_over_seeds, welch
from orchestrator.campaigns.recipe_grid.selection import GridSetting
from orchestrator.campaigns.recipe_grid.tables import bracketed, key_of, name_of

OBSERVER = "confound_influence_difference"
UPDATE = "update"
CID = ["arm", "level", "setting", "step", "stage", "cid", "se", "ci_low", "ci_high", "n_seeds", "n_probes"]
CID_PROBES = ["arm", "level", "seed", "probe_id", "cid", "t", "p"]

Moment = tuple[int, bool, str]  # (step, whether after a round, stage): a time in training; times sort in this order


@dataclass(frozen=True, eq=False)
class Observed:
    """The observer's records of one trial: `moments` float [n_probes, 6] at each time in training; `probe_ids` int64 [n_probes]."""

    setting: GridSetting
    seed: int
    probe_ids: np.ndarray
    moments: Mapping[Moment, np.ndarray]

    @property
    def last(self) -> np.ndarray:
        """The statistical moments at the end of training."""
        return self.moments[max(self.moments)]


def recorded(outputs: Mapping[str, np.ndarray], key: str = "moments") -> dict[Moment, np.ndarray]:
    """Return time in training -> the observer's array under `key`, from a trial's recorded outputs; empty without the observer."""
    found = {}
    for name, array in outputs.items():
        if match := re.fullmatch(rf"{OBSERVER}/{key}@(\d+)(?:\+(.+))?", name):
            found[int(match[1]), match[2] is not None, match[2] or UPDATE] = array
    return dict(sorted(found.items()))


def cid_table(observed: Iterable[Observed]) -> pd.DataFrame:
    """Return the CID of every setting along training (columns CID): the mean over seeds with its 95% t interval.

    The value of a seed is the mean over the probes that have a CID: same-confound minus other-confound influence, positive if the model
    follows the confound. n_probes: the largest number of probes with a CID under any seed.
    """
    by_setting: dict[str, list[Observed]] = {}
    for one in observed:
        by_setting.setdefault(one.setting.label, []).append(one)
    return pd.DataFrame([row for trials in by_setting.values() for row in _curve(trials)], columns=CID)


def cid_probes_table(observed: Iterable[Observed]) -> pd.DataFrame:
    """Return the CID of every probe at the end of every trial (columns CID_PROBES), with Welch's t test of the two groups' means."""
    rows = []
    for one in observed:
        names = {**key_of(one.setting), "seed": one.seed}
        test = welch(one.last)
        for probe, *numbers in zip(one.probe_ids, cid(one.last), test.t, test.p, strict=True):
            rows.append(
                {**names, "probe_id": int(probe), **dict(zip(("cid", "t", "p"), map(float, numbers), strict=True))}
            )
    return pd.DataFrame(rows, columns=CID_PROBES)


def cid_note(table: pd.DataFrame) -> str:
    """Return one sentence with the CID of every setting at the end of training."""
    last = table.drop_duplicates(["arm", "level"], keep="last")
    shown = [f"{name_of(row)} {number(row['cid'])} {bracketed(row)}" for row in last.to_dict("records")]
    return f"Confound influence difference at the end of training, over trials that did not fail: {'; '.join(shown)}."


def _curve(trials: Sequence[Observed]) -> list[Row]:
    rows = []
    for moment in sorted({moment for one in trials for moment in one.moments}):
        moments = [one.moments[moment] for one in trials if moment in one.moments]
        found = cid_over_seeds(moments)
        low, high = found.ci
        numbers = {"cid": found.mean, "se": found.se, "ci_low": low, "ci_high": high}
        rows.append(
            {**key_of(trials[0].setting), "step": moment[0], "stage": moment[2]}
            | {name: float(value) for name, value in numbers.items()}
            | {"n_seeds": int(found.n), "n_probes": max(int(np.isfinite(cid(one)).sum()) for one in moments)}
        )
    return rows
