"""The result of a dry run, as `refit plan` prints it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from orchestrator.terminal.progress import duration
from tasks.data.census import SplitCensus


@dataclass(frozen=True)
class Estimate:
    """The result of a dry run.

    `cells`: numbers in the result tables that the campaign needs, each from one retrain. `distinct`: the number of distinct retrains,
    which `distinct_max` bounds; None unless it is exact, which takes all scores in the store and a final plan. `*_low` and
    `*_high`: ends of 95% ranges, None if fewer than two finished retrains are known. `advice`: a design that would narrow the
    intervals more cheaply. `edited`: one sentence for every plugin whose source differs from that of the last run of this name.
    `data`: a census of every split of the first arm. `missing_diagnostics`: the labels of those that are not in the store.
    """

    run: str
    run_dir: str
    cells: int
    scores: str  # complete | missing | none (a campaign that asks no queries)
    missing_scores: tuple[str, ...]
    distinct: int | None
    distinct_max: int
    in_ledger: int | None
    to_do: int | None
    scoring_models_to_do: int
    seconds_per_retrain: float | None
    time_s: float | str
    time_low_s: float | None
    time_high_s: float | None
    gpu_hours_low: float | None
    gpu_hours_high: float | None
    cost: float | str
    cost_low: float | None
    cost_high: float | None
    currency: str | None
    assumptions: str
    advice: str = ""
    edited: tuple[str, ...] = ()
    data: tuple[SplitCensus, ...] = ()
    missing_diagnostics: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is left to train or to diagnose."""
        return self.to_do == 0 and self.scoring_models_to_do == 0 and not self.missing_diagnostics

    def json(self) -> dict:
        """Return the fields as plain JSON values."""
        data = [census.json() for census in self.data]
        lists = {name: list(getattr(self, name)) for name in ("missing_scores", "edited", "missing_diagnostics")}
        return {**asdict(self), **lists, "data": data, "warnings": self.warnings()}

    def warnings(self) -> list[str]:
        """Return one sentence for everything in the data that should be examined before training."""
        return [warning for census in self.data for warning in census.warnings()]

    def lines(self) -> list[str]:
        """Return the lines that `refit plan` prints."""
        scoring = [f"scoring models {self.scoring_models_to_do} to train", f"scores         {self.scores}"]
        gpu_hours = _range(self.gpu_hours_low, self.gpu_hours_high, "{:.2f}".format).strip(" ()")
        return [
            f"run directory  {self.run_dir}",
            *(f"data {census.split:<9} {census.line()}" for census in self.data),
            *(f"warning        {warning}" for warning in self.warnings()),
            *(scoring if self.scores != "none" else ()),
            *([f"diagnostics    missing: {', '.join(self.missing_diagnostics)}"] if self.missing_diagnostics else ()),
            f"retrains       {self._work()}",
            f"time           {self._time()}   cost {self._cost()}",
            *([f"GPU-hours      {gpu_hours}"] if gpu_hours else ()),
            *([f"assuming       {self.assumptions}"] if self.assumptions else ()),
            *([f"advice         {self.advice}"] if self.advice else ()),
            *(f"edited         {one}" for one in self.edited),
        ]

    def _work(self) -> str:
        if self.distinct is not None:
            return (
                f"{self.distinct} distinct for {self.cells} cells; {self.in_ledger} in the ledger, {self.to_do} to do"
            )
        if self.in_ledger is not None:
            until = f"{self.in_ledger} in the ledger; each curve is repeated until it reaches its target"
        elif self.missing_scores:
            until = f"exact once scores are there: {', '.join(self.missing_scores)}"
        else:
            until = "exact once a worker has started"
        return f"at most {self.distinct_max} distinct for {self.cells} cells ({until})"

    def _time(self) -> str:
        if isinstance(self.time_s, str):
            return self.time_s
        return duration(self.time_s) + _range(self.time_low_s, self.time_high_s, duration)

    def _cost(self) -> str:
        if isinstance(self.cost, str) or not self.cost:
            return str(self.cost or 0)
        return f"{self.cost:.2f} {self.currency}" + _range(self.cost_low, self.cost_high, "{:.2f}".format)


def _range(low: float | None, high: float | None, shown: Callable[[float], str]) -> str:
    return f" ({shown(low)} to {shown(high)})" if high and low is not None else ""
