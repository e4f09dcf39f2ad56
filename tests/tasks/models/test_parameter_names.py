"""Names of a pretrained classifier's parameters are known from its files: the same as those of the network that is built of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from tasks.errors import InputError
from tasks.models.encoder import Encoder
from tasks.models.parameter_names import ARCHITECTURES, classifier_parameter_names, stored_names
from tasks.models.pretrained import quiet_transformers, read_config, weight_files
from tests.fakes import tiny_bert

SIZES = {
    "vocab_size": 40,
    "max_position_embeddings": 20,
    **dict.fromkeys(("hidden_size", "dim", "n_embd", "embedding_size"), 16),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "n_inner"), 24),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_key_value_heads"), 2),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer"), 3),
    "pad_token_id": 0,
}
OTHER_TYPES = ("opt", "gpt_neo")  # in no table: the network is built without weights


def tiny_config(kind: str, **more: int):
    options = AutoConfig.for_model(kind).to_dict()
    return AutoConfig.for_model(kind, **{**{name: size for name, size in SIZES.items() if name in options}, **more})


def saved(folder: Path, kind: str, as_classifier: bool, **more: int) -> Path:
    config = tiny_config(kind, **more)
    with quiet_transformers():
        make = AutoModelForSequenceClassification if as_classifier else AutoModel
        make.from_config(config).save_pretrained(folder)
    return folder


def built_names(folder: Path, num_layers: int | None = None) -> list[str]:
    config = AutoConfig.from_pretrained(folder)
    if num_layers is not None:
        config.num_hidden_layers = num_layers
    with quiet_transformers(), torch.device("meta"):
        network = AutoModelForSequenceClassification.from_config(config)
    return sorted(name for name, _ in network.named_parameters())


def names(folder: Path, num_layers: int | None = None) -> list[str]:
    return classifier_parameter_names(weight_files(folder), read_config(folder), num_layers)


@pytest.mark.parametrize("as_classifier", [False, True])
@pytest.mark.parametrize("kind", [*ARCHITECTURES, *OTHER_TYPES])
def test_names_are_those_of_the_network(kind, as_classifier, tmp_path):
    folder = saved(tmp_path, kind, as_classifier)
    assert names(folder) == built_names(folder)
    if kind not in ("albert", "mpnet"):  # layers of albert share their weights
        assert names(folder, 1) == built_names(folder, 1) != names(folder)


def test_an_electra_of_two_widths_has_a_projection(tmp_path):
    folder = saved(tmp_path, "electra", True, embedding_size=8)
    assert names(folder) == built_names(folder)
    assert "electra.embeddings_project.weight" in names(folder)


def test_old_names_of_normalisations_are_those_of_today(tmp_path):
    folder = saved(tmp_path, "bert", False)
    expected = names(folder)
    file = folder / "model.safetensors"
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = data[8:end].replace(b"LayerNorm.weight", b"LayerNorm.gamma").replace(b"LayerNorm.bias", b"LayerNorm.beta")
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    assert "embeddings.LayerNorm.gamma" in stored_names(file)
    assert names(folder) == expected


@pytest.mark.parametrize(
    "content", [b"", b"no", b"\xff" * 40, (9).to_bytes(8, "little") + b"not json ", (4).to_bytes(8, "little") + b"null"]
)
def test_a_file_without_a_header_is_refused(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(
        InputError, match=r"task\.model\.pretrained: .*model\.safetensors is not a readable safetensors file"
    ):
        stored_names(tmp_path / "model.safetensors")


# --- what freeze selects ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("pretrained") / "bert")


def encoder(bert: Path, *freeze: str) -> Encoder:
    return Encoder(pretrained=str(bert), max_length=16, freeze=freeze)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["bert.embeddings"], ["bert.embeddings*"]),
        (["bert.embeddings"], ["*embeddings*"]),
        (["bert.encoder.layer.0", "bert.embeddings"], ["bert.embeddings", "bert.encoder.layer.0"]),
        (["bert.encoder.layer.?"], ["bert.encoder.layer.0", "bert.encoder.layer.1", "bert.encoder.layer.1.output"]),
        (["classifier.bias"], ["class*.bias"]),
        (["bert"], ["bert.*"]),
    ],
)
def test_two_spellings_of_one_choice_are_one_identity(one, other, bert, tmp_path):
    first, second = (encoder(bert, *patterns) for patterns in (one, other))
    assert first.identity_of_weights(tmp_path) == second.identity_of_weights(tmp_path)
    networks = [model.build(2, 40, 0, model.base_state(tmp_path)) for model in (first, second)]
    trained = [[n for n, p in network.named_parameters() if p.requires_grad] for network in networks]
    assert trained[0] == trained[1]
    assert set(trained[0]).isdisjoint(first.frozen(tmp_path))


def test_another_choice_is_another_identity(bert, tmp_path):
    choices = [["bert.embeddings"], ["bert.embeddings.LayerNorm"], ["*LayerNorm*"], ["bert.pooler"], []]
    found = {json.dumps(encoder(bert, *choice).identity_of_weights(tmp_path)) for choice in choices}
    assert len(found) == len(choices)


def test_without_patterns_the_identity_is_what_it_was(bert, tmp_path):
    assert encoder(bert).identity_of_weights(tmp_path)["freeze"] == []


def test_a_pattern_that_matches_nothing_is_refused_when_the_task_is_opened(bert, tmp_path):
    with pytest.raises(InputError) as refused:
        encoder(bert, "bert.embedings").encoding(tmp_path)
    said = str(refused.value)
    assert said.startswith("task.model.freeze: 'bert.embedings' matches no parameter; close to it: bert.embeddings")
    assert len(said) < 300
    with pytest.raises(InputError, match=r"'zzz' matches no parameter; the modules are bert, .* modules\)$"):
        encoder(bert, "zzz").encoding(tmp_path)


def test_names_need_no_torch(bert):
    code = (
        "import sys\nfrom pathlib import Path\nfrom tasks.models.encoder import Encoder\n"
        f"Encoder(pretrained={str(bert)!r}, max_length=16, freeze=('bert.embeddings',)).identity_of_weights(Path())\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_network_with_other_names_than_its_files_say_is_refused(bert, tmp_path, monkeypatch):
    """What a pattern selects would not be what the identity holds."""
    from tasks.models import encoder as module

    given = module.classifier_parameter_names
    monkeypatch.setattr(
        module, "classifier_parameter_names", lambda *a: [*given(*a), "bert.embeddings.of_another_library"]
    )
    with pytest.raises(Exception, match=r"parameter 'bert\.embeddings\.of_another_library' is not in both the network"):
        encoder(bert, "bert.embeddings").base_state(tmp_path)
