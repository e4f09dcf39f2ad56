"""The work of a worker as plain functions, which both the in-process backend and the Ray backend run."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.records import Outcome, Work
from orchestrator.runtime.backend import Job, ScoreBlock, ScoreJob, WorkerContext
from orchestrator.runtime.clock import SystemClock
from orchestrator.runtime.diagnosing import Diagnoser, DiagnosticJob
from orchestrator.runtime.environment import differences, settings
from orchestrator.runtime.machine import cpu_model
from orchestrator.runtime.patience import patient
from orchestrator.runtime.snapshots import TimedSnapshots
from orchestrator.runtime.solving import RangeSolver, SolveJob, stored_solutions
from orchestrator.scheduling.events import FailureKind
from orchestrator.scheduling.policies import Backoff
from orchestrator.storage.blobs import StoreAwayError
from orchestrator.storage.refusals import StoreRefusesError
from tasks.base import Numerics, Split
from tasks.errors import GivenBack, RefitError, SourceChangedError
from tasks.hooks import overrides
from tasks.recipe import Trained, Training
from tasks.sources import require_late_imports, require_sources
from tasks.task import Task

if TYPE_CHECKING:
    from influence.scoring import Scorer

    Performer = Scorer | RangeSolver | Diagnoser

LONGEST_MESSAGE = 500
JOINING = Backoff(limit=3)  # retries of the store while a worker joins; short, since the worker has no work yet
# Some allocators report a lack of memory as a plain RuntimeError, recognised by its text: torch's CPU allocator, and
# the workspaces of cuBLAS and cuDNN.
HOST_MEMORY_TEXTS = ("can't allocate memory",)
DEVICE_MEMORY_TEXTS = ("out of memory", "STATUS_ALLOC_FAILED")


def configure(context: WorkerContext) -> None:
    """Set threads and determinism of this process and prepare the tasks; called once, in the thread that will train.

    Raises RefitError if this machine does not match the pinned numerics (no delta is taken across numerics), has other
    source code of a plugin than the driver, or does not find the driver's store.
    """
    from tasks.training import deterministic

    require_sources(context.sources)
    deterministic(context.numerics)  # must run before CUDA is initialised
    check_numerics(context.numerics)
    if context.landmark and context.checkpoints is not None:
        patient(context.checkpoints.require, backoff=JOINING)(context.landmark)
    numerics = resolve_numerics(context.numerics)
    for task in context.tasks.values() or [context.task]:
        task.prepare()
        task.prepare_for(numerics)


def check_numerics(pinned: Numerics) -> None:
    """Check this process against the pinned numerics; empty fields are not pinned. Raises RefitError with the difference."""
    here = resolve_numerics(pinned)
    for name in ("device_model", "torch"):
        wanted, found = getattr(pinned, name), getattr(here, name)
        if wanted and wanted != found:
            raise RefitError(f"numerics: {name} is {found!r} on this worker, the run is pinned to {wanted!r}")
    changed = differences(dict(pinned.environment), dict(here.environment))
    if pinned.device_model and changed:  # without a device model nothing is pinned yet, and a probe will fill it in
        raise RefitError(f"numerics: environment variables of this worker are not those of the run: {changed}")


def resolve_numerics(numerics: Numerics) -> Numerics:
    """Return `numerics` with this machine's device model, torch version and environment variables filled in."""
    import torch

    return replace(
        numerics,
        device_model=device_model(numerics.device),
        torch=str(torch.__version__),
        environment=settings(numerics.device, numerics.threads),
    )


@cache
def device_model(device: str) -> str:
    """Return the model name of a device: the name of the GPU or of the CPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(torch.device(device))
    return cpu_model()


def retrain(
    context: WorkerContext, work: Work, worker: str, give_back: threading.Event | None = None, attempt: int = 1
) -> Outcome:
    """Train one spec and record its outputs on all measured splits; resume from the spec's snapshot if there is one.

    `give_back`: once another thread sets it, a resumable training stores a snapshot and raises GivenBack. `attempt`
    counts the attempts in this session; the first one reads a snapshot only if an earlier session has left one. The
    outcome's `seconds` include the earlier attempts that led to the resumed snapshot.

    The status is diverged if the training or any output is not finite; such an outcome has finite metrics and no outputs.
    All other failures are raised; `classify` returns their kind.
    """
    started = time.perf_counter()
    fault = inject(context.faults, work.spec_id)
    task = context.task_of(work.arm)
    snapshots = snapshots_of(context, task, work, give_back, attempt)
    trained = train(context, task, work, snapshots)
    outputs = measured_outputs(context, task, trained)
    if fault == "nan":
        outputs = {split: np.full_like(values, np.nan) for split, values in outputs.items()}
    require_late_imports(context.sources)
    diverged = trained.diverged or not all(are_finite(values, work) for values in outputs.values())
    return Outcome(
        work.spec_id,
        "diverged" if diverged else "ok",
        outputs={} if diverged else outputs | observed_outputs(trained),
        metrics=finite(trained.metrics) if diverged else trained.metrics | accuracies(task, outputs),
        seconds=time.perf_counter() - started + (snapshots.seconds_before if snapshots else 0.0),
        worker=worker,
        device=device_model(context.numerics.device),
    )


def snapshots_of(
    context: WorkerContext, task: Task, work: Work, give_back: threading.Event | None, attempt: int = 1
) -> TimedSnapshots | None:
    """Return the snapshots of this attempt; None if it is never stored.

    That is so without a store, without an interval or a stop request that could cause a snapshot, for an edit of mode
    `each`, and for a recipe that cannot be resumed. The steps whose weights are kept and the observers are not part of
    the spec, so they are recorded in the snapshot: one that was made without them cannot serve a retrain that needs them.
    """
    resumable = task.recipe.resumable and work.edit.mode != "each"
    if context.checkpoints is None or not resumable or (context.snapshot_s is None and give_back is None):
        return None
    observers = [observer.identity() for observer in context.observers]
    asked = {"keep_steps": sorted(map(int, work.keep_steps)), "observers": observers}
    store = context.checkpoints.progress(work.spec_id)
    may_exist = attempt > 1 or context.checkpoints.may_have_progress(work.spec_id)
    return TimedSnapshots(store, context.snapshot_s, SystemClock(), give_back, asked, may_exist)


def train(context: WorkerContext, task: Task, work: Work, snapshots: TimedSnapshots | None = None) -> Trained:
    """Run the recipe: one training, or the stack of an edit of mode `each`, with a parent's weights from the checkpoints.

    Observers are started for each training; a stack has no single network to observe. If the store is unavailable, its
    operations are retried, so that the training is not lost.
    """
    training = Training(work.edit, work.spec.seed, context.numerics)
    if work.edit.mode == "each":
        return task.recipe.train_each(task, training)
    keep = patient(context.checkpoints.keeper(work.spec_id)) if context.checkpoints and work.keep_steps else None
    watched = replace(
        training,
        keep_steps=work.keep_steps,
        keep=keep,
        observers=[observer.start(task, context.numerics.device) for observer in context.observers],
        parent=parent_weights(context, work),
        snapshots=snapshots,
    )
    return task.recipe.train(task, watched)


def parent_weights(context: WorkerContext, work: Work) -> Mapping[str, np.ndarray] | None:
    """Load the weights of a retrain's parent; None if it has no parent. Raises RefitError if there is no store to read."""
    parent = work.spec.parent
    if parent is None:
        return None
    if context.checkpoints is None:
        raise RefitError(f"{work.spec_id} starts from {parent['spec_id']}, but there is no checkpoint store")
    return patient(context.checkpoints.load)(parent["spec_id"], parent["step"])


def are_finite(values: np.ndarray, work: Work) -> bool:
    """Return whether all outputs are finite. In a stack one finite value suffices: diverged members are holes of NaN."""
    finite = np.isfinite(values)
    return bool(finite.any() if work.edit.mode == "each" else finite.all())


def measured_outputs(context: WorkerContext, task: Task, trained: Trained) -> dict[str, np.ndarray]:
    """Return measured split -> outputs float32 [n_rows, n_outputs]; of a stack [n_each, n_rows, n_outputs]."""
    if trained.outputs is not None:
        return {split: np.ascontiguousarray(values, np.float32) for split, values in trained.outputs.items()}
    network, device = trained.network, context.numerics.device
    assert network is not None  # only a stack has no network, and it returns outputs
    return {
        split: np.ascontiguousarray(task.outputs(network, split, rows, device=device), np.float32)
        for split, rows in task.measured.items()
    }


def observed_outputs(trained: Trained) -> dict[str, np.ndarray]:
    """Return `<observer>/<key>@<step>` -> float32 array."""
    return {key: np.ascontiguousarray(values, np.float32) for key, values in trained.observed.items()}


def accuracies(task: Task, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return `accuracy/<split>` -> fraction of rows whose largest output is their label.

    Splits without one output per class or with a single class are left out, and so are all splits of a task whose labels
    the model itself decides.
    """
    found: dict[str, float] = {}
    if overrides(task, Task.query_labels):
        return found
    for split, values in outputs.items():
        data: Split = task.splits[split]
        if len(values) and len(data.classes) > 1 and values.shape == (len(task.measured[split]), len(data.classes)):
            labels = data.labels[task.measured[split]]
            found[f"accuracy/{split}"] = float(np.mean(values.argmax(axis=1) == labels))
    return found


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the finite metrics. NaN is dropped because it is not equal to itself, and the ledger compares rows."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def make_scorer(context: WorkerContext, job: ScoreJob) -> Scorer:
    """Return the scorer of one process, which holds the gradients of the queries and scores ranges of train rows."""
    from influence.scoring import Scorer

    return Scorer(
        context.task_of(job.arm),
        job.checkpoints,
        job.queries,
        job.methods,
        job.prepared,
        context.numerics.device,
        stored={
            label: stored_solutions(patient(context.solutions.load), score_id)
            for label, score_id in job.solved.items()
            if context.solutions is not None
        },
    )


def ready_for(context: WorkerContext, job: Job) -> Performer:
    """Return the object that carries out a job in one process, range by range."""
    task, device = context.task_of(job.arm), context.numerics.device
    if isinstance(job, DiagnosticJob):
        return Diagnoser(task, job, device)
    if isinstance(job, SolveJob):
        assert context.solutions is not None  # the driver has one, since it asks
        return RangeSolver(task, job, device, patient(context.solutions.put))
    return make_scorer(context, job)


def score_block(context: WorkerContext, performer: Performer, start: int, stop: int) -> ScoreBlock:
    """Compute the scores of train rows [start, stop), or the diagnostics or the solutions at these positions."""
    started = time.perf_counter()
    if isinstance(performer, Diagnoser):
        found = ScoreBlock(start, stop, {}, tables=performer.tables(start, stop))
    elif isinstance(performer, RangeSolver):
        performer.solve(start, stop)
        found = ScoreBlock(start, stop, {})
    else:
        found = ScoreBlock(start, stop, performer.score_range(start, stop), diagnostics=performer.diagnostics)
    require_late_imports(context.sources)
    seconds, device = time.perf_counter() - started, device_model(context.numerics.device)
    return replace(found, seconds=seconds, device=device)


def classify(error: BaseException) -> FailureKind:
    """Return the kind of failure of an exception that was raised during training or scoring."""
    import torch

    if isinstance(error, GivenBack):
        return "preempted"
    if isinstance(error, StoreAwayError):
        return "storage"
    if isinstance(error, StoreRefusesError):
        return "store_refused"
    if isinstance(error, SourceChangedError):
        return "source_changed"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, MemoryError) or _mentions(error, HOST_MEMORY_TEXTS):
        return "host_memory"
    if isinstance(error, torch.OutOfMemoryError) or _mentions(error, DEVICE_MEMORY_TEXTS):
        return "out_of_memory"
    return "error"


def _mentions(error: BaseException, texts: Sequence[str]) -> bool:
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def describe(error: BaseException) -> str:
    """Describe an exception in one line, "Type: text (file:line)", where file and line are those of the innermost frame.

    For the exceptions that end the session, StoreRefusesError and SourceChangedError, this is the text alone.
    """
    text = " ".join(str(error).split())[:LONGEST_MESSAGE]
    if isinstance(error, StoreRefusesError):
        return text
    if isinstance(error, SourceChangedError):
        return error.problem
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({'/'.join(Path(frames[-1].filename).parts[-3:])}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def inject(faults: Mapping[str, str], spec_id: str) -> str | None:
    """Inject the fault that `faults` names for this spec, or for "*"; used by tests only.

    raise: raise an error; exit: end the process; hang: never return; oom: raise MemoryError; nan: return "nan", and the
    caller replaces the outputs by NaN. "<fault>@<path>" happens once, in the process that creates `path` first.
    """
    fault, _, marker = faults.get(spec_id, faults.get("*", "")).partition("@")
    if not fault or (marker and not _claim(Path(marker))):
        return None
    if fault == "raise":
        raise RuntimeError("injected fault")
    if fault == "exit":
        os._exit(1)
    if fault == "oom":
        raise MemoryError("injected fault")
    while fault == "hang":
        time.sleep(0.05)  # short, so that signals are handled
    return fault


def _claim(marker: Path) -> bool:
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


__all__ = [
    "accuracies",
    "check_numerics",
    "classify",
    "configure",
    "describe",
    "device_model",
    "inject",
    "make_scorer",
    "measured_outputs",
    "ready_for",
    "resolve_numerics",
    "retrain",
    "score_block",
    "train",
]
