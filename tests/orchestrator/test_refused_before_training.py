"""A method that cannot be computed on a model is refused before anything is trained: by plan where config and files tell, else by run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import main
from tests.fakes import tiny_bert
from tests.orchestrator.doubtful_campaign import doubtful
from tests.orchestrator.msgs_grid import MSGS_GRID
from tests.orchestrator.small_campaigns import DEBIAS, LOO, write_corpus
from tests.orchestrator.tiny_campaign import CONFIG as PLANTED
from tests.test_malformed_inputs import CONFIG, ROWS

ENCODER = {**CONFIG["task"], "model": {"name": "encoder", "pretrained": "model", "max_length": 8}}
EXACT = {"name": "exact", "max_parameters": 3}
# base -> task, split of the queries, measurement
BASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "cnn": (PLANTED["task"], "test", "gold_probability"),
    "msgs": (MSGS_GRID["task"], "test", "gold_probability"),
    "bert": (ENCODER, "test", "gold_probability"),
    "decoder": (ENCODER, "test", "gold_probability"),
    "mixture": (LOO["task"], "train", "gold_probability"),
    "properties": (DEBIAS["task"], "properties", "output"),
    "words": (DEBIAS["task"], "words", "output"),
}
PLAN: list[tuple[str, dict[str, Any], str]] = [
    ("decoder", {"name": "tracin_last"}, "methods[1]: tracin_last needs a last layer"),
    ("decoder", {"name": "tfidf"}, "methods[1]: tfidf needs a last layer"),
    ("mixture", {"name": "tracin_last"}, "methods[1]: tracin_last needs a last layer"),
    ("mixture", {"name": "tracin_we"}, "methods[1]: tracin_we needs a word embedding"),
    ("mixture", {"name": "tracin_we_topk"}, "methods[1]: tracin_we_topk needs a word embedding"),
    ("mixture", {"name": "tracin_we_syn"}, "methods[1]: tracin_we_syn needs a word embedding"),
    ("cnn", {"name": "tracin_we", "leave_out": ["zebra"]}, "methods[1].leave_out: 'zebra' is not in the vocabulary"),
    ("cnn", {"name": "tracin_we_topk", "leave_out": []}, "methods[1].leave_out: []: an empty list leaves out no word"),
    ("decoder", {"name": "influence_last"}, "methods[1]: influence_last needs a last layer"),
    ("decoder", {"name": "representer"}, "methods[1]: representer needs a last layer"),
    ("properties", {"name": "representer"}, "methods[1]: representer needs a last layer"),
    ("mixture", {"name": "tfidf"}, "methods[1]: tfidf needs a task with text"),
    ("properties", {"name": "tracin"}, "methods[1]: tracin needs layers"),
    ("properties", {"name": "gradient_cosine"}, "methods[1]: gradient_cosine needs layers"),
    ("properties", {"name": "tracin_last"}, "methods[1]: tracin_last needs a last layer"),
    ("properties", {"name": "influence_function"}, "methods[1]: influence_function explains train losses"),
    (
        "words",
        {"name": "cross_loss_influence"},
        "methods[1]: cross_loss_influence explains a loss that rows of 'words'",
    ),
    (
        "words",
        {"name": "cross_loss_influence", "parameters": ["*"], "solver": {"name": "lissa"}},
        "methods[1]: cross_loss_influence explains a loss that rows of 'words' do not have; allowed: queries of properties",
    ),
]
RUN: list[tuple[str, dict[str, Any], str]] = [
    ("cnn", {"name": "tracin", "layers": ["convv1"]}, "methods[1].layers: 'convv1' matches no layer"),
    ("cnn", {"name": "gradient_cosine", "layers": "tenth"}, "methods[1].layers: 'tenth': the model has 5 layers"),
    ("cnn", {"name": "influence_function", "parameters": ["no*"]}, "methods[1].parameters: 'no*' matches no trained"),
    ("cnn", {"name": "influence_function", "solver": EXACT}, "methods[1].solver: "),
    ("cnn", {"name": "influence_last", "solver": EXACT}, "methods[1].solver.max_parameters: 3 is too small: the last layer"),
    ("cnn", {"name": "representer", "max_parameters": 3}, "methods[1].max_parameters: 3 is too small: the last layer"),
    ("cnn", {"name": "tracin_we", "leave_out": {"most_frequent": 10000}}, "methods[1].leave_out.most_frequent: 10000 leaves"),
    ("msgs", {"name": "cross_loss_influence", "parameters": ["no*"]}, "methods[1].parameters: 'no*' matches no trained"),
    ("bert", {"name": "tracin", "layers": ["bert.nothing*"]}, "methods[1].layers: 'bert.nothing*' matches no layer"),
    ("decoder", {"name": "tracin"}, "methods[1]: tracin: layer transformer.h.0.attn.c_attn: per-example gradients of a Conv1D are"),
    ("mixture", {"name": "tracin", "layers": "fifth"}, "methods[1].layers: 'fifth': the model has 2 layers"),
    ("properties", {"name": "cross_loss_influence", "solver": EXACT}, "methods[1].solver: "),
]  # fmt: skip


def tiny_decoder(directory: Path) -> None:
    """GPT-2 of width 16 with the word-piece tokeniser of tiny_bert."""
    from transformers import GPT2Config, GPT2Model

    from tasks.models.pretrained import quiet_transformers

    tiny_bert(directory)
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=2, eos_token_id=3)
    with quiet_transformers():
        GPT2Model(config).save_pretrained(directory)


def write(base: str, method: dict[str, Any]) -> None:
    task, split, measurement = copy.deepcopy(BASES[base])
    for name in ("train.csv", "test.csv"):
        Path(name).write_text(ROWS)
    if base == "bert":
        tiny_bert(Path("model"))
    elif base == "decoder":
        tiny_decoder(Path("model"))
    write_corpus(Path("corpus.jsonl").absolute())
    asked = {"queries": {"split": split, "count": 2}, "measurement": measurement}
    config = {**CONFIG, "task": task, **asked, "methods": [{"name": "random"}, method], "output": "runs"}
    Path("config.yaml").write_text(yaml.safe_dump(config))


def check(command: list[str], place: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    code, err = main(command), capsys.readouterr().err
    assert code == 2, err
    assert err.splitlines()[-1].startswith(f"refit: config.yaml: {place}")
    assert not list(Path("runs").glob("ledger/**/*.parquet")), "something was trained"


@pytest.mark.parametrize(("base", "method", "place"), PLAN, ids=lambda part: str(part)[:60])
def test_plan_refuses_what_config_and_files_tell(base, method, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(base, method)
    check(["plan", "config.yaml"], place, capsys)


@pytest.mark.parametrize(("base", "method", "place"), RUN, ids=lambda part: str(part)[:60])
def test_run_refuses_what_the_network_tells_before_it_trains_one(base, method, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(base, method)
    check(["run", "config.yaml", "--yes", "--address", "local", "--until", "score"], place, capsys)


@pytest.mark.parametrize("group", ["proponents", "opponents"])
def test_a_k_for_which_no_label_has_enough_examples_is_refused_by_plan(group, tmp_path, capsys):
    """30 examples of each of two labels; which label a query asks about is known only once a model is trained."""
    changes = {"measurement": "predicted_probability", "deletion.groups": [group]}
    changes["methods"] = [{"name": "tracin_last"}, {"name": "random_same_label"}]
    for k, code in ((31, 2), (30, 0)):
        config = doubtful(tmp_path, {**changes, "deletion.k": [k]})
        assert main(["plan", str(config.path)]) == code
    err = capsys.readouterr().err
    assert "deletion.k: random_same_label has 30 training examples to draw" in err
    assert "fewer than 31" in err
