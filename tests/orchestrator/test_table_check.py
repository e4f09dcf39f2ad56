"""Result tables written before, against those derived now."""

import pytest

from orchestrator.inspection.table_check import compared

NOW = 'method,p,p_holm,family\n"a, b",0.01,0.02,control\nc,0.5,0.5,control\n'
DIFFERS = ("differs from the table derived from the ledger", "")


def test_equal_bytes_are_neither_a_problem_nor_a_note():
    assert compared(NOW.encode(), NOW) == ("", "")


def test_a_table_without_the_new_columns_that_agrees_is_a_note():
    before = b'method,p,p_holm\n"a, b",0.01,0.02\nc,0.5,0.5\n'
    assert compared(before, NOW) == (
        "",
        "an older version wrote it without the column family; its other columns agree with the ledger",
    )


def test_what_differs_in_such_a_table_is_named_with_what_to_do():
    problem, note = compared(b'method,p,p_holm\n"a, b",0.01,0.03\nc,0.5,0.5\n', NOW)
    assert note == ""
    assert problem.startswith(
        "an older version wrote it without the column family, and p_holm differs from what this version"
    )
    assert problem.endswith("refit report writes it again")
    problem, _ = compared(b'method,p\n"a, b",0.02\nd,0.5\n', NOW)
    assert "without the columns p_holm, family, and method, p differ from" in problem


@pytest.mark.parametrize(
    "stored",
    [
        NOW.replace("0.02", "0.03"),  # the same columns, another number
        NOW + "d,1,1,control\n",
        'method,p,p_holm\n"a, b",0.01,0.02\n',  # a row is lost
        'p,method,p_holm\n0.01,"a, b",0.02\n0.5,c,0.5\n',  # another order
        'method,p,q\n"a, b",0.01,0.02\nc,0.5,0.5\n',  # a column that there never was
        "method\n",
        "",
        "\x00",
        NOW.replace("\n", "\r\n"),
    ],
)
def test_anything_else_differs(stored):
    assert compared(stored.encode(), NOW) == DIFFERS


def test_bytes_that_are_no_text_differ():
    assert compared(b"\xff\xfe\x00", NOW) == DIFFERS


def test_a_short_row_is_a_difference():
    problem, _ = compared(b'method,p,p_holm\n"a, b",0.01\nc,0.5,0.5\n', NOW)
    assert "p_holm differs" in problem


@pytest.mark.parametrize("stored", [b"a\rb,c\n\x00", b"x" * 200_000, b'"' + b"y" * 200_000])
def test_what_cannot_be_read_as_a_table_is_a_problem_and_no_error(stored):
    problem, note = compared(stored, NOW)
    assert problem
    assert not note
