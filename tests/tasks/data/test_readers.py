"""Every format gives the same records; whatever is malformed is named with its file and row."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.components import parse_component
from tasks.data.splits import SplitConfig, class_order, read_records, to_split
from tasks.errors import InputError

ROWS = [('one, "two"', "body\nhere", "b", 7), ("zwölf", "", "a", 3), ("x", "y", "b", -1)]
COLUMNS = {"text": ["title", "body"], "label": "label", "id": "number"}


def read(base_dir, **options):
    config = parse_component(SplitConfig, options, "c.yaml", "task.data.train")
    return read_records(config, base_dir, "c.yaml", "task.data.train")


def as_csv(path, delimiter):
    import csv

    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([("title", "body", "label", "number"), *ROWS])


def write(path, kind):
    names = ["title", "body", "label", "number"]
    if kind in ("csv", "tsv"):
        as_csv(path, "," if kind == "csv" else "\t")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS))
    else:
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*ROWS, strict=True)), strict=True))), path)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_formats_agree(tmp_path, kind):
    write(tmp_path / "data", kind)
    records = read(tmp_path, path="data", format=kind, **COLUMNS)
    assert records.texts == ('one, "two" body\nhere', "zwölf ", "x y")
    assert records.labels == ("b", "a", "b")
    assert records.ids.tolist() == [7, 3, -1]
    assert records.ids.dtype == np.int64


def test_folder_classes_sorted_and_files_in_natural_order(tmp_path):
    for name, text in {"pos/10.txt": "ten", "pos/2.txt": "two", "neg/1.txt": "one", "neg/.hidden": "no"}.items():
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_text(text)
    (tmp_path / "f" / "__pycache__").mkdir()
    records = read(tmp_path, path="f", format="folder")
    assert records.texts == ("one", "two", "ten")
    assert records.labels == ("neg", "pos", "pos")
    assert records.names == ("neg/1.txt", "pos/2.txt", "pos/10.txt")


def numbered(tmp_path, n=50):
    lines = [json.dumps({"t": f"text {i}", "l": i % 2}) for i in range(n)]
    (tmp_path / "n.jsonl").write_text("\n".join(lines))
    return {"path": "n.jsonl", "format": "jsonl", "text": "t", "label": "l"}


def test_ids_are_record_numbers_before_take_and_limit(tmp_path):
    options = numbered(tmp_path)
    assert read(tmp_path, **options, limit=3).ids.tolist() == [0, 1, 2]
    assert read(tmp_path, **options, take=[0.5, 1.0], limit=2).ids.tolist() == [25, 26]
    shuffled = read(tmp_path, **options, shuffle_seed=0, limit=10)
    assert shuffled.ids.tolist() != sorted(shuffled.ids.tolist())
    assert shuffled.texts == tuple(f"text {i}" for i in shuffled.ids)


def test_parts_of_one_shuffle_are_disjoint_and_complete(tmp_path):
    options = numbered(tmp_path, 53)
    parts = [read(tmp_path, **options, shuffle_seed=4, take=take).ids for take in ([0, 0.3], [0.3, 0.8], [0.8, 1])]
    assert sorted(np.concatenate(parts).tolist()) == list(range(53))
    again = read(tmp_path, **options, shuffle_seed=4, take=[0, 0.3]).ids
    assert again.tolist() == parts[0].tolist()


def test_key_order_and_other_columns_do_not_matter(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"t": "x", "l": "a", "i": 5}\n{"t": "y", "l": "b", "i": 6}\n')
    (tmp_path / "b.jsonl").write_text('{"i": 5, "z": 0, "l": "a", "t": "x"}\n{"l": "b", "t": "y", "i": 6}\n')
    first, second = (
        read(tmp_path, path=name, format="jsonl", text="t", label="l", id="i") for name in ("a.jsonl", "b.jsonl")
    )
    assert (first.texts, first.labels, first.ids.tolist()) == (second.texts, second.labels, second.ids.tolist())


def test_quotes_are_text_when_quoting_is_none(tmp_path):
    (tmp_path / "h.tsv").write_text('s\tl\n"Open quote\tyes\nplain\tno\n')
    assert read(tmp_path, path="h.tsv", format="tsv", text="s", label="l", quoting="none").texts == (
        '"Open quote',
        "plain",
    )
    with pytest.raises(InputError, match=r"h\.tsv: line \d: not valid tsv"):
        read(tmp_path, path="h.tsv", format="tsv", text="s", label="l")


def test_unicode_separators_and_form_feeds_stay_in_the_text(tmp_path):
    (tmp_path / "u.csv").write_bytes('\ufefft,l\r\n"a\u2028b\x0cc",x\r\n'.encode())
    assert read(tmp_path, path="u.csv", format="csv", text="t", label="l").texts == ("a\u2028b\x0cc",)


def test_other_encodings_and_replaced_bytes(tmp_path):
    (tmp_path / "e.csv").write_bytes("t,l\ncafé £5,x\n".encode("latin-1"))
    common = {"path": "e.csv", "format": "csv", "text": "t", "label": "l"}
    assert read(tmp_path, **common, encoding="latin-1").texts == ("café £5",)
    assert read(tmp_path, **common, bad_bytes="replace").texts == ("caf\ufffd \ufffd5",)
    with pytest.raises(InputError, match=r"e\.csv: line 2: byte 0xe9 is not utf-8"):
        read(tmp_path, **common)


def test_package_path_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "site" / "loud_corpus"
    (package / "data" / "a").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "data" / "a" / "1.txt").write_text("hello")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert read(tmp_path, path="package:loud_corpus/data", format="folder").texts == ("hello",)


CASES = {  # content of data.<format>, options, what the error must say
    "ragged csv": ("csv", b"t,l\na,b\na,b,c\n", {}, ["data.csv: line 3", "3 fields", "2 ('t', 'l')"]),
    "unclosed quote": ("csv", b't,l\n"a,b\n', {}, ["data.csv: line 2", "not valid csv"]),
    "empty file": ("csv", b"", {}, ["data.csv", "empty"]),
    "only a header": ("csv", b"t,l\n", {}, ["data.csv", "no records"]),
    "wrong column": ("csv", b"t,lable\na,b\n", {}, ["data.csv", "no column 'l'", "'t', 'lable'"]),
    "column twice": ("csv", b"t,t,l\na,b,c\n", {}, ["data.csv", "'t' appears 2 times"]),
    "empty label": ("csv", b"t,l\na,x\nb,\n", {}, ["data.csv: line 3: l", "no label"]),
    "blank label": ("csv", b"t,l\na,x\nb,  \n", {}, ["data.csv: line 3: l", "no label"]),
    "duplicate ids": ("csv", b"t,l,i\na,x,1\nb,y,2\nc,y,1\n", {"id": "i"}, ["line 4: i", "id 1", "line 2", "unique"]),
    "id not whole": ("csv", b"t,l,i\na,x,1.5\n", {"id": "i"}, ["line 2: i", "'1.5'", "whole numbers"]),
    "id missing": ("csv", b"t,l,i\na,x,\n", {"id": "i"}, ["line 2: i", "whole numbers"]),
    "id too large": ("jsonl", b'{"t": "a", "l": "x", "i": 9223372036854775808}', {"id": "i"}, ["line 1: i", "64 bits"]),
    "broken json": ("jsonl", b'{"t": "a", "l": "x"}\n\n{"t": \n', {}, ["data.jsonl: line 3", "not valid JSON"]),
    "deep json": ("jsonl", b"[" * 100_000, {}, ["data.jsonl: line 1", "not valid JSON"]),
    "json list": ("jsonl", b"[1]\n", {}, ["data.jsonl: line 1", "list, not an object"]),
    "json column": ("jsonl", b'{"t": "a"}\n', {}, ["data.jsonl: line 1", "no column 'l'", "columns: 't'"]),
    "json NaN label": ("jsonl", b'{"t": "a", "l": NaN}\n', {}, ["data.jsonl: line 1: l", "no label"]),
    "json null label": ("jsonl", b'{"t": "a", "l": null}\n', {}, ["data.jsonl: line 1: l", "no label"]),
    "float label": ("jsonl", b'{"t": "a", "l": 0.5}\n', {}, ["data.jsonl: line 1: l", "0.5", "whole numbers"]),
    "text is a number": ("jsonl", b'{"t": 4, "l": "x"}\n', {}, ["data.jsonl: line 1: t", "4; text"]),
    "text is null": ("jsonl", b'{"t": null, "l": "x"}\n', {}, ["data.jsonl: line 1: t", "no text"]),
    "lone surrogate": ("jsonl", b'{"t": "a\\ud800", "l": "x"}\n', {}, ["data.jsonl: line 1: t", "surrogate", "1"]),
    "csv as json": ("jsonl", b"t,l\na,b\n", {}, ["data.jsonl: line 1", "not valid JSON"]),
    "csv as parquet": ("parquet", b"t,l\na,b\n", {}, ["data.parquet", "not a readable parquet file"]),
    "empty parquet": ("parquet", b"", {}, ["data.parquet", "not a readable parquet file"]),
}


@pytest.mark.parametrize("case", CASES)
def test_malformed_content_is_named_with_file_and_row(tmp_path, case):
    kind, content, options, says = CASES[case]
    (tmp_path / f"data.{kind}").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path, path=f"data.{kind}", format=kind, text="t", label="l", **options)
    assert all(text in str(caught.value) for text in says), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [4, 60, 200])
def test_truncated_parquet(tmp_path, cut):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"t": ["text"] * 100, "l": [1] * 100}), path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError, match=r"t\.parquet: not a readable parquet file"):
        read(tmp_path, path="t.parquet", format="parquet", text="t", label="l")


def test_parquet_columns_and_nulls(tmp_path):
    pq.write_table(pa.table({"t": ["a", "b"], "l": [1, None], "f": [1.5, 2.0]}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="no column 'text'; columns: 't', 'l', 'f'"):
        read(tmp_path, path="p.parquet", format="parquet", text="text", label="l")
    with pytest.raises(InputError, match=r"p\.parquet: row 1: l: no label"):
        read(tmp_path, path="p.parquet", format="parquet", text="t", label="l")
    with pytest.raises(InputError, match=r"row 0: f: 1\.5 is not an id"):
        read(tmp_path, path="p.parquet", format="parquet", text="t", label="t", id="f")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": "none.csv", "format": "csv"}, "c.yaml: task.data.train.path: 'none.csv' does not exist"),
        ({"path": "", "format": "csv"}, "c.yaml: task.data.train.path: an empty path"),
        ({"path": "a\0b", "format": "csv"}, "c.yaml: task.data.train.path: "),
        ({"path": "dir", "format": "csv"}, "dir: is a directory"),
        ({"path": "dir", "format": "parquet"}, "dir: is a directory"),
        ({"path": "package:surely_not_there/x", "format": "csv"}, "not installed; pip install surely-not-there"),
        ({"path": "package:json/none", "format": "csv"}, "'package:json/none' does not exist"),
        ({"path": "package:csv/x", "format": "csv"}, "single module"),
        ({"path": "package:os.path/x", "format": "csv"}, "package:<module>/<dir>"),
    ],
)
def test_bad_paths(tmp_path, options, says):
    (tmp_path / "dir").mkdir()
    with pytest.raises(InputError) as caught:
        read(tmp_path, text="t", label="l", **options)
    assert says in str(caught.value)


def test_folder_must_hold_class_folders_with_files(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not a directory"):
        read(tmp_path, path="file", format="folder")
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError, match="holds no folder"):
        read(tmp_path, path="d", format="folder")
    (tmp_path / "d" / "a").mkdir()
    with pytest.raises(InputError, match=r"holds no records \(task\.data\.train\)"):
        read(tmp_path, path="d", format="folder")


GOOD = {"path": "x", "format": "csv", "text": "t", "label": "l"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({**GOOD, "format": "xlsx"}, ["task.data.train.format", "'xlsx'", "'csv'", "'parquet'"]),
        ({**GOOD, "lable": "l"}, ["task.data.train.lable", "unknown key", "shuffle_seed"]),
        ({**GOOD, "limit": 0}, ["task.data.train.limit", "0"]),
        ({**GOOD, "limit": "5"}, ["task.data.train.limit", "'5'"]),
        ({**GOOD, "take": [0.5, 0.5]}, ["task.data.train.take", "[0.5, 0.5]", "0 <= start < stop <= 1"]),
        ({**GOOD, "take": [0, 2]}, ["task.data.train.take"]),
        ({**GOOD, "take": [0.1]}, ["task.data.train.take"]),
        ({**GOOD, "encoding": "utf-99"}, ["task.data.train.encoding", "'utf-99'"]),
        ({**GOOD, "encoding": "base64"}, ["task.data.train.encoding", "'base64'"]),
        ({**GOOD, "split": "test"}, ["split is an option of format hf"]),
        ({**GOOD, "format": "jsonl", "quoting": "none"}, ["quoting is an option of format csv, tsv"]),
        ({**GOOD, "format": "folder"}, ["takes no text, label or id"]),
        ({"path": "x", "format": "csv", "text": "t"}, ["needs the columns text and label"]),
        ({"format": "csv", "text": "t", "label": "l"}, ["task.data.train.path", "missing"]),
    ],
)
def test_bad_split_options(tmp_path, options, says):
    with pytest.raises(InputError) as caught:
        read(tmp_path, **options)
    assert all(text in str(caught.value) for text in says), str(caught.value)


def test_take_that_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match=r"task\.data\.train\.take"):
        read(tmp_path, **numbered(tmp_path, 3), take=[0, 0.1])


def test_class_order_is_numeric_for_numbers_and_alphabetic_otherwise():
    assert class_order(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert class_order(["10", "9", "x"]) == ["10", "9", "x"]
    assert class_order(["007", "1"]) == ["007", "1"]


def test_label_outside_the_classes_is_named_with_its_row(tmp_path):
    (tmp_path / "t.csv").write_text("t,l\na,x\nb,z\n")
    records = read(tmp_path, path="t.csv", format="csv", text="t", label="l")
    with pytest.raises(InputError, match=r"t\.csv: line 3: label 'z' is not one of the classes: 'x', 'y'"):
        to_split(records, {"x": "x", "y": "y"}, "the classes")


def test_hf_without_the_package_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"task\.data\.train\.path: .*pip install 'refit\[hf\]'"):
        read(tmp_path, path="somebody/something", format="hf", text="t", label="l")


def test_hf_reads_a_saved_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"t": datasets.Value("string"), "l": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.Dataset.from_dict({"t": ["a", "b"], "l": [1, 0]}, features=features)
    datasets.DatasetDict({"test": made}).save_to_disk(str(tmp_path / "d"))
    common = {"path": "d", "format": "hf", "text": "t", "label": "l"}
    assert read(tmp_path, **common, split="test").labels == ("yes", "no")
    with pytest.raises(InputError, match="no split 'train'; splits: 'test'"):
        read(tmp_path, **common)
