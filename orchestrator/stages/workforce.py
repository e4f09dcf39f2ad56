"""The workers of a run: the backend, which starts when something must be computed, and the numerics that all workers use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ParamSpec, TypeVar

from orchestrator.experiment.arm import placed, where_of
from orchestrator.experiment.checks import check_networks
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.run_dir import (
    RunDir,
    code_version,
    git_commit,
    require_same_numerics,
    require_same_settings,
    versions,
)
from orchestrator.runtime.backend import Backend, WorkerContext
from orchestrator.runtime.driver import SpendMeter, StopSignal
from orchestrator.runtime.environment import numpy_settings
from orchestrator.runtime.machine import cpu_numerics
from orchestrator.runtime.patience import patient
from orchestrator.stages.scoring_models import Unfinished
from orchestrator.storage.ledger import record_key
from orchestrator.storage.run_mirror import RunMirror
from orchestrator.storage.store import Store
from tasks.base import Numerics
from tasks.sources import source_digests

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
BackendFactory = Callable[[WorkerContext], Backend]


class Stopped(Unfinished):
    """The run stopped early (Ctrl-C, budget or deadline); the same command resumes it."""


@dataclass
class Workforce:
    """The backend of one run, with its numerics and the context of its workers.

    `read_only`: nothing is trained, so the pinned numerics are used unchanged. `is_running`: True while Pipeline.run executes.
    """

    experiment: Experiment
    store: Store
    run_dir: RunDir
    make_backend: BackendFactory
    mirror: RunMirror
    stop: StopSignal
    meter: SpendMeter | None = None
    read_only: bool = False
    is_running: bool = False
    _backend: Backend | None = None

    @cached_property
    def numerics(self) -> Numerics:
        """The numerics of this campaign, pinned in the run directory at the first retrain.

        Raises InputError if this machine's numerics differ from the pinned ones.
        """
        compute, pinned = self.experiment.settings.compute, self.run_dir.numerics()
        if self.read_only and pinned:
            return pinned
        now = cpu_numerics(compute.threads, compute.micro_batch, compute.length_group_cost, compute.frozen_trunk)
        if compute.trains_on == "cuda":  # only a worker can determine the GPU model and the torch build
            asked = {
                name: getattr(now, name) for name in ("threads", "micro_batch", "length_group_cost", "frozen_trunk")
            }
            now = (
                dataclasses.replace(pinned, **asked, device="cuda")
                if pinned
                else self._probe(dataclasses.replace(now, device="cuda", device_model=""))
            )
        require_same_numerics(pinned, now, self.run_dir.provenance_path)
        if pinned:
            recorded = self.run_dir.provenance().get("numpy_environment")
            require_same_settings(recorded, dict(numpy_settings()), self.run_dir.provenance_path)
        return now

    @property
    def known_numerics(self) -> Numerics | None:
        """The numerics; None while only a worker with a GPU could determine them."""
        on_gpu = self.experiment.settings.compute.trains_on == "cuda"
        return None if on_gpu and self.run_dir.numerics() is None else self.numerics

    def _probe(self, numerics: Numerics) -> Numerics:
        self._backend = self.make_backend(self.context(numerics))
        try:
            self._backend.start()
            return self._backend.probe(numerics, self.alive)
        finally:
            self.close()

    def alive(self) -> None:
        """Charge the present machines, and raise Stopped if the run should stop. It is called during every wait."""
        left_s = self.meter.tick(self._backend.nodes() if self._backend else []) if self.meter else None
        over = self.meter.reason if self.meter and left_s is not None and left_s <= 0 else None
        if reason := self.stop.reason or over:
            raise Stopped(f"stopped ({reason}); finished work is kept")

    def patiently(self, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        """Wrap a store operation so that it is retried during an outage while a run executes.

        A run has machines that an outage would waste. A command that only reads fails at once instead.
        """
        return patient(function, meanwhile=self.alive) if self.is_running else function

    def backend(self) -> Backend:
        """Return the backend, started on first use. Raises Stopped if the run should stop while the first worker is starting."""
        if self._backend is None:
            numerics = self.numerics
            self.pin()
            self._backend = self.make_backend(self.context())
            self._backend.start()
            require_same_numerics(numerics, self._backend.probe(numerics, self.alive), self.run_dir.provenance_path)
        return self._backend

    def close(self) -> None:
        """Stop the backend if it was started."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    def context(self, numerics: Numerics | None = None) -> WorkerContext:
        """Return everything that a worker needs, with the prepared task of every arm."""
        experiment = self.experiment
        tasks = {label: arm.task for label, arm in experiment.arms.items()}
        for label, task in tasks.items():
            with placed(where_of(label, experiment.config)):
                task.prepare()
        check_networks(experiment)
        return WorkerContext(
            experiment.task,
            numerics or self.numerics,
            self.store.checkpoints,
            tasks=tasks,
            observers=experiment.config.observers,
            landmark=self._landmark(),
            sources=experiment.sources,
            snapshot_s=experiment.settings.compute.snapshot_s,
            solutions=self.store.solutions,
        )

    def _landmark(self) -> str:
        """Return the store key of the ledger's record, which a driver writes first and workers look for; "" if the store has none yet."""
        key = record_key(self.experiment.task_id)
        return key if self.patiently(self.store.blobs.exists)(key) else ""

    def pin(self) -> None:
        """Write config.yaml and provenance.json, which fix the numerics of the run from now on."""
        experiment = self.experiment
        self.run_dir.write(
            experiment.config,
            experiment.task,
            {
                "run": experiment.run_name,
                "task_id": experiment.task_id,
                "task_ids": sorted(set(experiment.task_ids.values())),
                "train_digest": experiment.train_digest,
                "model": experiment.model_identity,
                "recipe": experiment.recipe_identity,
                "plugins": source_digests(experiment.sources),
                "numerics": self.numerics.identity(),
                "numpy_environment": dict(numpy_settings()),
                "seeds": list(experiment.seeds),
                "scoring_seeds": list(experiment.scoring_seeds),
                "store": self.store.uri,
                "in_store": self.run_dir.path.absolute().parent == self.store.root,
                "config_dir": str(experiment.config.base_dir.resolve()),
                "config_file": experiment.config.path.name,
                "overrides": list(experiment.config.overrides),
                "code_version": code_version(),
                "git_commit": git_commit(),
                "versions": versions(),
            },
        )
        self.patiently(self.mirror.publish)()  # before anything is trained under these numerics
