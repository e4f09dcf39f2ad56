"""Retrains that are stored, given back, killed and gone on with, through the real store."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.records import RetrainSpec, Work
from orchestrator.runtime import worker
from orchestrator.runtime.backend import WorkerContext
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.checkpoints import CheckpointStore
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import GivenBack
from tasks.models.text_cnn import TextCNN
from tasks.models.transformer import Transformer
from tasks.recipes.finetune import Finetune
from tests.fakes import token_task

TRANSFORMER = Transformer(layers=1, hidden=8, heads=2, max_length=16, dropout=0.2)
CNN = TextCNN(embedding_dim=8, filters=4)
N_STEPS = 15
RECIPE = Finetune(
    epochs=3, batch_size=5, optimizer="adamw", learning_rate=0.01, weight_decay=0.1, warmup_frac=0.4, schedule="linear"
)
WORK = Work(RetrainSpec("t", "m", "r", {}, 3, {}), Edit.removal([101, 105]), keep_steps=(2, N_STEPS))
MINUTES = 300.0


@dataclass
class At:
    """An observer that does something right after one update; records the steps it is asked about."""

    step: int
    does: Any
    name: str = "at"

    def start(self, task, device):
        self.steps = []
        return self

    def identity(self):
        return {"name": self.name}

    def begin(self, n_steps):
        pass

    def at(self, step, network):
        self.steps.append(step)
        if step == self.step:
            self.does()
        return {"norm": np.array([sum(p.detach().double().norm().item() for p in network.parameters())])}


def context(folder, observer, model=TRANSFORMER, **options):
    return WorkerContext(
        token_task(model, RECIPE),
        Numerics(),
        checkpoints=CheckpointStore(LocalBlobs(Path(folder))),
        observers=(observer,),
        **{"snapshot_s": MINUTES, **options},
    )


def quiet(folder, model=TRANSFORMER):
    """The outcome of a retrain that nothing happened to."""
    return worker.retrain(context(Path(folder) / "quiet", At(-1, None), model), WORK, "me")


def result(outcome):
    outputs = {name: (array.shape, array.tobytes()) for name, array in outcome.outputs.items()}
    return outcome.status, outputs, dict(sorted(outcome.metrics.items()))


def given_back(folder, step, observer_name="at", model=TRANSFORMER, work=WORK, **options):
    """Retrain until `step`, where it is asked for."""
    give_back = threading.Event()
    observer = At(step, give_back.set, observer_name)
    with pytest.raises(GivenBack, match=f"after update {step}"):
        worker.retrain(context(folder, observer, model, **options), work, "me", give_back)


def gone_on(folder, model=TRANSFORMER, work=WORK, **options):
    """The outcome of another attempt, and the updates that it made."""
    observer = At(-1, None)
    outcome = worker.retrain(context(folder, observer, model, **options), work, "other", threading.Event())
    return outcome, [step for step in observer.steps if step]


def resume_path(folder):
    return Path(folder, "checkpoints", WORK.spec_id, "resume.safetensors")


@pytest.mark.parametrize("snapshot_s", [MINUTES, None])
def test_a_retrain_given_back_twice_ends_as_if_nothing_had_happened(tmp_path, snapshot_s):
    """AdamW with weight decay, warm-up and decay of the rate, and dropout."""
    for step in (4, 10):
        given_back(tmp_path, step, snapshot_s=snapshot_s)
    outcome, steps = gone_on(tmp_path, snapshot_s=snapshot_s)
    assert steps == list(range(11, N_STEPS + 1))
    expected = quiet(tmp_path)
    assert result(outcome) == result(expected)
    assert {f"at/norm@{i}" for i in range(N_STEPS + 1)} < outcome.outputs.keys()
    stores = [CheckpointStore(LocalBlobs(folder)) for folder in (tmp_path, tmp_path / "quiet")]
    for step in WORK.keep_steps:
        here, there = (store.load(WORK.spec_id, step) for store in stores)
        assert {name: array.tobytes() for name, array in here.items()} == {n: a.tobytes() for n, a in there.items()}


def test_its_seconds_are_those_of_all_attempts(tmp_path):
    given_back(tmp_path, 4)
    store = CheckpointStore(LocalBlobs(tmp_path)).progress(WORK.spec_id)
    stored = store.load()
    assert stored.facts["seconds"] > 0
    store.save(replace(stored, facts={**stored.facts, "seconds": 5000.0}))
    assert gone_on(tmp_path)[0].seconds > 5000


def test_a_stored_retrain_is_as_far_as_its_last_snapshot(tmp_path):
    """With nothing to wait for, the first update is stored at least."""
    gone_on(tmp_path, snapshot_s=0.0)
    stored = CheckpointStore(LocalBlobs(tmp_path)).progress(WORK.spec_id).load().facts["training"]["step"]
    assert stored >= 1
    assert gone_on(tmp_path)[1] == list(range(stored + 1, N_STEPS + 1))
    CheckpointStore(LocalBlobs(tmp_path)).progress(WORK.spec_id).clear()
    assert gone_on(tmp_path)[1] == list(range(1, N_STEPS + 1))


def test_a_damaged_snapshot_is_ignored(tmp_path):
    given_back(tmp_path, 6)
    data = bytearray(resume_path(tmp_path).read_bytes())
    data[-1] ^= 1
    resume_path(tmp_path).write_bytes(data)
    outcome, steps = gone_on(tmp_path)
    assert steps == list(range(1, N_STEPS + 1))
    assert result(outcome) == result(quiet(tmp_path))


def test_a_snapshot_without_the_checkpoints_or_observers_that_are_asked_for_is_not_used(tmp_path):
    given_back(tmp_path, 6, observer_name="other")
    assert gone_on(tmp_path)[1][0] == 1
    given_back(tmp_path, 6)
    more = replace(WORK, keep_steps=(3,))
    assert gone_on(tmp_path, work=more)[1][0] == 1
    assert CheckpointStore(LocalBlobs(tmp_path)).has(WORK.spec_id, [3])
    assert gone_on(tmp_path)[1][0] == 7


def test_only_recipes_that_can_be_resumed_are_given_snapshots(tmp_path):
    class Plain(Finetune):
        resumable = False

    base, event = context(tmp_path, At(-1, None)), threading.Event()
    plain = replace(base, task=token_task(CNN, Plain(**RECIPE.model_dump())))
    event.set()
    assert worker.snapshots_of(plain, plain.task, WORK, event) is None
    assert worker.retrain(plain, WORK, "me", event).status == "ok", "it is not asked to stop either"
    assert worker.snapshots_of(base, base.task, WORK, event) is not None
    assert worker.snapshots_of(replace(base, checkpoints=None), base.task, WORK, event) is None
    assert worker.snapshots_of(replace(base, snapshot_s=None), base.task, WORK, None) is None
    assert worker.snapshots_of(base, base.task, replace(WORK, edit=Edit.each_left_out(np.array([101]))), event) is None


def test_giving_back_is_a_preemption():
    assert worker.classify(GivenBack("stopped on request after update 3")) == "preempted"


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def a_worker_that_is_killed(folder):
    """In a process of its own: given back after update 7, gone on with and stored at 8, killed after 12."""
    given_back(folder, 7, model=CNN, snapshot_s=0.0)
    worker.retrain(context(folder, At(12, kill), CNN, snapshot_s=0.0), WORK, "me", threading.Event())


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_what_came_after_its_last_snapshot(tmp_path):
    code = "import sys, test_worker_resume as t; t.a_worker_that_is_killed(sys.argv[1])"
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, Path(__file__).parent)))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    outcome, steps = gone_on(tmp_path, CNN)
    assert 9 <= steps[0] <= 12
    assert steps == list(range(steps[0], N_STEPS + 1))
    assert result(outcome) == result(quiet(tmp_path, CNN))
