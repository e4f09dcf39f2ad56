"""TextLen: drawn from CoNLL files it has the published counts and, from the published sentences, the published rows."""

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.components import parse_named
from tasks.data.textlen_draws import Lengths, textlen_examples
from tasks.errors import InputError
from tasks.registry import TASKS
from tasks.task import OpenRequest

SHARED = Path(os.environ.get("REFIT_DATA") or Path(__file__).parents[3] / "shared" / "data")
OPTIONS = {
    "name": "textlen",
    "model": {"name": "text_cnn", "embedding_dim": 4, "filters": 2, "max_length": 64},
    "recipe": {"name": "finetune", "epochs": 1, "batch_size": 64, "learning_rate": 0.01},
}
SPLITS = ("train", "dev", "test")
QUARTERS = {
    "train": {(0, 0): 675, (0, 1): 75, (1, 0): 75, (1, 1): 675},
    "dev": dict.fromkeys(((0, 0), (0, 1), (1, 0), (1, 1)), 120),
    "test": dict.fromkeys(((0, 0), (0, 1), (1, 0), (1, 1)), 125),
}


def open_task(data, base_dir=Path(), **options):
    return parse_named(TASKS, {**OPTIONS, "data": data, **options}, "c.yaml", "task").open(
        OpenRequest(base_dir, where="c.yaml")
    )


def shared(folder):
    """A folder of the shared data; where REFIT_DATA says where that is, as in CI, it has to be there."""
    path = SHARED / folder
    if not path.is_dir() and "REFIT_DATA" not in os.environ:
        pytest.skip(f"the data {folder} is not there")
    return path


def sentences(n_long, n_short, seed):
    """Sentences whose tokens say which sentence they are from; the long ones have 30 tokens or more."""
    rng = np.random.default_rng(seed)
    lengths = rng.permutation(np.concatenate([rng.integers(30, 60, n_long), rng.integers(1, 30, n_short)]))
    return [[f"s{number}.{position}" for position in range(n)] for number, n in enumerate(lengths.tolist())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sentences for both CoNLL files: train as columns, test as parquet."""
    path = tmp_path_factory.mktemp("conll")
    blocks = ("".join(f"{token}\tO\n" for token in tokens) for tokens in sentences(1990, 300, 0))
    (path / "train.txt").write_text("-DOCSTART- O\n\n" + "\n".join(blocks))
    pq.write_table(pa.table({"tokens": sentences(551, 100, 1)}), path / "test.parquet")
    return path


CONLL = {"conll_train": "train.txt", "conll_test": "test.parquet"}


@pytest.fixture(scope="module")
def task(folder):
    return open_task(CONLL, folder)


def quarters(split):
    return Counter(zip(split.labels.tolist(), split.confounds.tolist(), strict=True))


# --- the generator --------------------------------------------------------------------------------------------------


def test_generator_has_the_published_counts_of_label_and_confound(task):
    assert {name: quarters(split) for name, split in task.splits.items()} == QUARTERS
    for split in task.splits.values():
        assert (split.classes, split.confound_names) == (("short", "long"), ("negative", "positive"))
        assert split.ids.tolist() == list(range(len(split)))
    assert {name: len(rows) for name, rows in task.measured.items()} == {"train": 1500, "dev": 480, "test": 500}


def test_texts_are_a_prefix_by_confound_and_the_beginning_of_a_sentence(task):
    for split in task.splits.values():
        sources = []
        for text, confound in zip(split.texts, split.confounds.tolist(), strict=True):
            first, stop, *tokens = text.split(" ")
            assert (first, stop) == (("Negative", "Positive")[confound], ".")
            source = tokens[0].split(".")[0]
            assert tokens == [f"{source}.{position}" for position in range(len(tokens))]
            assert 1 <= len(tokens) <= 30
            sources.append(source)
        assert len(set(sources)) == len(sources)


def test_train_and_dev_share_no_sentence(task):
    used = [{text.split(" ")[2].split(".")[0] for text in task.splits[name].texts} for name in ("train", "dev")]
    assert not used[0] & used[1]


def test_lengths_follow_the_class(task):
    train = task.splits["train"]
    n_tokens = np.asarray([len(text.split(" ")) - 2 for text in train.texts])
    assert abs(n_tokens[train.labels == 0].mean() - 14.5) < 0.6  # int() takes half a token off
    assert abs(n_tokens[train.labels == 1].mean() - 24.5) < 0.6
    assert n_tokens.max() == 30


def test_without_prefix_texts_are_otherwise_equal_and_confounds_stay_known(task, folder):
    control = open_task({**CONLL, "prefix": False}, folder)
    for name, split in task.splits.items():
        bare = control.splits[name]
        assert bare.texts == tuple(text.split(" ", 2)[2] for text in split.texts)
        for column in ("ids", "labels", "confounds"):
            assert (getattr(bare, column) == getattr(split, column)).all()
    assert control.train_identity() != task.train_identity()


def test_same_options_same_data_whatever_the_global_generators_hold_and_they_are_left_alone(task, folder):
    random.seed(5)
    np.random.seed(5)
    again = open_task(CONLL, folder)
    assert random.random() == random.Random(5).random()
    assert np.random.random_sample() == np.random.RandomState(5).random_sample()
    assert again.train_identity() == task.train_identity()
    assert again.record_identity() == task.record_identity()


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"seed": 1}, {"train", "dev", "test"}),
        ({"train_draw_seed": 1}, {"train"}),
        ({"test_draw_seed": 1}, {"dev", "test"}),
        ({"sd": 2}, {"train", "dev", "test"}),
        ({"agreement": 0.8}, {"train"}),
    ],
)
def test_an_option_moves_the_splits_it_is_about(task, folder, change, moved):
    other = open_task({**CONLL, **change}, folder)
    different = {n for n in SPLITS if other.splits[n].content_digest() != task.splits[n].content_digest()}
    assert different == moved


def test_sizes_and_agreement_are_options(folder):
    task = open_task({**CONLL, "n_train": 40, "n_dev": 8, "n_test": 4, "agreement": 0.75, "max_tokens": 12}, folder)
    assert quarters(task.splits["train"]) == {(0, 0): 15, (0, 1): 5, (1, 0): 5, (1, 1): 15}
    assert [len(task.splits[name]) for name in SPLITS] == [40, 8, 4]
    assert max(len(text.split(" ")) for text in task.splits["train"].texts) == 14


def test_a_drawn_length_below_one_leaves_one_token():
    examples = textlen_examples([tuple("abcdef")] * 200, 0.5, Lengths(mean_short=1, mean_long=1, sd=4), seed=0)
    lengths = Counter(len(example.tokens) for example in examples)
    assert min(lengths) == 1
    assert lengths[1] > 90


def test_measure_can_be_chosen(folder):
    task = open_task(CONLL, folder, measure=[{"split": "test", "limit": 3}])
    assert {name: rows.tolist() for name, rows in task.measured.items()} == {"test": [0, 1, 2]}


def test_a_batch_is_made_of_the_drawn_texts(task):
    task.prepare()
    batch = task.batch("dev", np.arange(4))
    assert batch["labels"].tolist() == task.splits["dev"].labels[:4].tolist()
    n_tokens = [len(text.split(" ")) for text in task.splits["dev"].texts[:4]]
    assert (batch["attention_mask"].sum(1).numpy() >= n_tokens).all()


# --- the published files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [True, False])
def test_generator_equals_the_published_files_row_for_row(prefix):
    conll, published = shared("conll2003"), shared("textlen")
    # the published test set is made of the development file (testa) of CoNLL-2003
    options = {"conll_train": f"{conll}/train.parquet", "conll_test": f"{conll}/dev.parquet", "prefix": prefix}
    drawn, read = open_task(options), open_task({"published": str(published), "prefix": prefix})
    for name in SPLITS:
        ours, theirs = drawn.splits[name], read.splits[name]
        assert ours.texts == theirs.texts
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.confounds.tolist() == theirs.confounds.tolist()
    assert drawn.train_identity() == read.train_identity()
    assert drawn.record_identity() == read.record_identity()


def test_published_files_have_the_counts_and_the_threshold_accuracy_of_the_paper():
    task = open_task({"published": "textlen"}, shared("textlen").parent)
    control = open_task({"published": "textlen", "prefix": False}, shared("textlen").parent)
    assert {name: quarters(split) for name, split in task.splits.items()} == QUARTERS
    accuracy = {}
    for name, split in control.splits.items():
        assert split.texts == tuple(text.split(" ", 2)[2] for text in task.splits[name].texts)
        assert split.confounds.tolist() == task.splits[name].confounds.tolist()
        is_long = np.asarray([len(text.split(" ")) >= 20 for text in split.texts])
        accuracy[name] = round(100 * float((is_long == split.labels).mean()), 1)
    assert accuracy == {"train": 89.2, "dev": 90.0, "test": 89.2}


# --- files of the published form, and bad input ----------------------------------------------------------------------


def published_folder(path, **changed):
    columns = {"tokens": [["Negative", ".", "a"], ["Positive", ".", "b"]], "label": [0, 1], "spurious": [0, 1]}
    for name in SPLITS:
        table = {**columns, **changed} if name == "dev" else columns
        pq.write_table(pa.table({k: v for k, v in table.items() if v is not None}), path / f"{name}.parquet")
    return {"published": path.name}


def test_files_of_the_published_form_are_read(tmp_path):
    task = open_task(published_folder(tmp_path), tmp_path.parent)
    dev = task.splits["dev"]
    assert dev.texts == ("Negative . a", "Positive . b")
    assert (dev.labels.tolist(), dev.confounds.tolist(), dev.ids.tolist()) == ([0, 1], [0, 1], [0, 1])
    assert dev.confounds.dtype == np.int64


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"label": [0, 2]}, "dev.parquet: row 1: label 2: allowed: 0, 1"),
        ({"label": ["short", "long"]}, "dev.parquet: row 0: label 'short': allowed: 0, 1"),
        ({"spurious": [None, 1]}, "dev.parquet: row 0: spurious None: allowed: 0, 1"),
        ({"spurious": None}, "dev.parquet: no column 'spurious'; columns: 'tokens', 'label'"),
        ({"tokens": ["a", "b"]}, "dev.parquet: row 0: tokens 'a' is not a list"),
        ({"tokens": pa.array([], pa.list_(pa.string())), "label": [], "spurious": []}, "dev.parquet: holds no rows"),
    ],
)
def test_bad_published_files_are_named(tmp_path, changed, says):
    with pytest.raises(InputError) as caught:
        open_task(published_folder(tmp_path, **changed), tmp_path.parent)
    assert says in str(caught.value)


def test_a_missing_control_file_is_named_with_all_that_are_needed(tmp_path):
    with pytest.raises(InputError) as caught:
        open_task({**published_folder(tmp_path), "prefix": False}, tmp_path.parent)
    assert "c.yaml: task.data.published: " in str(caught.value)
    needed = "no file no_prefix_train.parquet; needed there: no_prefix_train.parquet, no_prefix_dev.parquet, "
    assert needed in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "c.yaml: task.data: does not say where the text is; needed: published, or conll_train and conll_test"),
        ({"prefix": True}, "c.yaml: task.data: does not say where the text is"),
        ({"published": "gone"}, "c.yaml: task.data.published: 'gone' does not exist"),
        ({"published": 3}, "c.yaml: task.data.published: 3: "),
        ({"published": ".", "n_train": 4}, "task.data.n_train: unknown key 'n_train'; allowed: prefix, published"),
        ({"published": ".", "prefix": "no"}, "c.yaml: task.data.prefix: 'no': "),
        ({"conll_train": "train.txt"}, "c.yaml: task.data.conll_test: is missing; allowed keys here: agreement, "),
        ({**CONLL, "conll_test": "gone.txt"}, "c.yaml: task.data.conll_test: 'gone.txt' does not exist"),
        ({**CONLL, "limit": 4}, "c.yaml: task.data.limit: unknown key 'limit'; allowed: agreement, conll_test, "),
        ({**CONLL, "n_train": 1501}, "c.yaml: task.data.n_train: 1501: Input should be a multiple of 2"),
        ({**CONLL, "n_test": "500"}, "c.yaml: task.data.n_test: '500': "),
        ({**CONLL, "agreement": 1.1}, "c.yaml: task.data.agreement: 1.1: "),
        ({**CONLL, "train_draw_seed": 2**32}, "c.yaml: task.data.train_draw_seed: 4294967296: "),
        (
            {**CONLL, "n_train": 1600},
            "train.txt has 1990 sentences of 30 tokens or more; n_train 1600 + n_dev 480 need 2080",
        ),
        ({**CONLL, "n_test": 552}, "c.yaml: task.data.conll_test: "),
        ({**CONLL, "n_test": 552}, "has 551 sentences of 30 tokens or more; n_test 552 need 552"),
        ([], "c.yaml: task.data: []: "),
    ],
)
def test_bad_data_blocks_are_named(folder, data, says):
    with pytest.raises(InputError) as caught:
        open_task(data, folder)
    assert says in str(caught.value)


def test_an_unknown_measured_split_is_named(folder):
    with pytest.raises(InputError, match=r"task\.measure\.0\.split: no split 'val'; splits: train, dev, test"):
        open_task(CONLL, folder, measure=[{"split": "val"}])
