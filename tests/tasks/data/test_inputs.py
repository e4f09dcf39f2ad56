"""Files as people have them: compressed, with other delimiters, in several parts, with tokens; what is wrong is told in one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.data import compressed
from tests.tasks.data.split_files import read_split, refusal

CSV = "t,l\nfirst text,x\nsecond text,y\n"
TEXTS = ("first text", "second text")


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESSORS = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd}
CONTENT = {
    "csv": CSV,
    "tsv": CSV.replace(",", "\t"),
    "jsonl": "".join(json.dumps({"t": text, "l": label}) + "\n" for text, label in zip(TEXTS, "xy", strict=True)),
}


# --- compression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("kind", CONTENT)
def test_compressed_files_are_read_by_their_content(tmp_path, kind, suffix):
    data = COMPRESSORS[suffix](CONTENT[kind].encode())
    assert read_split(tmp_path, data, f"data.{kind}{suffix}").texts == TEXTS
    assert read_split(tmp_path, data, f"unnamed.{kind}").texts == TEXTS


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_damaged_compressed_files_are_named(tmp_path, suffix):
    data = COMPRESSORS[suffix](CSV.encode())
    for damaged in (data[:-3], data + b"more", data[: len(data) // 2]):
        assert f"data.csv{suffix}: compressed by " in refusal(tmp_path, damaged, f"data.csv{suffix}")
    message = refusal(tmp_path, CSV, f"data.csv{suffix}")
    assert f"the name ends in {suffix!r}, but the content is not compressed" in message


def test_a_file_that_expands_beyond_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "_FREE_BYTES", 10_000)
    monkeypatch.setattr(compressed, "_CHUNK_BYTES", 4096)
    assert "expand to more than" in refusal(tmp_path, gzip.compress(b"t,l\n" + b"a" * 1_000_000), "data.csv.gz")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK\x03\x04" + b"\0" * 40, "a zip archive"),
        (lzma.compress(CSV.encode()), "compressed by xz"),
        (b"PAR1" + b"\0" * 20, "a parquet file: format: parquet reads it"),
    ],
)
def test_files_that_hold_no_text_are_told_what_they_are(tmp_path, data, says):
    assert f"data.csv: is {says}" in refusal(tmp_path, data)


def test_a_compressed_parquet_file_is_told_to_be_one(tmp_path):
    message = refusal(tmp_path, gzip.compress(b"PAR1" * 9), "data.parquet")
    assert "compressed by gzip; decompress it" in message


# --- delimiters and columns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [";", "|", "\t", "§"])
def test_the_delimiter_can_be_given(tmp_path, delimiter):
    content = CSV.replace(",", delimiter).replace("first text", f'"first{delimiter} text"')
    assert read_split(tmp_path, content, delimiter=delimiter).texts[0] == f"first{delimiter} text"


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (CSV.replace(",", ";"), {}, "separated by ';': format: csv with delimiter: \";\" reads that"),
        ("t;l\na, b and c;x\n", {}, "separated by ';'"),  # commas in the text must not come first
        (CSV.replace(",", "\t"), {}, "separated by tabs: format: tsv reads that"),
        (CSV, {"format": "tsv"}, "separated by ',': format: csv reads that"),
        (CSV, {"delimiter": ";"}, "separated by ',': format: csv reads that"),
        ("a|b|c\n1|2|3\n", {}, "separated by '|'"),
    ],
)
def test_another_delimiter_is_named(tmp_path, content, options, says):
    message = refusal(tmp_path, content, **options)
    assert "no column 't'" in message
    assert says in message


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n", 5])
def test_a_delimiter_is_one_character(tmp_path, delimiter):
    assert "task.data.train.delimiter" in refusal(tmp_path, CSV, delimiter=delimiter)


def test_columns_are_quoted_and_a_near_one_is_suggested(tmp_path):
    message = refusal(tmp_path, "id, t, l\n1,a,x\n")
    assert "no column 't'; columns: 'id', ' t', ' l'; did you mean ' t'?" in message


def test_a_long_list_of_columns_is_shortened(tmp_path):
    message = refusal(tmp_path, ",".join(f"column {n}" for n in range(500)) + "\n")
    assert "'column 11' and 488 more" in message
    assert len(message) < 600


# --- JSON lines ----------------------------------------------------------------------------------------------------------

GOOD_LINE = '{"t": "a", "l": "x"}'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"{GOOD_LINE}\n\n{{'t': 1}}\n", ["line 3: not valid JSON at column 2: "]),
        (f"{GOOD_LINE}\n" + '{"t": "b" "l": 1}', ["line 2: not valid JSON at column 11: Expecting ',' delimiter"]),
        (f"{GOOD_LINE},\n{GOOD_LINE}\n", ["line 1", "a comma follows the object"]),
        (f"[\n{GOOD_LINE},\n{GOOD_LINE}\n]\n", ["line 1", "a JSON array"]),
        (f"[{GOOD_LINE},{GOOD_LINE}]", ["line 1", "a JSON list", "one object per line"]),
        ('{\n"t": "a",\n"l": "x"}\n', ["line 1", "spans several lines"]),
        (
            f"{GOOD_LINE}\n" + '{"t": "b", "l": 1' + "0" * 5000 + "}\n",
            ["line 2: not valid JSON: a whole number has too many"],
        ),
        (f'{GOOD_LINE}\n{{"t": "a", "t": "b", "l": "x"}}\n', ["line 2: the key 't' appears twice"]),
    ],
)
def test_lines_that_are_no_objects(tmp_path, content, says):
    message = refusal(tmp_path, content, "data.jsonl")
    assert all(text in message for text in says), message
    assert message.count("line ") == 1, "a second line number is not the file's"


def test_a_key_twice_inside_a_value_is_no_column(tmp_path):
    content = '{"t": "first text", "l": "x", "meta": {"k": 1, "k": 2}}\n{"t": "second text", "l": "y", "meta": 0}\n'
    assert read_split(tmp_path, content, "data.jsonl").texts == TEXTS


# --- encodings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            CSV.encode("utf-16"),
            "line 1: byte 0xff is not utf-8; the file begins like UTF-16: encoding: utf-16 reads that",
        ),
        (
            CSV.encode("utf-16-le"),
            "line 1: a NUL character, which no text has; the file looks like UTF-16: encoding: utf-16-le",
        ),
        (
            CSV.encode("utf-16-be"),
            "line 1: a NUL character, which no text has; the file looks like UTF-16: encoding: utf-16-be",
        ),
        (CSV.replace("second", "sec\0nd").encode(), "line 3: a NUL character, which no text has"),
        (CSV.replace("second", "zweité").encode("latin-1"), "line 3: byte 0xe9 is not utf-8; encoding: names another"),
    ],
)
def test_other_encodings_are_told(tmp_path, data, says):
    assert says in refusal(tmp_path, data)


def test_utf_16_is_read_when_named(tmp_path):
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        assert read_split(tmp_path, CSV.encode(encoding), encoding=encoding).texts == TEXTS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "idna", "punycode", "utf-7", "ascii", "big5"])
def test_bytes_that_are_not_in_the_named_encoding(tmp_path, encoding):
    assert "data.csv: " in refusal(tmp_path, b"t,l\n\xff\xfe\xdd\xd8a,x\xd8\n", encoding=encoding)


# --- several files ---------------------------------------------------------------------------------------------------------


def parts(folder, *names):
    for number, name in enumerate(names):
        (folder / name).write_text(f"i,t,l\n{number},text of {name},{'xy'[number % 2]}\n")


@pytest.mark.parametrize("path", [["a.csv", "b.csv"], "*.csv", "[ab].csv", ["a*", "b.csv"]])
def test_several_files_are_one_source(tmp_path, path):
    parts(tmp_path, "b.csv", "a.csv", ".hidden.csv")
    records = read_split(tmp_path, path=path)
    assert records.texts == ("text of a.csv", "text of b.csv")
    assert records.ids.tolist() == [0, 1]
    assert read_split(tmp_path, path=path, id="i").ids.tolist() == [1, 0]


def test_the_order_of_a_list_is_kept(tmp_path):
    parts(tmp_path, "a.csv", "b.csv")
    assert read_split(tmp_path, path=["b.csv", "a.csv"]).texts == ("text of b.csv", "text of a.csv")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    parts(tmp_path, "a[1].csv", "a1.csv")
    assert read_split(tmp_path, path="a[1].csv").texts == ("text of a[1].csv",)


def test_errors_name_the_file_among_several(tmp_path):
    parts(tmp_path, "a.csv", "b.csv")
    (tmp_path / "c.csv").write_text("i,t,l\n7,good,x\n1,bad,x\n")
    message = refusal(tmp_path, path="*.csv", id="i")
    assert f"{tmp_path / 'c.csv'}: line 3: i: id 1 is also that of {tmp_path / 'b.csv'}: line 2" in message
    (tmp_path / "c.csv").write_text("i,t,l\n7,good,x\n8,bad,\n")
    assert f"{tmp_path / 'c.csv'}: line 3: l: no label" in refusal(tmp_path, path="*.csv", id="i")
    (tmp_path / "c.csv").write_text("i,text,l\n7,good,x\n")
    assert f"{tmp_path / 'c.csv'}: no column 't'" in refusal(tmp_path, path="*.csv")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("part-*.csv", "'part-*.csv' matches no file"),
        (["a.csv", "gone.csv"], "'gone.csv' does not exist"),
        (["a.csv", "a.csv"], "is listed twice"),
        (["a.csv", "*.csv"], "is listed twice"),
        ([], "at least one path"),
        ("[", "does not exist|matches no file"),
        ("**a/*.csv", "not a usable path or pattern|matches no file"),
    ],
)
def test_paths_that_name_nothing(tmp_path, path, says):
    parts(tmp_path, "a.csv")
    message = refusal(tmp_path, path=path)
    assert any(text in message for text in says.split("|")), message
    assert "task.data.train.path" in message


def test_several_folders(tmp_path):
    for folder, text in (("one", "first text"), ("two", "second text")):
        (tmp_path / folder / "x").mkdir(parents=True)
        (tmp_path / folder / "x" / "1.txt").write_text(text)
    assert read_split(tmp_path, path=["one", "two"], format="folder", text=None, label=None).texts == TEXTS


# --- tokens and empty texts --------------------------------------------------------------------------------------------------


def test_lists_of_tokens_are_joined_with_a_space(tmp_path):
    tokens = [text.split() for text in TEXTS]
    pq.write_table(pa.table({"t": tokens, "l": [0, 1]}), tmp_path / "data.parquet")
    assert read_split(tmp_path, name="data.parquet").texts == TEXTS
    content = "".join(json.dumps({"t": row, "l": n}) + "\n" for n, row in enumerate(tokens))
    assert read_split(tmp_path, content, "data.jsonl").texts == TEXTS


@pytest.mark.parametrize("tokens", [["a", None], ["a", 1], [["a"]]])
def test_tokens_that_are_no_texts(tmp_path, tokens):
    message = refusal(tmp_path, json.dumps({"t": tokens, "l": 0}), "data.jsonl")
    assert "line 1: t: token " in message


@pytest.mark.parametrize("content", ["t,l\n,x\n  ,y\n", "t,l\n\u00a0,x\n\u3000,y\n"])
def test_data_without_any_text_is_refused(tmp_path, content):
    assert "none of 2 records has any text in 't' (task.data.train)" in refusal(tmp_path, content)


def test_some_empty_texts_are_read(tmp_path):
    assert read_split(tmp_path, "t,l\n,x\na,y\n").texts == ("", "a")
