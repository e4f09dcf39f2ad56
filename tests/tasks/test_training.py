import os

import numpy as np
import torch

from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.recipe import Training
from tasks.training import EditedTrainSet, Watch, deterministic, is_finite, n_batches
from tests.edits import reweighting
from tests.fakes import token_task


def epochs(edit, seed=1, batch_size=5):
    task = token_task(None, None)
    train_set = EditedTrainSet.of(task, edit(task.splits["train"].ids))
    return [[batch.tolist() for batch in train_set.batches(seed, epoch, batch_size)] for epoch in (1, 2)]


def rows_in(batches):
    return [row for batch in batches for row in batch]


def test_every_example_has_one_slot_per_epoch_in_an_order_of_its_own():
    first, second = epochs(lambda ids: Edit())
    assert [len(batch) for batch in first] == [5, 5, 5, 5, 4]
    assert sorted(rows_in(first)) == sorted(rows_in(second)) == list(range(24))
    assert first != second
    assert first != epochs(lambda ids: Edit(), seed=2)[0]


def test_a_masked_example_keeps_its_slot():
    assert epochs(lambda ids: Edit.removal(ids[:6])) == epochs(lambda ids: Edit())


def test_a_dropped_example_leaves_the_order_of_the_others():
    for dropped, whole in zip(
        epochs(lambda ids: Edit.removal(ids[:6], "drop")), epochs(lambda ids: Edit()), strict=True
    ):
        assert rows_in(dropped) == [row for row in rows_in(whole) if row >= 6]
        assert [len(batch) for batch in dropped] == [5, 5, 5, 3]


def test_a_reweighted_example_is_not_dropped():
    assert epochs(lambda ids: reweighting({int(ids[0]): 0.5}, "drop")) == epochs(lambda ids: Edit())


def test_weights_follow_the_ids_not_the_positions():
    task = token_task(None, None)
    ids = task.splits["train"].ids
    train_set = EditedTrainSet.of(task, reweighting({int(ids[3]): 0.0, int(ids[9]): 2.0}))
    expected = np.ones(24)
    expected[[3, 9]] = 0, 2
    assert train_set.weights.tolist() == expected.tolist()
    assert train_set.n_slots == 24


def test_the_last_batch_may_be_smaller():
    assert [n_batches(n, 5) for n in (0, 1, 5, 6, 10)] == [0, 1, 1, 2, 2]


def test_one_number_that_is_not_finite_is_found():
    layer = torch.nn.Linear(3, 2)
    assert is_finite(layer)
    layer.bias.data[1] = float("inf")
    assert not is_finite(layer)


def test_observed_arrays_are_named_by_observer_key_and_step():
    class Counter:
        name = "counter"

        def begin(self, n_steps):
            pass

        def at(self, step, network):
            return {"step": np.float32(step)} if step else {}

    watch = Watch.of(Training(Edit(), 0, Numerics(), observers=[Counter()]), 2)
    for step in range(3):
        watch.passed(step, torch.nn.Linear(1, 1))
    assert {name: float(array) for name, array in watch.observed.items()} == {"counter/step@1": 1, "counter/step@2": 2}
    assert all(isinstance(array, np.ndarray) for array in watch.observed.values())


def test_the_process_is_set_to_repeat_itself():
    deterministic(Numerics(threads=1))
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
    assert torch.get_float32_matmul_precision() == "highest"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")
    if torch.set_flush_denormal(True):  # not every processor can
        assert (torch.tensor([1e-40]) * 1.0).item() == 0


def test_a_pool_of_threads_keeps_denormal_numbers():
    deterministic(Numerics(threads=2))
    assert (torch.tensor([1e-40]) * 1.0).item() > 0
    deterministic(Numerics(threads=1))


def test_numpy_uses_as_many_threads_as_the_numerics_say():
    import scipy.linalg  # noqa: F401  it loads a BLAS library of its own
    from threadpoolctl import threadpool_info

    for threads in (2, 1):
        deterministic(Numerics(threads=threads))
        assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {threads}
