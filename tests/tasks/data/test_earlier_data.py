"""Data that could be read before is read to the same bytes: its digests, and with them all spec ids, stay."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.data.splits import class_order, to_split
from tests.tasks.data.split_files import read_split


def write_earlier_data(folder):
    """Files of every format that earlier versions read."""
    csv_text = '\ufeffid,text,label\r\n 7,"a, ""b""\nc",10\r\n-3,,9\r\n0011,x y,10\r\n'
    (folder / "a.csv").write_bytes(csv_text.encode())
    (folder / "a.tsv").write_text("text\tlabel\nzwölf\tyes\nplain\tNo\n")
    (folder / "a.jsonl").write_text(
        '{"t": "a", "u": "b", "l": true, "i": 5, "m": {"k": 1, "k": 2}}\n\n{"t": "c", "u": "", "l": false, "i": 6}\n'
    )
    pq.write_table(pa.table({"t": ["a", "b", "c"], "l": [1, 0, 1]}), folder / "a.parquet")
    for name, text in {"pos/10.txt": "ten", "pos/2.txt": "two", "neg/1.txt": "one"}.items():
        (folder / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "f" / name).write_text(text)


@pytest.mark.parametrize(
    ("name", "options", "digest"),
    [
        ("a.csv", {"text": "text", "label": "label", "id": "id"}, "517e975298f8e33e2a5a9b7f900b6479"),
        ("a.tsv", {"text": "text", "label": "label"}, "d71fa61e9c1f54cb99d6cf7e35c57a87"),
        ("a.jsonl", {"text": ["t", "u"], "id": "i"}, "841a67e2bcfed6722d790410e79673fb"),
        ("a.parquet", {}, "780188108d349fa45e3a092f98adf42f"),
        ("f", {"format": "folder", "text": None, "label": None}, "6277c720a799b5b33fd00bde32bcca0c"),
    ],
)
def test_digests_of_data_that_could_be_read_before_stay(tmp_path, name, options, digest):
    write_earlier_data(tmp_path)
    records = read_split(tmp_path, name=name, **options)
    split = to_split(records, {label: label for label in class_order(records.labels)}, "the classes")
    assert split.content_digest() == digest
