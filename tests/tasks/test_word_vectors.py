"""The task word_vectors: what is recorded, and the losses that influence methods differentiate."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap

from tasks.base import Numerics
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.digests import canonical_json
from tasks.errors import InputError
from tasks.models.skip_gram import SkipGram
from tasks.recipe import Training
from tasks.recipes.skip_gram import SkipGramTraining
from tasks.registry import TASKS
from tasks.task import OpenRequest
from tests.word_fakes import parent_of, word_task

ROOT = Path(__file__).parents[2]
TEXTS = ["The cat sat on the mat.", "A dog sat on the cat!", "The dog and the cat ran.", "mat"] * 3


@pytest.fixture
def folder(tmp_path):
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    return tmp_path


def config(**changes):
    block = {
        "name": "word_vectors",
        "data": {"train": {"path": "t.jsonl", "format": "jsonl", "text": "text"}},
        "vocabulary": {"min_count": 3},
        "properties": [
            {"name": "displacement", "word": "cat"},
            {"name": "neighbour", "word": "dog", "near": ["mat", "cat"]},
        ],
        "watch": ["sat", "cat"],
        "model": {"name": "skip_gram", "dim": 6},
        "recipe": {"name": "skip_gram", "epochs": 2, "subsample": 0.0, "batch_sentences": 3},
    }
    return {**block, **changes}


def open_task(folder, **changes):
    return parse_named(TASKS, config(**changes), "c.yaml", "task").open(OpenRequest(folder, where="c.yaml", key="task"))


@pytest.fixture
def task():
    return word_task(SkipGramTraining(window=3), model=SkipGram(dim=8, l2=0.02))


@pytest.fixture
def network(task):
    network = task.network(1).double()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in parent_of(task).items()})
    with torch.no_grad():
        network["input"].weight.mul_(10)
    return network


def test_splits_hold_sentences_words_and_properties(folder):
    task = open_task(folder)
    assert task.splits["train"].ids.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10], "sentences of one word are left out"
    assert task.splits["train"].classes == ("sentence",)
    words = task.splits["words"]
    assert words.texts == ("cat", "dog", "mat", "sat")
    assert words.ids.tolist() == [task.vocabulary[word] for word in words.texts]
    assert task.splits["properties"].texts[1] == "mean cosine of 'dog' to mat cat"
    assert {name: rows.tolist() for name, rows in task.measured.items()} == {
        "words": [0, 1, 2, 3],
        "properties": [0, 1],
    }


def test_outputs_are_input_vectors_and_values_of_properties(folder):
    task = open_task(folder)
    network = task.recipe.train(task, Training(edit=Edit(), seed=1, numerics=Numerics())).network
    vectors = network["input"].weight.detach().numpy()
    cat, dog, mat = (vectors[task.vocabulary[word]].astype(np.float64) for word in ("cat", "dog", "mat"))
    outputs = task.outputs(network, "words", np.array([1, 0]))
    np.testing.assert_array_equal(outputs, np.stack([dog, cat]))
    assert outputs.dtype == np.float32
    start = task.network(1)["input"].weight.detach().numpy()[task.vocabulary["cat"]]
    cosines = [dog @ other / np.linalg.norm(dog) / np.linalg.norm(other) for other in (mat, cat)]
    expected = [[((cat - start) ** 2).mean()], [np.mean(cosines)]]
    np.testing.assert_allclose(task.outputs(network, "properties", np.arange(2)), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="'train' is not measured"):
        task.outputs(network, "train", np.arange(2))


def test_identity_is_content_and_no_path(folder, tmp_path_factory):
    first = open_task(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "t.jsonl").write_text((folder / "t.jsonl").read_text())
    assert open_task(elsewhere).train_identity() == first.train_identity()
    for identity in (first.train_identity(), first.model_identity(), first.record_identity()):
        assert str(folder) not in canonical_json(identity)
    assert open_task(folder, vocabulary={"min_count": 2}).train_identity() != first.train_identity()
    (folder / "t.jsonl").write_text((folder / "t.jsonl").read_text().replace("ran", "run"))
    assert open_task(folder).train_identity() != first.train_identity()


def test_what_is_recorded_has_an_identity_of_its_own(folder):
    first = open_task(folder).record_identity()
    properties = config()["properties"]
    renamed = [{**properties[0], "as": "moved"}, properties[1]]
    assert open_task(folder, properties=renamed).record_identity() == first, "a label is no content"
    assert open_task(folder, properties=properties[:1]).record_identity() != first
    assert open_task(folder, watch=["on"]).record_identity() != first


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"watch": ["cat", "zebra"]}, r"c\.yaml: task\.watch\.1: 'zebra' is not in the vocabulary"),
        ({"properties": [], "watch": []}, r"c\.yaml: task: nothing is recorded"),
        ({"properties": [{"name": "displacement", "word": "zebra"}]}, r"task\.properties\.0.*'zebra'"),
        ({"properties": [{"name": "displacement", "word": "cat"}] * 2}, r"task\.properties\.1: the label"),
        ({"properties": [{"name": "nothing"}]}, r"task\.properties\.0\.name.*unknown property 'nothing'"),
        ({"model": {"name": "text_cnn"}}, r"task\.model\.name: 'text_cnn' fits tasks of text, not word_vectors"),
        ({"recipe": {"name": "finetune"}}, r"task\.recipe\.name: 'finetune' fits tasks of text, not word_vectors"),
        ({"vocabulary": {"min_count": 0}}, r"task\.vocabulary\.min_count: 0"),
        ({"recipe": {"name": "skip_gram", "windw": 3}}, r"task\.recipe\.windw: unknown key 'windw'; allowed: .*window"),
    ],
)
def test_what_is_wrong_with_the_config_is_said_in_one_line(folder, changes, problem):
    with pytest.raises(InputError, match=problem):
        open_task(folder, **changes)


def test_opening_needs_no_torch(folder):
    program = f"""
import sys
from pathlib import Path
from tasks.components import parse_named
from tasks.registry import TASKS
from tasks.task import OpenRequest
task = parse_named(TASKS, {config()!r}, "c.yaml", "task").open(OpenRequest(Path({str(folder)!r})))
task.train_identity(), task.model_identity(), task.record_identity(), task.recipe.identity()
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0


def test_a_task_survives_a_process_boundary(task):
    there = pickle.loads(pickle.dumps(task))
    assert there.train_identity() == task.train_identity()
    one, other = (t.recipe.train(t, Training(edit=Edit(), seed=2, numerics=Numerics())).network for t in (task, there))
    assert torch.equal(one["input"].weight, other["input"].weight)


def test_sentence_losses_do_not_depend_on_the_batch(task, network):
    together = task.losses(network, task.batch("train", np.arange(24)))
    alone = [task.losses(network, task.batch("train", np.array([row]))) for row in range(24)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)
    assert torch.equal(task.logits(network, task.batch("train", np.arange(24))), -together[:, None])


def test_blank_rows_have_no_loss_and_shift_no_other(task, network):
    blank = np.zeros(24, bool)
    blank[[0, 3]] = True
    losses = task.losses(network, task.batch("train", np.arange(24), blank=blank))
    expected = task.losses(network, task.batch("train", np.arange(24)))
    assert not losses[blank].any()
    torch.testing.assert_close(losses[~blank], expected[~blank], rtol=0, atol=1e-12)
    assert (
        task.with_noise_in(task.splits["train"].ids[[0, 3]])
        .batch("train", np.arange(24), blank=blank)["targets"]
        .equal(task.batch("train", np.arange(24), blank=blank)["targets"])
    )


class _Losses(torch.nn.Module):
    """Losses of a batch as a module, the way influence methods substitute parameters."""

    def __init__(self, task, network, batch):
        super().__init__()
        self.network, self.losses = network, lambda: task.losses(network, batch)

    def forward(self):
        return self.losses()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own, in its jvp
def test_losses_have_forward_and_second_derivatives_under_vmap(task, network):
    module, batch = _Losses(task, network, task.batch("train", np.arange(6))), task.batch("train", np.arange(6))
    start = network["input"].weight.detach()

    def losses(weight):
        return functional_call(module, {"network.input.weight": weight}, ())

    vectors = torch.randn(4, *start.shape, dtype=start.dtype, generator=torch.Generator().manual_seed(0))
    forward = vmap(lambda v: jvp(losses, (start,), (v,))[1])(vectors)
    rows = task.losses(network, batch)
    backward = torch.stack([torch.autograd.grad(loss, network["input"].weight, retain_graph=True)[0] for loss in rows])
    torch.testing.assert_close(forward, torch.einsum("qij,nij->qn", vectors, backward), rtol=0, atol=1e-9)
    second = vmap(lambda v: jvp(grad(lambda w: losses(w).sum()), (start,), (v,))[1])(vectors)
    gradient, small = grad(lambda w: losses(w).sum()), 1e-5 * vectors[0]
    numeric = (gradient(start + small) - gradient(start - small)) / 2e-5
    torch.testing.assert_close(second[0], numeric, rtol=0, atol=1e-6)


def test_rows_of_input_vectors_never_meet_in_a_second_derivative(task, network):
    assert task.independent_rows == {"input.weight"}
    batch = task.batch("train", np.arange(24))
    loss = task.losses(network, batch).sum() + task.penalty(network)
    first = torch.autograd.grad(loss, network["input"].weight, create_graph=True)[0]
    second = torch.autograd.grad(first[3].sum(), network["input"].weight)[0]
    assert second[3].abs().max() > 1e-3
    assert not torch.cat([second[:3], second[4:]]).any()


def test_rows_touching_are_the_sentences_with_a_gradient(task, network):
    word = task.vocabulary["w7"]
    touching = task.rows_touching("input.weight", np.array([word]))
    losses = task.losses(network, task.batch("train", np.arange(24)))
    gradients = [torch.autograd.grad(loss, network["input"].weight, retain_graph=True)[0][word] for loss in losses]
    with_gradient = [row for row, gradient in enumerate(gradients) if gradient.any()]
    assert 0 < len(touching) < 24
    assert set(with_gradient) <= set(touching.tolist())
    assert task.rows_touching("output.weight", np.array([word])).tolist() == list(range(24))


def test_query_losses_are_minus_the_values_and_depend_on_the_words_of_the_property_only(task, network):
    rows = np.array([1, 0])
    losses = task.query_losses(network, "properties", rows, np.zeros(2, np.int64))
    np.testing.assert_allclose(-losses.detach().numpy(), task.outputs(network, "properties", rows)[:, 0], rtol=1e-5)
    for row, loss in zip(rows, losses, strict=True):
        gradient = torch.autograd.grad(loss, network["input"].weight, retain_graph=True)[0]
        chosen = task.influence_parameters("properties", np.array([row]))
        assert list(chosen) == ["input.weight"]
        assert gradient.abs().sum(1).nonzero().ravel().tolist() == chosen["input.weight"].tolist()
    both = task.influence_parameters("properties", rows)["input.weight"].tolist()
    assert both == sorted(task.vocabulary[word] for word in ("w1", "w2", "w3", "w7"))
    with pytest.raises(ValueError, match="'words' have no query loss"):
        task.query_losses(network, "words", rows, rows)


def test_the_penalty_is_half_l2_times_the_squared_weights(task, network):
    squares = sum(network[name].weight.square().sum().item() for name in ("input", "output"))
    assert task.penalty(network).item() == pytest.approx(0.01 * squares)


@pytest.mark.parametrize(("init", "bound"), [("word2vec", 0.5 / 8), ("uniform_published", (30 + 8) ** -0.5)])
def test_input_vectors_start_uniform_and_are_remembered(init, bound):
    network = SkipGram(dim=8, init=init).build(30, 5, np.array([4, 2]))
    inner = network["input"].weight.detach()
    assert 0.9 * bound < inner.abs().max() <= bound
    assert abs(float(inner.std()) - bound / 3**0.5) < 0.1 * bound
    assert not network["output"].weight.any()
    assert torch.equal(network.get_buffer("initial"), inner[[4, 2]])
    again, other = (SkipGram(dim=8, init=init).build(30, seed, np.array([4])) for seed in (5, 6))
    assert torch.equal(again["input"].weight, inner)
    assert not torch.equal(other["input"].weight, inner)


def test_neighbours_are_the_highest_cosines_of_a_network_or_its_weights(task, network):
    vectors = network["input"].weight.detach()
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    cosines = unit @ unit[5]
    order = [row for row in cosines.argsort(descending=True).tolist() if row != 5][:4]
    found = task.neighbours(network, ["w5"], n=4)["w5"]
    assert [word for word, _ in found] == [f"w{row}" for row in order]
    assert [cosine for _, cosine in found] == pytest.approx(cosines[order].tolist())
    state = {name: weight.numpy() for name, weight in network.state_dict().items()}
    assert task.neighbours(state, ["w5"], n=4)["w5"] == found
    with pytest.raises(KeyError, match="zebra"):
        task.neighbours(network, ["zebra"])


def test_a_recipe_that_shows_no_sentences_has_no_losses(folder):
    task = open_task(folder, recipe={"name": "hard_debias", "definitional": [["cat", "dog"]]})
    with pytest.raises(ValueError, match="hard_debias"):
        task.batch("train", np.arange(2))
