"""CoNLL sentences: column files and parquet give the same lists of tokens; what is malformed is named."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.data.conll import read_sentences, read_token_rows
from tasks.errors import InputError

SENTENCES = [("EU", "rejects", "call", "."), ("Peter",), ("-", "#", '"', "Zürich", "a\x0cb", "c\u2028d", "e\xa0f")]
COLUMNS = """\
-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
call NN B-NP O
. . O O

Peter NNP B-NP B-PER

-DOCSTART- -X- -X- O

- : O O
# SYM O O
" " O O
Zürich NNP O B-LOC
a\x0cb NN O O
c\u2028d NN O O
e\xa0f NN O O
"""


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def as_parquet(path, rows, column="tokens", kind=None):
    pq.write_table(pa.table({column: pa.array(rows, kind) if kind else rows}), path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace(" ", "  "),
        lambda text: text.rstrip("\n"),
        lambda text: "\ufeff" + text,
        lambda text: "\n\n" + text.replace("\n\n", "\n \t\n\n") + "\n\n",
        lambda text: text.replace("-DOCSTART- -X- -X- O\n\n", "-DOCSTART- -X- -X- O\n"),
        lambda text: "\n".join(line.split(" ")[0] for line in text.split("\n")),
    ],
    ids=["plain", "crlf", "tabs", "two blanks", "no last newline", "bom", "more empty lines", "docstart", "one column"],
)
def test_column_files_give_the_first_column_between_empty_lines(tmp_path, change):
    assert read_sentences(written(tmp_path / "train.txt", change(COLUMNS))) == SENTENCES


def test_parquet_gives_the_same_sentences(tmp_path):
    rows = [["-DOCSTART-"], *map(list, SENTENCES), []]
    assert read_sentences(as_parquet(tmp_path / "train.parquet", rows)) == SENTENCES


def test_a_document_start_ends_a_sentence(tmp_path):
    assert read_sentences(written(tmp_path / "a", "a\nb\n-DOCSTART-\nc\n")) == [("a", "b"), ("c",)]


def test_token_rows_keep_their_number_and_other_columns(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"tokens": [["a"], [], ["b", "c"]], "label": [1, 0, 1], "more": [0, 0, 0]}), path)
    assert read_token_rows(path, ["label"]) == ([("a",), (), ("b", "c")], {"label": [1, 0, 1]})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: written(path / "x.txt", ""), "x.txt: holds no sentences; one token a line"),
        (lambda path: written(path / "x.txt", "-DOCSTART- O\n\n \n"), "x.txt: holds no sentences"),
        (lambda path: written(path / "x.txt", "a O\nZürich O\n", "latin-1"), "x.txt: line 2: byte 0xfc is not UTF-8"),
        (lambda path: path, "is a directory; a CoNLL column file or a parquet file"),
        (lambda path: path / "gone.txt", "gone.txt: cannot be read: No such file"),
        (lambda path: written(path / "x.parquet", "a O\n"), "x.parquet: not a readable parquet file"),
        (lambda path: as_parquet(path / "x.parquet", [["a"]], "words"), "no column 'tokens'; columns: 'words'"),
        (lambda path: as_parquet(path / "x.parquet", [], kind=pa.list_(pa.string())), "x.parquet: holds no sentences"),
        (lambda path: as_parquet(path / "x.parquet", [["a"], None]), "x.parquet: row 1: tokens None is not a list of"),
        (lambda path: as_parquet(path / "x.parquet", ["a b"]), "x.parquet: row 0: tokens 'a b' is not a list of"),
        (lambda path: as_parquet(path / "x.parquet", [[1, 2]]), "x.parquet: row 0: tokens [1, 2] is not a list of"),
        (
            lambda path: as_parquet(path / "x.parquet", [["a", ""]]),
            "row 0: tokens ['a', ''] is not a list of non-empty texts",
        ),
        (lambda path: as_parquet(path / "x.parquet", [["a", None]]), "row 0: tokens ['a', None] is not"),
    ],
)
def test_bad_files_are_named(tmp_path, make, says):
    with pytest.raises(InputError) as caught:
        read_sentences(make(tmp_path))
    assert says in str(caught.value)
