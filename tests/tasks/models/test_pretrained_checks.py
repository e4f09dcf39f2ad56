"""Files of a pretrained model that cannot be used are refused when the config is planned, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModel

from orchestrator.cli import main
from tasks.models.architectures import counts_attention, has_pooled_head, sequence_classifiers
from tasks.models.pretrained import quiet_transformers
from tests.fakes import tiny_bert
from tests.test_malformed_inputs import CONFIG, ROWS

WHERE = "config.yaml: task.model.pretrained: "


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("pretrained") / "bert")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def cut(file: Path, n_bytes: int) -> None:
    file.write_bytes(file.read_bytes()[:n_bytes])


def shards(folder: Path) -> list[Path]:
    with quiet_transformers():
        AutoModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="8KB")
    (folder / "model.safetensors").unlink()
    return sorted(folder.glob("model-*.safetensors"))


def bad_index(folder: Path, weight_map: Any) -> None:
    shards(folder)
    edit(folder / "model.safetensors.index.json", weight_map=weight_map)


def without_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def more_tokens(folder: Path) -> None:
    edit(folder / "config.json", vocab_size=30)


def header(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)


DAMAGES = {
    "an unknown model type": (lambda f: edit(f / "config.json", model_type="brt"), "did you mean 'bert'?"),
    "no model type": (lambda f: edit(f / "config.json", model_type=None), "has no model_type"),
    "a model type that is no name": (lambda f: edit(f / "config.json", model_type=[1]), "[1], which is not a name"),
    "a model without a classifier": (lambda f: edit(f / "config.json", model_type="whisper"), "no sequence classifier"),
    "a config that is no JSON": (lambda f: cut(f / "config.json", 20), "cannot be read as JSON"),
    "a config that nests deeply": (lambda f: (f / "config.json").write_text("[" * 10**5), "cannot be read as JSON"),
    "truncated weights": (lambda f: cut(f / "model.safetensors", 9000), "model.safetensors is truncated"),
    "a truncated header": (lambda f: cut(f / "model.safetensors", 100), "model.safetensors is truncated"),
    "empty weights": (lambda f: cut(f / "model.safetensors", 0), "model.safetensors is truncated"),
    "weights with a tail": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes() + b"x"),
        "model.safetensors is damaged",
    ),
    "weights that are a pickle": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04" * 99),
        "is truncated or",
    ),
    "a header that is no mapping": (lambda f: header(f, b"[]"), "its header cannot be read"),
    "a header without offsets": (lambda f: header(f, b'{"w": {}}'), "its header cannot be read"),
    "a truncated shard": (lambda f: cut(shards(f)[1], 100), "is truncated"),
    "a missing shard": (lambda f: shards(f)[1].unlink(), "lacks model-00002-of-"),
    "an index that is a list": (lambda f: bad_index(f, ["a"]), "weight_map does not map"),
    "an index of no names": (lambda f: bad_index(f, {"w": 3}), "weight_map does not map"),
    "an index that leads elsewhere": (lambda f: bad_index(f, {"w": "../x"}), "weight_map does not map"),
    "no vocabulary": (without_vocabulary, "has no tokeniser vocabulary"),
    "more tokens than rows": (more_tokens, "the tokeniser has 40 ids, the embedding only 30"),
}


def write(folder: Path, methods: list[dict[str, Any]] | None = None) -> Path:
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text(ROWS)
    model = {"name": "encoder", "pretrained": "model", "max_length": 8}
    config = {**CONFIG, "task": {**CONFIG["task"], "model": model}, "methods": methods or CONFIG["methods"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_files_are_refused_by_plan(kind, bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bert, "model")
    write(tmp_path)
    damage, names = DAMAGES[kind]
    damage(Path("model"))
    code, err = main(["plan", "config.yaml"]), capsys.readouterr().err
    assert code == 2, err
    assert len(err.splitlines()) == 1
    assert err.startswith(f"refit: {WHERE}")
    assert names in err


def test_a_broken_tokeniser_is_refused_by_plan(bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bert, "model")
    cut(Path("model/tokenizer.json"), 300)
    write(tmp_path)
    code, err = main(["plan", "config.yaml"]), capsys.readouterr().err
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "not a usable fast tokeniser" in err


def test_what_is_told_of_a_model_is_told_without_torch(bert, tmp_path):
    shutil.copytree(bert, tmp_path / "model")
    path = write(tmp_path)
    code = (
        "import sys\nfrom orchestrator.cli import main\nsys.stdout = sys.stderr\ncode = main(['plan', sys.argv[1]])\n"
        "print(code, [m for m in ('torch', 'transformers', 'ray') if m in sys.modules], file=sys.__stdout__)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "0 []", done.stderr


def test_the_names_are_those_that_transformers_itself_has():
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES

    assert dict(sequence_classifiers()) == dict(NAMES)


SIZES = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 32, "pad_token_id": 0, "num_labels": 3,
}  # fmt: skip
OWN_NAMES = {
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32},
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32},
    "albert": {"embedding_size": 8},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "gpt_neo": {"num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]]},
    "bloom": {"n_layer": 1, "n_head": 2},
    "falcon": {"alibi": True},
}
WITH_KEYS = ("llama", "mistral", "qwen2")  # networks whose keys and values have a number of heads of their own


def tiny_network(model_type):
    """A tiny classifier of this type, in evaluation mode."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    sizes = {**SIZES, "num_key_value_heads": 2} if model_type in WITH_KEYS else SIZES
    config = AutoConfig.for_model(model_type, **{**sizes, **OWN_NAMES.get(model_type, {})})
    with quiet_transformers():
        return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize(
    "model_type",
    [
        "bert",
        "roberta",
        "distilbert",
        "albert",
        "electra",
        "mpnet",
        "gpt2",
        "gpt_neo",
        "opt",
        "llama",
        "mistral",
        "qwen2",
    ],
)
def test_which_heads_see_every_token_is_read_correctly(model_type):
    """Compared with what the last linear layer of a tiny network is given."""
    import torch

    network, seen = tiny_network(model_type), []
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].dim()))
    network(input_ids=torch.tensor([[5, 6, 7, 8]]), attention_mask=torch.ones(1, 4, dtype=torch.long))
    assert has_pooled_head(model_type) == (seen[-1] == 2)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "gpt2", "opt", "bloom", "falcon"])
def test_which_networks_count_positions_by_visible_tokens_is_read_correctly(model_type):
    """In these networks a hidden token in the middle is as if it were not there."""
    import torch

    network = tiny_network(model_type)
    hidden = network.base_model(
        input_ids=torch.tensor([[5, 6, 7]]), attention_mask=torch.tensor([[1, 0, 1]])
    ).last_hidden_state[:, -1]
    absent = network.base_model(
        input_ids=torch.tensor([[5, 7]]), attention_mask=torch.ones(1, 2, dtype=torch.long)
    ).last_hidden_state[:, -1]
    assert counts_attention(model_type) == torch.allclose(hidden, absent, atol=1e-6)


@pytest.mark.parametrize("method", ["tracin_last", "tfidf"])
def test_a_decoder_is_refused_by_plan_for_methods_of_the_last_layer(method, bert, tmp_path, monkeypatch, capsys):
    """The files are BERT's but for the type: nothing is built."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bert, "model")
    edit(Path("model/config.json"), model_type="gpt2")
    write(tmp_path, [{"name": "random"}, {"name": method}])
    assert main(["plan", "config.yaml"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"refit: config.yaml: methods[1]: {method} needs a last layer onto the logits")
    assert "'gpt2' gets one vector per token" in err
    write(tmp_path, [{"name": "random"}])
    assert main(["plan", "config.yaml"]) == 0
