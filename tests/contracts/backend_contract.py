"""The contract of all backends: a subclass in a test module of its own says how to make the backend, and pytest runs it there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from influence.base import Method
from influence.checkpoint import QueryBlock
from influence.diagnostic import Diagnostic, ScoredModels
from orchestrator.records import Outcome, Work
from orchestrator.runtime import worker
from orchestrator.runtime.backend import Backend, ScoreJob, WorkerContext, ranges_of
from orchestrator.runtime.diagnosing import DiagnosticJob
from orchestrator.runtime.driver import StopSignal, drive
from orchestrator.scheduling.events import Completed, Event, Failed, WorkerJoined, WorkerLost
from orchestrator.scheduling.policies import Budgets
from orchestrator.scheduling.scheduler import Scheduler
from tasks.base import Numerics

MakeBackend = Callable[..., Backend]
PATIENCE_S = 60.0


class RowProducts(Method):
    """score = 10 query row + train row, which tests know without gradients."""

    name: ClassVar[str] = "row_products"

    def score(self, queries: Any, train: Any, prepared: Any) -> np.ndarray:
        return (10.0 * queries.rows[:, None] + train.rows[None, :]).astype(np.float32)


class CountRows(Diagnostic):
    """n = factor times the number of train rows, which tests know without a model."""

    name: ClassVar[str] = "count_rows"

    factor: int = 1

    def compute(self, models: ScoredModels) -> dict[str, Any]:
        return {"": {"n": [self.factor * len(models.task.splits["train"])]}}


def next_events(backend: Backend) -> list[Event]:
    """Return the next events, of any kind."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        events = backend.wait(0.2)
        if events:
            return events
    raise AssertionError(f"nothing happened within {PATIENCE_S:g} s")


def next_of(backend: Backend, *kinds: type) -> Any:
    """Return the next event of these kinds; skip all others."""
    while True:
        for event in next_events(backend):
            if isinstance(event, kinds):
                return event


def run_campaign(backend: Backend, works: Mapping[str, Work], retries: int = 2) -> tuple[dict[str, Outcome], Any]:
    """Return spec id -> outcome as published, and the end of the session."""
    ledger: dict[str, Outcome] = {}

    def publish(rows: Any) -> None:
        ledger.update({row.spec_id: row.outcome for row in rows})

    scheduler = Scheduler(list(works), Budgets(retries=retries))
    result = drive(scheduler, backend, publish, works, None, StopSignal(), code_version="test")
    return ledger, result


def bytes_of(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Return what must be equal between two runs: status and the bytes of the outputs."""
    return {s: (o.status, {k: v.tobytes() for k, v in o.outputs.items()}) for s, o in sorted(outcomes.items())}


class BackendContract:
    """Subclasses set `context` (options -> WorkerContext), `works` (n -> works by id) and the fixture `make_backend`."""

    context: Callable[..., WorkerContext]
    works: Callable[[int], dict[str, Work]]
    survives_crash: ClassVar[bool]  # whether the driver survives a worker that dies

    @pytest.fixture
    def make_backend(self) -> Any:
        """Return a function (context, timeout_s=None) -> a backend that is not started; it is closed after the test."""
        raise NotImplementedError

    def test_a_worker_joins_after_the_start(self, make_backend: MakeBackend) -> None:
        backend = make_backend(self.context())
        backend.start()
        assert all(isinstance(event, WorkerJoined) for event in next_events(backend))

    def test_workers_at_hand_join_again_when_it_is_started_again(self, make_backend: MakeBackend) -> None:
        backend = make_backend(self.context())
        backend.start()
        first = next_of(backend, WorkerJoined)
        backend.start()
        assert next_of(backend, WorkerJoined) == first

    def test_the_outcome_is_that_of_a_plain_function_call(self, make_backend: MakeBackend) -> None:
        context = self.context()
        (work,) = self.works(1).values()
        worker.configure(context)
        expected = worker.retrain(context, work, "here")
        backend = make_backend(context)
        backend.start()
        name = next_of(backend, WorkerJoined).worker
        backend.submit(name, work, 1)
        outcome = next_of(backend, Completed).outcome
        assert bytes_of({"": outcome}) == bytes_of({"": expected})
        assert outcome.metrics == expected.metrics
        assert outcome.worker == name

    @pytest.mark.parametrize(("fault", "kind"), [("raise", "error"), ("oom", "host_memory")])
    def test_a_failed_retrain_is_reported_and_its_worker_lives_on(
        self, make_backend: MakeBackend, fault: str, kind: str
    ) -> None:
        bad, good = self.works(2).values()
        backend = make_backend(self.context(faults={bad.spec_id: fault}))
        backend.start()
        name = next_of(backend, WorkerJoined).worker
        backend.submit(name, bad, 1)
        failed = next_of(backend, Failed)
        assert (failed.worker, failed.spec_id, failed.kind) == (name, bad.spec_id, kind)
        assert "injected fault" in failed.message
        assert "\n" not in failed.message
        backend.submit(name, good, 1)
        assert next_of(backend, Completed).outcome.spec_id == good.spec_id

    def test_divergence_is_a_result(self, make_backend: MakeBackend) -> None:
        (work,) = self.works(1).values()
        backend = make_backend(self.context(faults={"*": "nan"}))
        backend.start()
        backend.submit(next_of(backend, WorkerJoined).worker, work, 1)
        assert next_of(backend, Completed).outcome.status == "diverged"

    def test_a_retrain_that_hangs_ends_as_a_timeout_and_others_go_on(self, make_backend: MakeBackend) -> None:
        bad, good = self.works(2).values()
        backend = make_backend(self.context(faults={bad.spec_id: "hang"}), timeout_s=1.5)
        backend.start()
        backend.submit(next_of(backend, WorkerJoined).worker, bad, 1)
        ended = next_of(backend, Failed, WorkerLost)
        while not isinstance(
            ended, Completed
        ):  # on a busy machine the first retrain of a new process may take too long
            assert ended.kind == "timeout"
            name = ended.worker if isinstance(ended, Failed) else next_of(backend, WorkerJoined).worker
            backend.submit(name, good, 1)
            ended = next_of(backend, Completed, Failed, WorkerLost)
        assert ended.outcome.spec_id == good.spec_id

    def test_work_for_a_busy_or_unknown_worker_is_refused(self, make_backend: MakeBackend) -> None:
        first, second = self.works(2).values()
        backend = make_backend(self.context())
        backend.start()
        name = next_of(backend, WorkerJoined).worker
        backend.submit(name, first, 1)
        with pytest.raises(ValueError, match="idle worker"):
            backend.submit(name, second, 1)
        with pytest.raises(ValueError, match="idle worker"):
            backend.submit("nobody", second, 1)

    def test_waiting_for_nothing_ends_after_its_time_with_nothing(self, make_backend: MakeBackend) -> None:
        backend = make_backend(self.context())
        backend.start()
        next_of(backend, WorkerJoined)
        before = time.monotonic()
        assert backend.wait(0.2) == []
        assert time.monotonic() - before >= 0.19

    def test_closing_twice_is_closing_once(self, make_backend: MakeBackend) -> None:
        backend = make_backend(self.context())
        backend.start()
        next_of(backend, WorkerJoined)
        backend.close()
        backend.close()

    def test_the_probe_fills_in_what_only_a_worker_knows(self, make_backend: MakeBackend) -> None:
        backend = make_backend(self.context())
        backend.start()
        found = backend.probe(Numerics(threads=1))
        assert found.device_model
        assert found.torch
        assert replace(found, device_model="", torch="") == Numerics(threads=1)

    def test_every_range_is_scored_once(self, make_backend: MakeBackend) -> None:
        context = self.context()
        ranges = ranges_of(len(context.task.splits["train"]), 5)
        queries = QueryBlock("test", np.array([100, 102]), np.array([0, 2]), np.array([0, 0]))
        backend = make_backend(context)
        backend.start()
        job = ScoreJob({"rows": RowProducts()}, {"rows": None}, [], queries, ranges)
        blocks = sorted(backend.score(job), key=lambda block: block.start)
        assert [(block.start, block.stop) for block in blocks] == ranges
        found = np.concatenate([block.scores["rows"] for block in blocks], axis=1)
        n_train = len(context.task.splits["train"])
        np.testing.assert_array_equal(found, [np.arange(n_train), 20 + np.arange(n_train)])

    def test_every_diagnostic_of_a_job_is_computed_once(self, make_backend: MakeBackend) -> None:
        backend = make_backend(self.context())
        backend.start()
        given = {label: {"checkpoints": [], "queries": QueryBlock("test", *[np.zeros(2, int)] * 3)} for label in "abc"}
        counts = {label: CountRows(factor=factor) for factor, label in enumerate("abc", start=1)}
        job = DiagnosticJob(counts, given, [(0, 1), (1, 2), (2, 3)])
        blocks = list(backend.score(job))
        assert len(blocks) == 3
        assert all(not block.scores for block in blocks)
        n_train = len(self.context().task.splits["train"])
        found = {label: tables for block in blocks for label, tables in block.tables.items()}
        assert found == {label: {"": {"n": [factor * n_train]}} for factor, label in enumerate("abc", start=1)}

    def test_a_campaign_that_survived_faults_ends_with_the_bytes_of_a_quiet_one(
        self, make_backend: MakeBackend, tmp_path: Any
    ) -> None:
        works = self.works(6)
        faults = ["raise", "oom", "nan", "exit"] if self.survives_crash else ["raise", "oom"]
        plan = {s: f"{fault}@{tmp_path / fault}" for s, fault in zip(works, faults, strict=False) if fault != "nan"}
        quiet, _ = run_campaign(make_backend(self.context()), works)
        faulty, result = run_campaign(make_backend(self.context(faults=plan)), works)
        assert bytes_of(faulty) == bytes_of(quiet)
        assert result.complete
        assert result.n_attempts == len(works) + len(plan)

    def test_what_always_fails_is_quarantined_and_the_rest_is_done(self, make_backend: MakeBackend) -> None:
        works = self.works(4)
        bad = list(works)[1]
        fault = "exit" if self.survives_crash else "raise"
        ledger, result = run_campaign(make_backend(self.context(faults={bad: fault})), works, retries=1)
        assert ledger[bad].status == "quarantined"
        assert ledger[bad].error
        assert (result.n_ok, result.n_quarantined, result.complete) == (3, 1, True)
