from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_task import CheckpointFolder, TinyRecipe, TinyTask, tiny_work

from orchestrator.runtime import worker
from orchestrator.runtime.backend import WorkerContext
from orchestrator.storage.blobs import LocalBlobs, StoreAwayError
from orchestrator.storage.checkpoints import CheckpointStore
from tasks.base import Numerics
from tasks.errors import RefitError
from tasks.recipe import Trained, Training


def context(**options):
    return WorkerContext(TinyTask(), Numerics(), **options)


def test_an_outcome_holds_the_outputs_of_all_measured_rows():
    task = TinyTask()
    task.measured = {"test": np.array([3, 0]), "train": np.arange(4)}
    outcome = worker.retrain(WorkerContext(task, Numerics()), tiny_work(), "me")
    assert outcome.status == "ok"
    assert {split: values.shape for split, values in outcome.outputs.items()} == {"test": (2, 2), "train": (4, 2)}
    assert all(values.dtype == np.float32 for values in outcome.outputs.values())
    network = task.recipe.train(task, Training(edit=tiny_work().edit, seed=0, numerics=Numerics())).network
    np.testing.assert_array_equal(outcome.outputs["test"], task.outputs(network, "test", np.array([3, 0])))
    assert (outcome.worker, outcome.error) == ("me", None)
    assert outcome.seconds > 0


def test_a_worker_that_does_not_see_the_drivers_store_takes_no_work(tmp_path):
    LocalBlobs(tmp_path / "shared").put("ledger/t/task.json", b"{}")
    landmark = "ledger/t/task.json"
    worker.configure(context(checkpoints=CheckpointStore(LocalBlobs(tmp_path / "shared")), landmark=landmark))
    with pytest.raises(
        RefitError, match=r"own/ledger/t/task.json: this node does not find .* a disk that all nodes share"
    ):
        worker.configure(context(checkpoints=CheckpointStore(LocalBlobs(tmp_path / "own")), landmark=landmark))


def test_accuracy_is_the_share_of_rows_whose_largest_output_is_their_label():
    outcome = worker.retrain(context(), tiny_work(), "me")
    labels = TinyTask().splits["test"].labels
    assert outcome.metrics["accuracy/test"] == np.mean(outcome.outputs["test"].argmax(1) == labels)
    assert "train_loss" in outcome.metrics


def test_outputs_that_are_not_one_per_class_have_no_accuracy():
    outputs = {"test": np.zeros((5, 3), np.float32)}
    assert worker.accuracies(context().task, outputs) == {}


def test_the_same_work_gives_the_same_bytes_and_another_edit_gives_others():
    first, again = (worker.retrain(context(), tiny_work(3, [100]), "me").outputs["test"] for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != worker.retrain(context(), tiny_work(3), "me").outputs["test"].tobytes()


def test_weights_are_kept_at_the_steps_asked_for(tmp_path):
    work = tiny_work(keep_steps=(2, 12))
    worker.retrain(context(checkpoints=CheckpointFolder(tmp_path)), work, "me")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{work.spec_id}-12.npz", f"{work.spec_id}-2.npz"]


def test_training_that_blows_up_is_diverged_and_keeps_only_finite_metrics():
    task = TinyTask(recipe=TinyRecipe(learning_rate=1e38))
    outcome = worker.retrain(WorkerContext(task, Numerics()), tiny_work(), "me")
    assert outcome.status == "diverged"
    assert outcome.outputs == {}
    assert outcome.error is None
    assert all(np.isfinite(value) for value in outcome.metrics.values())


def test_outputs_that_are_not_finite_are_diverged():
    assert worker.retrain(context(faults={"*": "nan"}), tiny_work(), "me").status == "diverged"


def test_what_observers_saw_is_recorded_beside_the_outputs(monkeypatch):
    plain_train = TinyRecipe.train

    def observed_train(self, task, training):
        trained = plain_train(self, task, training)
        return Trained(trained.network, trained.metrics, observed={"norm@3": np.array([1.5])})

    monkeypatch.setattr(TinyRecipe, "train", observed_train)
    outputs = worker.retrain(context(), tiny_work(), "me").outputs
    assert outputs["norm@3"] == np.float32(1.5)
    assert set(outputs) == {"test", "norm@3"}


def cpu_out_of_memory():
    torch.empty(2**60)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError("no more"), "host_memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory"),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out_of_memory"),
        (TimeoutError("late"), "timeout"),
        (StoreAwayError(5, "cannot be reached", "s3://bucket/key"), "storage"),
        (OSError(5, "the recipe's own file"), "error"),
        (RuntimeError("shape mismatch"), "error"),
        (ValueError("out of memory of mankind"), "error"),
        (KeyError(3), "error"),
    ],
)
def test_failures_are_classified_by_their_exception(error, kind):
    assert worker.classify(error) == kind


def test_the_cpu_allocator_reports_that_the_machine_is_full():
    with pytest.raises(RuntimeError) as caught:
        cpu_out_of_memory()
    assert worker.classify(caught.value) == "host_memory"


def test_a_failure_is_described_in_one_line_with_the_innermost_frame():
    def fail():
        raise ValueError("first line\n  second line")

    with pytest.raises(ValueError, match="first") as caught:
        fail()
    line = caught.tb.tb_next.tb_lineno
    assert worker.describe(caught.value) == (
        f"ValueError: first line second line (orchestrator/runtime/test_worker.py:{line})"
    )


def test_a_description_is_never_long():
    assert len(worker.describe(RuntimeError("x" * 10_000))) < 600


def test_the_probe_fills_in_device_and_torch():
    found = worker.resolve_numerics(Numerics(threads=2))
    assert found == Numerics(threads=2, device_model=worker.device_model("cpu"), torch=torch.__version__)
    assert type(found.torch) is str  # torch.__version__ itself is refused by canonical JSON
    assert found.device_model


@pytest.mark.parametrize("name", ["device_model", "torch"])
def test_a_machine_with_other_numerics_is_refused(name):
    here = worker.resolve_numerics(Numerics())
    worker.check_numerics(here)
    with pytest.raises(RefitError, match=f"{name} is .* pinned to 'other'"):
        worker.check_numerics(replace(here, **{name: "other"}))


def test_faults_hit_their_spec_only_and_marked_ones_only_once(tmp_path):
    marked = {"*": f"raise@{tmp_path / 'hit'}"}
    with pytest.raises(RuntimeError, match="injected"):
        worker.inject(marked, "a")
    assert worker.inject(marked, "a") is None
    assert worker.inject({"a": "raise"}, "b") is None
    with pytest.raises(MemoryError):
        worker.inject({"*": "raise", "a": "oom"}, "a")
