"""The Python interface: load_config, plan, run and open_run do the same as the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.load import load_config as _load_config
from orchestrator.config.schema import LoadedConfig
from orchestrator.experiment.checks import checked_experiment
from orchestrator.experiment.edited_plugins import edited_since_other_runs, not_this_config
from orchestrator.experiment.run_dir import RunDir, existing
from orchestrator.forecast.dry_run import estimate
from orchestrator.forecast.estimate import Estimate
from orchestrator.runtime.backend import Backend, WorkerContext
from orchestrator.runtime.stop import StopSignal, stop_on_signals
from orchestrator.scheduling.budget import Limits, Prices
from orchestrator.spending.meter import parse_limits
from orchestrator.stages.guards import RunLimits, guarded
from orchestrator.stages.pipeline import Pipeline, Report
from orchestrator.storage.store import Store
from orchestrator.storage.uris import is_object_uri
from orchestrator.storage.writable import check_writable
from orchestrator.terminal.progress import Progress
from tasks.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.campaigns.results import Results

EXIT_COMPLETE, EXIT_ERROR, EXIT_INPUT, EXIT_STOPPED, EXIT_QUARANTINED = range(5)


@dataclass(frozen=True)
class RunResult:
    """The result of a run: the exit code as on the command line, the run directory, and a report of what was done."""

    exit_code: int
    run_dir: Path
    report: Report
    results: Results | None = None
    uri: str = ""  # URI of the run directory in an object store, which status, report and verify accept on any machine


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read and validate a config file; `overrides` are "dotted.key=value". Raises InputError."""
    return _load_config(path, overrides)


def open_pipeline(
    config: LoadedConfig,
    *,
    run_dir: str | Path | None = None,
    address: str | None = None,
    progress: Progress | None = None,
    stop: StopSignal | None = None,
) -> Pipeline:
    """Open a pipeline on the config's store without starting anything.

    `address`: 'local' runs in this process, None on a local Ray, anything else on the cluster at that address.
    Raises InputError.
    """
    store = Store(config.settings.output, f"{config.where}: output")
    experiment = checked_experiment(config, store.cache_dir)
    if run_dir and is_object_uri(str(run_dir)):
        raise InputError(
            "--run-dir", f"{run_dir} is a URI; allowed: a local folder (only output may be an object store)"
        )
    path = Path(run_dir) if run_dir else store.run_path(experiment.run_name)
    mirror = store.mirror(path)
    mirror.fetch()
    if path.exists() and not path.is_dir():
        raise InputError(path, "is a file; allowed: a folder for the run directory")
    provenance = RunDir(path).provenance()
    holds = provenance.get("run", "")
    if holds and holds.rpartition("-")[2] != experiment.run_hex:
        raise InputError(path, not_this_config(provenance, experiment, path))

    def make_backend(context: WorkerContext) -> Backend:
        return backend_for(config, address, context)

    return Pipeline(
        experiment,
        store,
        RunDir(path),
        make_backend,
        progress or Progress(quiet=True),
        stop or StopSignal(),
        mirror=mirror,
    )


def backend_for(config: LoadedConfig, address: str | None, context: WorkerContext) -> Backend:
    """Return the in-process backend for 'local', else the Ray backend. Each is imported only when it is used."""
    compute = config.settings.compute
    if address == "local":
        from orchestrator.runtime.local import LocalBackend

        return LocalBackend(context, timeout_s=compute.timeout_s)
    from orchestrator.runtime.ray_backend import RayBackend

    return RayBackend(
        context,
        workers=compute.workers,
        cpus_per_worker=compute.cpus_per_worker,
        gpus_per_worker=compute.gpus_per_worker,
        timeout_s=compute.timeout_s,
        address=address,
        accelerator=compute.accelerator,
        market=compute.market.model_dump(),
        pending_workers=compute.pending_workers,
        recycle_after=compute.recycle_after,
        start_timeout_s=compute.start_timeout_s,
    )


def check_cluster(address: str | None) -> None:
    """Check that a cluster answers at `address`; None and 'local' need no cluster. Raises InputError."""
    if address not in (None, "local"):
        from orchestrator.runtime.ray_backend import check_cluster as answers

        answers(address)


def plan(config: LoadedConfig, run_dir: str | Path | None = None) -> Estimate:
    """Estimate what a run would do, without torch and without starting anything. Raises InputError if it cannot start."""
    pipeline = open_pipeline(config, run_dir=run_dir)
    check_output(pipeline, run_dir)
    edited = edited_since_other_runs(pipeline.experiment, pipeline.store.root)
    return dataclasses.replace(estimate(pipeline), edited=tuple(edited))


def check_output(pipeline: Pipeline, run_dir: str | Path | None) -> None:
    """Check that the store and the run directory can be written to, and leave no file behind. Raises InputError."""
    where = f"{pipeline.experiment.config.where}: output"
    check_writable(pipeline.store.root, where)  # for a bucket this is the local work folder
    if run_dir:
        check_writable(Path(run_dir), "--run-dir")


def run(
    config: LoadedConfig,
    *,
    until: str = "analyse",
    run_dir: str | Path | None = None,
    address: str | None = None,
    progress: Progress | None = None,
    retry_quarantined: bool = False,
    max_gpu_hours: float | None = None,
    max_cost: float | None = None,
    deadline: str | None = None,
    wait: bool = False,
    pilot: int = 0,
) -> RunResult:
    """Run a campaign up to the stage `until`; the same call resumes it.

    `max_gpu_hours` and `max_cost` (in the currency of `prices`) limit the charges for existing nodes, busy or idle, over
    all sessions of the run. `deadline`: a time, or a duration from now. `retry_quarantined`: repeat quarantined retrains.
    `wait`: wait until another driver releases the lease of the ledger, instead of raising LeaseHeld. `pilot`: if above 0,
    run at most this many retrains of every class of retrains of similar duration (orchestrator.stages.pilot), to learn how
    long they take.

    Raises InputError for invalid input, Stopped or LeaseHeld if the run can be resumed, RefitError if it cannot continue.
    """
    limits, prices = limits_of(config, max_gpu_hours, max_cost, deadline)
    with stop_on_signals(StopSignal()) as stop:
        pipeline = open_pipeline(config, run_dir=run_dir, address=address, progress=progress, stop=stop)
        check_output(pipeline, run_dir)
        pipeline.retry_quarantined, pipeline.pilot = retry_quarantined, pilot
        with guarded(pipeline, RunLimits(limits, prices, wait)):
            report = pipeline.run(until)
            if until == "analyse":
                from orchestrator.inspection.projections import write_projections

                write_projections(pipeline)
    code = EXIT_QUARANTINED if report.quarantined else EXIT_COMPLETE
    home = f"{pipeline.store.uri}/{pipeline.mirror.prefix}" if pipeline.mirror.blobs else ""
    return RunResult(code, pipeline.run_dir.path, report, pipeline.results if until == "analyse" else None, home)


def limits_of(
    config: LoadedConfig, max_gpu_hours: float | None, max_cost: float | None, deadline: str | None
) -> tuple[Limits, Prices | None]:
    """Return the limits of a run, and the prices for its cost. Raises InputError for an invalid limit."""
    prices = config.settings.prices.table() if config.settings.prices else None
    return parse_limits(max_gpu_hours, max_cost, deadline, prices, datetime.now(UTC)), prices


class RunView:
    """A run directory opened for reading, with its tables as pandas data frames."""

    def __init__(self, path: str | Path):
        self.run_dir = existing(path)

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        path = self.run_dir.results / f"{name}.csv"
        if not path.exists():
            raise InputError(path, "no results yet; refit run writes them")
        return pd.read_csv(path)

    @property
    def store(self) -> str:
        """The store that this run is read from, chosen by RunDir.store."""
        return str(self.run_dir.config().settings.output)

    def curves(self) -> pd.DataFrame:
        """Return the deletion curves, one row per method, group and k."""
        return self._table("curves")

    def query_curves(self) -> pd.DataFrame:
        """Return the deletion curves of each query."""
        return self._table("query_curves")

    def summary(self) -> pd.DataFrame:
        """Return AUC-DEL per method and group with two 95% intervals.

        The interval `ci_low` to `ci_high` covers the variation of queries and seeds; the interval `ci_fixed_low` to
        `ci_fixed_high` covers the variation of seeds only, for these queries.
        """
        return self._table("summary")

    def contrasts(self) -> pd.DataFrame:
        """Return the differences between methods, with Holm-corrected p values."""
        return self._table("contrasts")

    def lds(self) -> pd.DataFrame:
        """Return the LDS per method of an lds campaign, with its intervals and the noise ceiling."""
        return self._table("lds")

    def query_lds(self) -> pd.DataFrame:
        """Return the LDS of each method and query of an lds campaign."""
        return self._table("query_lds")

    def checks(self) -> pd.DataFrame:
        """Return the checks of the verdicts: name, status, sentence, and numbers as JSON."""
        return self._table("checks")

    def scores(self, label: str) -> pd.DataFrame:
        """Return the scores of one method, [n_queries, n_train], with query ids as index and train ids as columns."""
        import pandas as pd

        from orchestrator.storage.tables import about_scores, read_scores_table

        run = self.run_dir.provenance().get("run")
        about = about_scores(run, label) if run else None
        query_ids, train_ids, scores = read_scores_table(self.run_dir.scores(label), about)
        return pd.DataFrame(
            scores, index=pd.Index(query_ids, name="query_id"), columns=pd.Index(train_ids, name="train_id")
        )

    def pipeline(self) -> Pipeline:
        """Open the pipeline of this run, read-only, to derive its results again."""
        pipeline = open_pipeline(self.run_dir.config(), run_dir=self.run_dir.path, address="local")
        pipeline.read_only = True
        return pipeline


def open_run(path: str | Path) -> RunView:
    """Open a run directory. Raises InputError if there is none."""
    return RunView(path)
