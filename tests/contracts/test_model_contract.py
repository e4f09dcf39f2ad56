"""What every registered model must do; a new model is covered by its line in the registry and one in OPTIONS.

Models that fit other tasks than text have no tokens, padding or layers onto logits: only their identity is tested here.
"""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.digests import canonical_json
from tasks.registry import MODELS
from tests.fakes import tiny_bert, token_task

N_CLASSES, VOCABULARY = 3, 40
OPTIONS = {
    "text_cnn": {"embedding_dim": 8, "filters": 4},
    "transformer": {"hidden": 16, "heads": 2, "max_length": 32},
    "encoder": {"pretrained": "encoder", "max_length": 32},
}
CLASSES = {name: MODELS.load(name, "test") for name in sorted(MODELS.entries())}
TEXT_MODELS = [name for name, cls in CLASSES.items() if cls.fits == "text"]


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_bert(folder / "encoder")
    return folder


@pytest.fixture(scope="module", params=TEXT_MODELS)
def model(request):
    return CLASSES[request.param](**OPTIONS.get(request.param, {}))


@pytest.fixture(scope="module")
def base_state(model, base_dir):
    return model.base_state(base_dir)


def build(model, base_state, seed=1):
    return model.build(N_CLASSES, VOCABULARY, seed, base_state)


@pytest.fixture
def network(model, base_state):
    return build(model, base_state).eval()


def batch_of(model, rows):
    return token_task(model, None).batch("train", np.asarray(rows))


def equal_bits(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_seed_alone_decides_the_weights(model, base_state):
    torch.manual_seed(11)
    first, after_first = build(model, base_state), torch.rand(3)
    torch.manual_seed(12)
    assert equal_bits(first, build(model, base_state))
    assert not equal_bits(first, build(model, base_state, seed=2))
    torch.manual_seed(11)
    assert torch.equal(after_first, torch.rand(3)), "building a network must leave the global generator alone"


def test_logits_have_one_column_per_class(model, network):
    assert model.forward(network, batch_of(model, range(5))).shape == (5, N_CLASSES)


def test_padding_does_not_enter_the_logits(model, network):
    batch = batch_of(model, range(5))
    wider = {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 7)),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 7)),
    }
    torch.testing.assert_close(model.forward(network, wider), model.forward(network, batch), rtol=0, atol=1e-6)


def test_what_stands_in_padding_does_not_enter_the_logits(model, network):
    batch = batch_of(model, range(5))
    assert not batch["attention_mask"].all(), "the batch must have padding for this test to mean anything"
    noisy = {**batch, "input_ids": torch.where(batch["attention_mask"], batch["input_ids"], 7)}
    torch.testing.assert_close(model.forward(network, noisy), model.forward(network, batch), rtol=0, atol=1e-6)


def test_a_row_has_the_same_logits_alone_as_in_a_batch(model, network):
    together = model.forward(network, batch_of(model, range(6)))
    alone = torch.cat([model.forward(network, batch_of(model, [row])) for row in range(6)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_padding_gets_no_gradient_at_the_word_embedding(model, network):
    seen = []

    def remember(module, inputs, output):
        output.retain_grad()
        seen.append(output)

    network.get_submodule(model.embedding_module(network)).register_forward_hook(remember)
    batch = batch_of(model, range(5))
    model.forward(network, batch).sum().backward()
    gradient = seen[0].grad
    assert gradient[batch["attention_mask"]].abs().sum() > 0
    assert gradient[~batch["attention_mask"]].abs().max() < 1e-9


def test_layer_modules_are_the_modules_with_weights_from_embedding_to_logits(model, network):
    names, called = model.layer_modules(network), []
    for name in names:
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
    model.forward(network, batch_of(model, range(3)))
    assert sorted(called) == sorted(names), "each is called once"
    assert (called[0], called[-1]) == (names[0], names[-1])
    owned = {parameter for name in names for parameter in network.get_submodule(name).parameters(recurse=False)}
    assert owned == set(network.parameters())
    assert names[0] == model.embedding_module(network)
    assert names[-1] == model.last_module(network)
    assert network.get_submodule(names[-1]).out_features == N_CLASSES


def test_every_parameter_is_trained_unless_frozen(model, network):
    model.forward(network, batch_of(model, range(12))).logsumexp(1).sum().backward()
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in network.parameters())


def test_components_and_base_state_survive_a_process_boundary(model, base_state):
    there = pickle.loads(pickle.dumps((model, base_state)))
    assert equal_bits(build(*there), build(model, base_state))


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_identity_has_a_canonical_text_and_names_no_path(name, base_dir):
    text = canonical_json(CLASSES[name](**OPTIONS.get(name, {})).identity_of_weights(base_dir))
    assert str(base_dir) not in text
    assert name in text


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_identity_and_encoding_need_no_torch(name, base_dir):
    encoding = "model.encoding(base_dir).identity()" if name in TEXT_MODELS else "None"
    program = f"""
import sys
from pathlib import Path
from tasks.registry import MODELS
model, base_dir = MODELS.load({name!r}, "test")(**{OPTIONS.get(name, {})!r}), Path({str(base_dir)!r})
model.identity_of_weights(base_dir), {encoding}
sys.exit("torch" in sys.modules)
"""
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, timeout=60).returncode == 0


def test_it_lists_the_parameters_of_its_network_without_building_it(model, network, base_dir):
    assert sorted(model.parameter_names(base_dir)) == sorted(name for name, _ in network.named_parameters())
    assert model.frozen(base_dir) == set()
