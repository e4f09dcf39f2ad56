"""What a worker does, as plain functions: the in-process twin and Ray run exactly these."""

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
from orchestrator.runtime.backend import ScoreBlock, ScoreJob, WorkerContext
from orchestrator.runtime.clock import SystemClock
from orchestrator.runtime.environment import differences, settings
from orchestrator.runtime.machine import cpu_model
from orchestrator.runtime.patience import patient
from orchestrator.runtime.snapshots import TimedSnapshots
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

LONGEST_MESSAGE = 500
JOINING = Backoff(limit=3)  # for the store: longer than this nobody waits for a worker that has not begun
# Allocators that report through a plain RuntimeError: torch's CPU allocator, cuBLAS and cuDNN workspaces.
HOST_MEMORY_TEXTS = ("can't allocate memory",)  # torch's allocator for the CPU
DEVICE_MEMORY_TEXTS = ("out of memory", "STATUS_ALLOC_FAILED")


def configure(context: WorkerContext) -> None:
    """Set threads and determinism of this process, and prepare the task; once, in the thread that will train.

    Raises RefitError if this machine is not of the kind the numerics are pinned to (no delta is taken across numerics), has other
    source of a plugin than the driver, or does not see the driver's store.
    """
    from tasks.training import deterministic

    require_sources(context.sources)
    deterministic(context.numerics)  # before anything touches CUDA
    check_numerics(context.numerics)
    if context.landmark and context.checkpoints is not None:
        patient(context.checkpoints.require, backoff=JOINING)(context.landmark)
    for task in context.tasks.values() or [context.task]:
        task.prepare()


def check_numerics(pinned: Numerics) -> None:
    """Raise RefitError naming what of the pinned numerics is different here; empty fields are not pinned."""
    here = resolve_numerics(pinned)
    for name in ("device_model", "torch"):
        wanted, found = getattr(pinned, name), getattr(here, name)
        if wanted and wanted != found:
            raise RefitError(f"numerics: {name} is {found!r} on this worker, the run is pinned to {wanted!r}")
    changed = differences(dict(pinned.environment), dict(here.environment))
    if pinned.device_model and changed:  # without a device model nothing is pinned: a probe fills in what is here
        raise RefitError(f"numerics: environment variables of this worker are not those of the run: {changed}")


def resolve_numerics(numerics: Numerics) -> Numerics:
    """`numerics` with this machine's device model, torch version and environment variables filled in."""
    import torch

    return replace(
        numerics,
        device_model=device_model(numerics.device),
        torch=str(torch.__version__),
        environment=settings(numerics.device, numerics.threads),
    )


@cache
def device_model(device: str) -> str:
    """The make of a device: the GPU's name, or the CPU's model name."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(torch.device(device))
    return cpu_model()


def retrain(
    context: WorkerContext, work: Work, worker: str, give_back: threading.Event | None = None, attempt: int = 1
) -> Outcome:
    """Train one spec and record the outputs on all measured splits; go on from the spec's snapshot if there is one.

    `give_back`: once another thread sets it, a resumable training is stored and raises GivenBack. `attempt`: its number in
    this session; a first one looks for a snapshot only if an earlier session left one. `seconds` are those of this attempt
    and of the earlier ones that it goes on from.

    Status is diverged if the training or any output is not finite: such an outcome has its finite metrics, no outputs.
    Whatever else goes wrong is raised; `classify` says what kind of failure it is.
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
    """When this attempt is stored; None if it never is: no store, no occasion, a stack, or a recipe that cannot resume.

    Checkpoints to keep and observers are no part of the spec: a snapshot without them is of no use to a retrain that
    is asked for them.
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
    """Run the recipe: one training, or the stack of an edit of mode `each`. A parent's weights come from the checkpoints.

    Observers are begun anew for each training; a stack has no single network to look at. A store that is away is waited
    for: what has been trained is worth more than the minutes.
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
    """The weights that a retrain starts from; None if it starts afresh. Raises RefitError if there is no store to read."""
    parent = work.spec.parent
    if parent is None:
        return None
    if context.checkpoints is None:
        raise RefitError(f"{work.spec_id} starts from {parent['spec_id']}, and there is no checkpoint store")
    return patient(context.checkpoints.load)(parent["spec_id"], parent["step"])


def are_finite(values: np.ndarray, work: Work) -> bool:
    """Whether outputs are numbers; of a stack, those of at least one member (the others are holes)."""
    finite = np.isfinite(values)
    return bool(finite.any() if work.edit.mode == "each" else finite.all())


def measured_outputs(context: WorkerContext, task: Task, trained: Trained) -> dict[str, np.ndarray]:
    """Measured split -> outputs float32 [n_rows, n_outputs]; of a stack [n_each, n_rows, n_outputs]."""
    if trained.outputs is not None:
        return {split: np.ascontiguousarray(values, np.float32) for split, values in trained.outputs.items()}
    network, device = trained.network, context.numerics.device
    assert network is not None  # only a stack has none, and it has outputs
    return {
        split: np.ascontiguousarray(task.outputs(network, split, rows, device=device), np.float32)
        for split, rows in task.measured.items()
    }


def observed_outputs(trained: Trained) -> dict[str, np.ndarray]:
    """`<observer>/<key>@<step>` -> float32 array."""
    return {key: np.ascontiguousarray(values, np.float32) for key, values in trained.observed.items()}


def accuracies(task: Task, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`accuracy/<split>` -> share of rows whose largest output is their label, for splits with one output per class.

    None where there is nothing to be right about: one class, or labels that the model itself decides.
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
    """The metrics that are numbers: NaN is not equal to itself, and the ledger compares rows."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def make_scorer(context: WorkerContext, job: ScoreJob) -> Scorer:
    """The gradients and scores of one process: it holds the queries' gradients, and scores ranges of train rows."""
    from influence.scoring import Scorer

    return Scorer(
        context.task_of(job.arm), job.checkpoints, job.queries, job.methods, job.prepared, context.numerics.device
    )


def score_block(context: WorkerContext, scorer: Scorer, start: int, stop: int) -> ScoreBlock:
    """Scores of train rows [start, stop)."""
    started = time.perf_counter()
    scores = scorer.score_range(start, stop)
    require_late_imports(context.sources)
    seconds, device = time.perf_counter() - started, device_model(context.numerics.device)
    return ScoreBlock(start, stop, scores, seconds, device, scorer.diagnostics)


def classify(error: BaseException) -> FailureKind:
    """What kind of failure an exception raised while training is."""
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
    if isinstance(error, MemoryError) or _says(error, HOST_MEMORY_TEXTS):
        return "host_memory"
    if isinstance(error, torch.OutOfMemoryError) or _says(error, DEVICE_MEMORY_TEXTS):
        return "out_of_memory"
    return "error"


def _says(error: BaseException, texts: Sequence[str]) -> bool:
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def describe(error: BaseException) -> str:
    """One line for people: "Type: text (file:line)" with the innermost frame; of what ends the session the text alone."""
    text = " ".join(str(error).split())[:LONGEST_MESSAGE]
    if isinstance(error, StoreRefusesError):
        return text
    if isinstance(error, SourceChangedError):
        return error.problem
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({'/'.join(Path(frames[-1].filename).parts[-3:])}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def inject(faults: Mapping[str, str], spec_id: str) -> str | None:
    """Tests only: fail the way `faults` asks for this spec ("*": for every spec).

    raise: an error; exit: the process dies; hang: never returns; oom: out of memory; nan: returned, for the caller to
    spoil the outputs. "<fault>@<path>" happens once, in whichever process creates `path` first.
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
        time.sleep(0.05)  # short, so that signals and thread kills are seen
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
    "resolve_numerics",
    "retrain",
    "score_block",
    "train",
]
