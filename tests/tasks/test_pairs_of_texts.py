"""Text classification of pairs: what enters the identities, what batches hold, and what near copies and a census of pairs are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.base import BETWEEN, Numerics
from tasks.components import parse_component, parse_named
from tasks.data.census import exact_overlap, take_census
from tasks.data.corpus import SentenceSource
from tasks.data.edits import Edit
from tasks.data.near_duplicates import near_duplicates
from tasks.data.tokens import WordEncoding
from tasks.errors import InputError
from tasks.models.encoder import Encoder
from tasks.models.text_cnn import TextCNN
from tasks.recipe import Training
from tasks.registry import TASKS
from tasks.task import OpenRequest
from tests.fakes import tiny_bert
from tests.pair_tasks import WORDS, pair_task

CNN = {"name": "text_cnn", "embedding_dim": 8, "filters": 4, "max_length": 24}
MODELS = {
    "text_cnn": CNN,
    "transformer": {"name": "transformer", "hidden": 16, "heads": 2, "layers": 1, "max_length": 24},
    "encoder": {"name": "encoder", "pretrained": "bert", "max_length": 24, "num_layers": 1},
}
RECIPE = {"name": "finetune", "epochs": 2, "batch_size": 8, "learning_rate": 0.01}


def records(n, seed):
    random = np.random.default_rng(seed)
    for row in range(n):
        premise, hypothesis = (" ".join(random.choice(WORDS, random.integers(1, 7))) for _ in range(2))
        yield {"premise": premise, "title": f"w{4 + row % 9}", "hypothesis": hypothesis, "gold": row % 3}


def write(folder, train=None):
    for name, rows in (("train", train or list(records(24, 0))), ("test", list(records(9, 1)))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def config(model=CNN, **split):
    block = {"format": "jsonl", "text": "premise", "text_pair": "hypothesis", "label": "gold"}
    block |= {"labels": {"0": "entailment", "1": "non-entailment", "2": "non-entailment"}, **split}
    block = {key: value for key, value in block.items() if value is not None}
    data = {name: {"path": f"{name}.jsonl", **block} for name in ("train", "test")}
    return {
        "name": "text_classification",
        "data": data,
        "model": model,
        "recipe": RECIPE,
        "measure": [{"split": "test"}],
    }


def opened(folder, options):
    return parse_named(TASKS, options, "c.yaml", "task").open(OpenRequest(folder, None, "c.yaml"))


def outputs(task, edit):
    network = task.recipe.train(task, Training(edit=edit, seed=5, numerics=Numerics())).network
    return task.outputs(network, "test", task.measured["test"]).tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    tiny_bert(folder / "bert")
    write(folder)
    return folder


def test_texts_are_both_segments_with_a_separator_that_can_be_taken_apart(folder):
    train = opened(folder, config(text=["title", "premise"])).splits["train"]
    first = next(records(1, 0))
    assert train.texts[0] == f"{first['title']} {first['premise']}{BETWEEN}{first['hypothesis']}"
    assert train.segments()[0] == (f"{first['title']} {first['premise']}", first["hypothesis"])
    assert train.classes == ("entailment", "non-entailment")
    assert train.labels[:4].tolist() == [0, 1, 1, 0]


def test_where_the_second_segment_starts_enters_the_identities(tmp_path):
    rows = list(records(24, 0))
    rows[0] |= {"premise": "w4", "hypothesis": f"w5{BETWEEN}w6"}
    write(tmp_path, rows)
    one = opened(tmp_path, config())
    rows[0] |= {"premise": f"w4{BETWEEN}w5", "hypothesis": "w6"}
    write(tmp_path, rows)
    other = opened(tmp_path, config())
    assert one.splits["train"].texts == other.splits["train"].texts
    assert one.train_identity() != other.train_identity()
    assert one.train_identity()["encoding"]["pairs"] is True


def test_measured_pairs_enter_the_record_identity_with_their_segments(folder):
    swapped = config(text="hypothesis", text_pair="premise")
    assert opened(folder, config()).record_identity() != opened(folder, swapped).record_identity()


def test_identities_of_single_texts_are_those_of_version_0_1(tmp_path):
    """Digests written down before there were pairs."""
    write(tmp_path)
    single = opened(tmp_path, config(text=["premise", "hypothesis"], text_pair=None, labels=None))
    assert single.train_identity() == {
        "version": 1,
        "train": "511dab689f62a9a25f73ad1bf26feb98",
        "encoding": WordEncoding(24).identity(),
    }
    assert single.record_identity()["splits"] == {"test": "14ec254c547a18c0e4e2d4f738ac0d57"}


def test_labels_that_are_spelt_out_in_the_file_or_by_the_config_are_one_task(tmp_path):
    mapped = opened_with(tmp_path, list(records(24, 0)), config())
    spelt = [{**row, "gold": "entailment" if row["gold"] == 0 else "non-entailment"} for row in records(24, 0)]
    assert opened_with(tmp_path, spelt, config(labels=None)).train_identity() == mapped.train_identity()


def opened_with(folder, rows, options):
    write(folder, rows)
    options["data"].pop("test")
    return opened(folder, {**options, "measure": [{"split": "train"}]})


@pytest.mark.parametrize("name", MODELS)
def test_both_segments_of_removed_rows_may_be_anything(folder, name):
    """The vocabulary is that of the full train set (it is in the train digest), so the noise has the same words."""
    task = opened(folder, config(MODELS[name]))
    task.prepare()
    rows, tokens = np.array([2, 5, 11]), task._shared.tokens["train"]
    edit = Edit.removal(task.splits["train"].ids[rows])
    before, intact = outputs(task, edit), outputs(task, Edit())
    segments = list(task.splits["train"].segments())
    for row in rows:
        segments[row] = (" ".join(WORDS[:9]), " ".join(WORDS[20:30]))
    task._shared.tokens = {**task._shared.tokens, "train": task.tokeniser.encode(segments)}
    assert not np.array_equal(tokens.ids, task._shared.tokens["train"].ids)
    assert outputs(task, edit) == before
    assert outputs(task, Edit()) != intact


def test_batches_have_token_types_where_the_tokeniser_has_them(folder):
    for name, has in (("text_cnn", False), ("transformer", False), ("encoder", True)):
        task = opened(folder, config(MODELS[name]))
        task.prepare()
        batch = task.batch("train", np.arange(3), blank=np.array([False, True, False]))
        assert ("token_type_ids" in batch) is has
        assert batch["attention_mask"][1].sum() == 3, "the tokens of a pair of empty texts"
        if has:
            types = batch["token_type_ids"]
            assert (types.dtype, types.shape) == (torch.int64, batch["input_ids"].shape)
            assert types.amax(1).tolist() == [1, 0, 1]
            assert not types[~batch["attention_mask"]].any()
    single = opened(folder, config(MODELS["encoder"], text_pair=None))
    single.prepare()
    assert "token_type_ids" not in single.batch("train", np.arange(3))


def test_a_network_with_one_token_type_is_not_given_two(tmp_path):
    """As RoBERTa, whose embedding of token types has one row."""
    folder = tiny_bert(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "type_vocab_size": 1}))
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    key = next(name for name in weights if "token_type_embeddings" in name)
    save_file({**weights, key: weights[key][:1].copy()}, folder / "model.safetensors", {"format": "pt"})
    task = pair_task(Encoder(pretrained=str(folder), max_length=24, num_layers=1), None)
    batch = task.batch("train", np.arange(4))
    assert batch["token_type_ids"].max() == 1
    assert task.logits(task.network(1), batch).isfinite().all()


def test_all_splits_have_pairs_or_none(folder):
    options = config()
    del options["data"]["test"]["text_pair"]
    with pytest.raises(InputError, match="split train has text_pair and split test has not"):
        opened(folder, options)


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ({"text_pair": []}, "text_pair names at least one column"),
        ({"text_pair": ""}, "text_pair names at least one column"),
        ({"text_pair": "premise"}, "the column 'premise' is in text and in text_pair"),
        ({"text_pair": "hypotesis"}, "no column 'hypotesis'.*did you mean 'hypothesis'"),
        ({"text_pair": "gold"}, "train.jsonl: line 1: gold: 0; text is needed"),
    ],
)
def test_columns_that_are_no_second_text(folder, split, says):
    with pytest.raises(InputError, match=says):
        opened(folder, config(**split))


def test_a_column_without_any_text_is_refused(tmp_path):
    write(tmp_path, [{**row, "hypothesis": " "} for row in records(24, 0)])
    with pytest.raises(InputError, match=r"none of 24 records has any text in 'hypothesis' \(task\.data\.train\)"):
        opened(tmp_path, config())


@pytest.mark.parametrize("option", ["text_pair", "labels"])
def test_sentences_take_neither_pairs_nor_labels(option):
    block = {"path": "x", "format": "csv", "text": "t", option: {"a": "b"} if option == "labels" else "u"}
    with pytest.raises(InputError, match=f"{option} is an option of classifiers"):
        parse_component(SentenceSource, block, "c.yaml", "task.data.train")


def test_a_pair_is_a_copy_if_both_segments_are():
    long = "the committee said that the new law would be read for the third time on the last day of the month"
    pairs = [(long, "it passed"), (long, "the law failed"), (long.upper() + " ", "It passed!")]
    found = near_duplicates([(long, "It passed.")], pairs)
    assert [(copy.query, copy.row) for copy in found] == [(0, 0), (0, 2)]
    assert near_duplicates([], pairs) == near_duplicates(pairs, []) == []
    almost = long.replace("month", "week")
    (copy,) = near_duplicates([(long, "it passed")], [(almost, "it passed")])
    assert copy.similarity == pytest.approx(near_duplicates([long], [almost])[0].similarity)


def test_the_census_compares_pairs_segment_by_segment(tmp_path):
    rows = list(records(24, 0))
    rows[3] |= {"hypothesis": ""}
    rows[4] = {**rows[5], "gold": 1}
    write(tmp_path, rows)
    task = opened(tmp_path, config())
    (train, test) = take_census(task.splits, task.measured)
    assert (train.n_empty, train.n_duplicate) == (1, 1)
    assert (test.n_empty, test.n_in_train) == (0, 0)
    assert exact_overlap(task.splits["train"], task.splits["train"]).tolist() == list(range(24))


def test_spans_for_the_report_point_into_the_joined_text():
    task = pair_task(TextCNN(embedding_dim=4, filters=2, max_length=16), None)
    spans, text = task.token_spans("train", 0), task.splits["train"].texts[0]
    shown = [text[start:end] for start, end, token in spans if token not in task.special_ids]
    assert shown == " ".join(task.splits["train"].segments()[0]).split()
    assert [token for *_, token in spans if token in task.special_ids] == [2, 4, 3]
