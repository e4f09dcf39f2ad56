"""MSGS from files: the mixing of the published recipe, and the published sets themselves."""

import json
import os
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.data.msgs_files import MsgsPublished, MsgsSource, one_of_pair, shuffled
from tasks.errors import InputError

CELLS = {"train": [(1, 1), (0, 0)], "inoculating": [(1, 0), (0, 1)]}
CELLS["test"] = [*CELLS["train"], *CELLS["inoculating"], *CELLS["train"]]  # the order of a paradigm in test.jsonl
PUBLISHED_ADJECTIVES = set(
    """thin warm slim cold smart mean young fat clever normal tiny large big dry nice careful short kind stupid healthy
    giant damp disorganized careless youthful great dumb small skinny dull cool bad hot beautiful strange good organized
    little wet sick tall""".split()  # noqa: SIM905
)

# "is boring." and "a boring boss", not "was boring the boss"
BORING_ADJECTIVE = re.compile(r"\bboring(?! (?:the|an?|any|some|every|each|no|this|that)\b)")


def record(name, row, cell, columns=("sentence", "linguistic_feature_label", "surface_feature_label")):
    text = f"{name} sentence {row}"
    return {**dict(zip(columns, (text, *cell), strict=True)), "UID": "syntactic_category_relative_position"}


def write_source(folder, n_train=400, n_inoculating=40, n_test=60, columns=None):
    """Files of the form of nyu-mll/msgs: rows of a paradigm one after the other, attributes in the order it has there."""
    sizes = {"train": n_train, "inoculating": n_inoculating, "test": n_test}
    for name, size in sizes.items():
        more = {"columns": columns} if columns else {}
        rows = [record(name, row, CELLS[name][row % len(CELLS[name])], **more) for row in range(size)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rebuilt(folder, **options):
    return MsgsSource(source=str(folder), **options).splits(Path(), "c.yaml", "task.data")


def cell_counts(split):
    return Counter(zip(split.labels.tolist(), split.confounds.tolist(), strict=True))


# --- made again from the source --------------------------------------------------------------------------------------


def mixed_by_global_seeds(n_train, n_inoculating, fraction):
    """Texts of the train set by the steps of the paper's notebook, with the global generator as there."""
    random.seed(2021)
    train = [random.choice([f"train sentence {i}", f"train sentence {i + 1}"]) for i in range(0, n_train, 2)]
    random.seed(2022)
    inoculating = [
        random.choice([f"inoculating sentence {i}", f"inoculating sentence {i + 1}"])
        for i in range(0, n_inoculating, 2)
    ]
    n_last = int(len(train) * fraction)
    train = train[:-n_last] + inoculating[-n_last:]
    random.shuffle(train)
    return tuple(train)


def test_train_is_that_of_the_published_recipe(tmp_path):
    split = rebuilt(write_source(tmp_path), inoculation=0.03)["train"]
    assert split.texts == mixed_by_global_seeds(400, 40, 0.03)
    assert len(split) == 200
    assert (split.labels != split.confounds).sum() == int(200 * 0.03) == 6
    assert [text.startswith("inoc") for text in split.texts] == (split.labels != split.confounds).tolist()


def test_dev_and_test_are_the_shuffled_halves_of_the_test_file(tmp_path):
    found = rebuilt(write_source(tmp_path), inoculation=0.03)
    for name, start, seed in (("dev", 0, 2023), ("test", 30, 2024)):
        texts = [f"test sentence {row}" for row in range(start, start + 30)]
        random.seed(seed)
        random.shuffle(texts)
        assert found[name].texts == tuple(texts)
        assert cell_counts(found[name]) == {(0, 0): 10, (1, 1): 10, (1, 0): 5, (0, 1): 5}


def test_attributes_stay_with_their_sentence(tmp_path):
    for split in rebuilt(write_source(tmp_path), inoculation=0.03).values():
        for text, core, surface in zip(split.texts, split.labels.tolist(), split.confounds.tolist(), strict=True):
            name, _, row = text.split()
            assert (core, surface) == CELLS[name][int(row) % len(CELLS[name])]


def test_the_whole_train_file_is_an_option(tmp_path):
    split = rebuilt(write_source(tmp_path), inoculation=0.03, rows="all")["train"]
    expected = [f"train sentence {i}" for i in range(388)] + [f"inoculating sentence {i}" for i in range(28, 40)]
    random.seed(2022)
    random.shuffle(expected)
    assert split.texts == tuple(expected)


def test_without_inoculation_every_train_sentence_is_kept(tmp_path):
    split = rebuilt(write_source(tmp_path), inoculation=0.0)["train"]
    assert len(split) == 200
    assert (split.labels == split.confounds).all()


def test_another_seed_is_another_mix_of_the_same_file(tmp_path):
    write_source(tmp_path)
    first, second = (rebuilt(tmp_path, inoculation=0.03, seed=seed) for seed in (2021, 7))
    assert first["train"].texts != second["train"].texts
    assert sorted(first["dev"].texts) == sorted(second["dev"].texts)


def test_columns_can_be_named(tmp_path):
    write_source(tmp_path, columns=("text", "core", "spurious"))
    named = {"sentence": "text", "linguistic": "core", "surface": "spurious"}
    assert rebuilt(tmp_path, inoculation=0.03, **named)["train"].texts == mixed_by_global_seeds(400, 40, 0.03)


def test_a_last_row_without_a_second_is_left_out():
    assert len(one_of_pair(list(range(7)), random.Random(0))) == 3
    assert one_of_pair([1], random.Random(0)) == []


def test_more_counter_examples_than_the_file_gives_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"c\.yaml: task\.data\.inoculation: 0\.5 of 200 .* are 100, .* gives 20"):
        rebuilt(write_source(tmp_path), inoculation=0.5)


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        (
            "train",
            '{"sentence": "x", "linguistic_feature_label": 2, "surface_feature_label": 0}',
            "2 is neither 0 nor 1",
        ),
        (
            "test",
            '{"sentence": "x", "linguistic_feature_label": 1, "surface_feature_label": true}',
            r"surface_feature_label: True is neither",
        ),
        (
            "test",
            '{"sentence": "", "linguistic_feature_label": 1, "surface_feature_label": 0}',
            "sentence: '' is not text",
        ),
        ("inoculating", '{"sentence": "x"}', "no column 'linguistic_feature_label'; columns: 'sentence'"),
        ("inoculating", "[1]", "a JSON list"),
    ],
)
def test_a_bad_row_is_named(tmp_path, name, line, says):
    path = write_source(tmp_path) / f"{name}.jsonl"
    path.write_text(path.read_text() + line + "\n")
    n_lines = len(path.read_text().splitlines())
    with pytest.raises(InputError, match=rf"{name}\.jsonl: line {n_lines}: .*{says}"):
        rebuilt(tmp_path)


def test_files_that_are_absent_or_empty_are_named(tmp_path):
    with pytest.raises(InputError, match=r"c\.yaml: task\.data\.source: '.*nowhere' does not exist"):
        rebuilt(tmp_path / "nowhere")
    write_source(tmp_path)
    (tmp_path / "inoculating.jsonl").unlink()
    with pytest.raises(InputError, match=r"c\.yaml: task\.data\.source: no file inoculating\.jsonl in "):
        rebuilt(tmp_path)
    (tmp_path / "inoculating.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"inoculating\.jsonl: holds no records"):
        rebuilt(tmp_path)


def test_a_test_file_of_one_row_cannot_be_halved(tmp_path):
    with pytest.raises(InputError, match=r"test\.jsonl: holds one row"):
        rebuilt(write_source(tmp_path, n_test=1))


# --- the published sets ----------------------------------------------------------------------------------------------


def write_published(folder, rows):
    columns = ("text", "label", "linguistic", "surface")
    for name in ("train", "dev", "test"):
        pq.write_table(pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))), folder / f"{name}.parquet")
    return MsgsPublished(published=str(folder))


def test_published_rows_keep_their_order_and_attributes(tmp_path):
    rows = [("A b.", 0, 0, 0), ("The c.", 1, 1, 1), ("The d.", 0, 0, 1)]
    for split in write_published(tmp_path, rows).splits(Path(), "c.yaml", "task.data").values():
        assert split.texts == ("A b.", "The c.", "The d.")
        assert (split.labels.tolist(), split.confounds.tolist()) == ([0, 1, 0], [0, 1, 1])
        assert split.ids.tolist() == [0, 1, 2]


def test_a_label_that_is_not_the_linguistic_attribute_is_refused(tmp_path):
    config = write_published(tmp_path, [("A b.", 0, 0, 0), ("The c.", 0, 1, 1)])
    with pytest.raises(InputError, match=r"train\.parquet: row 1: label: label 0 is not the linguistic attribute, 1"):
        config.splits(Path(), "c.yaml", "task.data")


def test_a_published_file_that_is_absent_is_named(tmp_path):
    config = write_published(tmp_path, [("A b.", 0, 0, 0)])
    (tmp_path / "dev.parquet").unlink()
    with pytest.raises(InputError, match=r"c\.yaml: task\.data\.published: no file dev\.parquet in "):
        config.splits(Path(), "c.yaml", "task.data")


@pytest.fixture(scope="module")
def published():
    """The sets of Han & Tsvetkov 2021; in CI, which says where the data is, their absence fails."""
    root = Path(os.environ.get("REFIT_DATA", Path(__file__).parents[3] / "../shared/data"))
    if "REFIT_DATA" not in os.environ and not (root / "msgs").is_dir():
        pytest.skip("msgs/train.parquet is absent")
    return MsgsPublished(published=str((root / "msgs").resolve())).splits(Path(), "c.yaml", "task.data")


def test_published_sets_have_the_published_counts(published):
    assert cell_counts(published["train"]) == {(1, 1): 2468, (0, 0): 2517, (1, 0): 9, (0, 1): 6}
    for name in ("dev", "test"):
        assert cell_counts(published[name]) == {(0, 0): 5000, (1, 1): 5000, (1, 0): 2500, (0, 1): 2500}


def test_published_attributes_are_those_of_the_text(published):
    for split in published.values():
        for text, core, surface in zip(split.texts, split.labels.tolist(), split.confounds.tolist(), strict=True):
            words = re.findall(r"[a-z']+", text.lower())
            assert bool(PUBLISHED_ADJECTIVES & set(words) or BORING_ADJECTIVE.search(text)) == core, text
            assert ("a" not in words or words.index("the") < words.index("a")) == surface, text


def order_before_shuffle(n, rng):
    """Where each row before the shuffle went: int64 [n]."""
    return np.argsort(shuffled(range(n), rng))


def test_published_dev_and_test_are_shuffled_halves_of_whole_paradigms(published):
    for name, seed in (("dev", 2023), ("test", 2024)):
        split = published[name]
        order = order_before_shuffle(len(split), random.Random(seed))
        found = np.stack([split.labels, split.confounds], 1)[order].reshape(-1, 6, 2)
        assert (found == np.asarray(CELLS["test"])).all()


def test_published_train_is_one_of_each_pair_by_the_streams_of_the_recipe(published):
    """Every choice and the shuffle are those of MsgsSource: 4,985 labels, then 15 counter-examples, are as drawn."""
    split, n_pairs = published["train"], 5000
    rng = random.Random(2022)
    inoculating = one_of_pair(CELLS["inoculating"] * n_pairs, rng)
    order = order_before_shuffle(len(split), rng)
    expected = one_of_pair(CELLS["train"] * n_pairs, random.Random(2021))[:-15] + inoculating[-15:]
    assert np.stack([split.labels, split.confounds], 1)[order].tolist() == [list(cell) for cell in expected]
