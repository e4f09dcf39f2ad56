"""Guards: context managers that are entered before the stages of a run and ended after them.

They write the log file, hold the leases of the ledgers, upload the run directory, and charge the machines.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from orchestrator.experiment.edited_plugins import edited_since_other_runs
from orchestrator.scheduling.budget import Limits, Prices
from orchestrator.spending.book import SpendBook
from orchestrator.spending.meter import RunMeter
from orchestrator.stages.run_state import RunState
from orchestrator.storage.hold import held
from orchestrator.storage.lease import Lease
from orchestrator.storage.refusals import describe_os_error
from orchestrator.storage.run_mirror import RunMirror
from tasks.errors import InputError, RefitError

PUBLISH_EVERY_S = 300.0
log = logging.getLogger("refit")


@dataclass(frozen=True)
class RunLimits:
    """What the run may spend over all its sessions, and whether this session waits for a lease that another driver holds.

    `prices` are used to compute the cost, which `limits` may restrict.
    """

    limits: Limits
    prices: Prices | None = None
    wait: bool = False


@contextmanager
def log_file(run: RunState, limits: RunLimits) -> Iterator[None]:
    """Write Refit's log to refit.log in the run directory while the body runs. Raises InputError."""
    path = run.run_dir.path
    try:
        path.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path / "refit.log", encoding="utf-8")
    except OSError as error:
        raise InputError(path, f"cannot be written: {describe_os_error(error)}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("refit", "orchestrator")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    except Exception as error:
        if not isinstance(error, RefitError):
            loggers[0].exception("internal error")
        raise
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        handler.close()


@contextmanager
def leases(run: RunState, limits: RunLimits) -> Iterator[None]:
    """Hold the lease of every ledger that the run writes to. Raises LeaseHeld if another driver has one and `wait` is false."""
    with ExitStack() as stack:
        for task_id in sorted(set(run.experiment.task_ids.values())):
            lease = Lease(run.store.blobs, task_id)
            stack.enter_context(held(lease, limits.wait, run.progress.say, lambda: run.stop.reason, run.stop.request))
        yield


@contextmanager
def upload(run: RunState, limits: RunLimits) -> Iterator[None]:
    """Upload the run directory to the store every PUBLISH_EVERY_S seconds while the body runs, and at its end.

    This guard is entered after the leases, so that they are still held during the last upload. It first fetches the run directory,
    because another driver may have written the numerics into it before this driver acquired the leases.
    """
    for warning in edited_since_other_runs(run.experiment, run.store.root):
        log.warning(warning)
    done = threading.Event()

    def upload_regularly() -> None:
        while not done.wait(PUBLISH_EVERY_S):
            _upload(run.mirror, log.warning)

    thread = threading.Thread(target=upload_regularly, name="refit-mirror", daemon=True)
    thread.start()
    try:
        run.mirror.fetch()
        yield
    finally:
        done.set()
        thread.join()
        _upload(run.mirror, run.progress.say)


def _upload(mirror: RunMirror, say: Callable[[str], object]) -> None:
    try:
        mirror.publish()
    except OSError as error:
        say(f"warning: the run directory could not be uploaded ({error}); repeat the command to upload it")


@contextmanager
def meter(run: RunState, limits: RunLimits) -> Iterator[None]:
    """Charge the machines of the run to its spend book, and stop it at its limits."""
    compute = run.experiment.settings.compute
    run.meter = RunMeter.open(
        SpendBook(run.store.blobs, run.experiment.run_name),
        limits.limits,
        limits.prices,
        gpus_per_worker=compute.gpus_per_worker,
        market=compute.market.retrains,
        warn=run.progress.say,
    )
    yield


GUARDS = (log_file, leases, upload, meter)  # in the order in which they are entered; they end in the opposite order


@contextmanager
def guarded(run: RunState, limits: RunLimits) -> Iterator[None]:
    """Enter every guard, one after the other, around the body."""
    with ExitStack() as stack:
        for guard in GUARDS:
            stack.enter_context(guard(run, limits))
        yield
