import math

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.report.highlight import LEVELS, MarkedText, passage, pieces

VALUES = st.floats(allow_nan=True, allow_infinity=True, width=32)
SPANS = st.lists(st.tuples(st.integers(-5, 60), st.integers(-5, 60), VALUES), max_size=12)
TEXTS = st.text(alphabet="ab <&\n{é", max_size=50)


@given(TEXTS, SPANS, st.integers(1, 8))
def test_no_span_and_no_cut_changes_the_text(text, spans, words):
    found = passage(text, spans, words)
    assert "".join(piece.text for piece in (*found.shown, *found.hidden)) == text
    assert all(piece.text for piece in (*found.shown, *found.hidden))


@given(TEXTS, SPANS)
def test_marks_are_spans_and_carry_their_value(text, spans):
    marked = [piece for piece in pieces(text, spans) if piece.level]
    allowed = {(text[start:end], value) for start, end, value in spans if 0 <= start < end and math.isfinite(value)}
    assert {(piece.text, piece.value) for piece in marked} <= allowed
    assert all(1 <= piece.level <= LEVELS for piece in marked)


def test_intensity_grows_with_magnitude_and_colour_follows_sign():
    found = pieces("aa bb cc dd", [(0, 2, 1.0), (3, 5, -0.5), (6, 8, 0.01), (9, 11, -1.0)])
    assert found == [
        MarkedText("aa", 1.0, 5),
        MarkedText(" "),
        MarkedText("bb", -0.5, 3),
        MarkedText(" cc "),
        MarkedText("dd", -1.0, 5),
    ]
    assert [piece.mark for piece in found if piece.level] == ["h5", "x3", "x5"]


def test_a_span_that_overlaps_an_earlier_one_is_left_out():
    assert pieces("abcd", [(0, 3, 1.0), (2, 4, 1.0)]) == [MarkedText("abc", 1.0, 5), MarkedText("d")]


def test_long_texts_are_cut_between_words_and_say_how_much_is_hidden():
    found = passage(" ".join(f"w{i}" for i in range(600)), words_shown=70)
    assert found.shown[-1].text.endswith("w69")
    assert found.n_hidden_words == 530


def test_a_text_little_longer_than_the_limit_is_shown_whole():
    found = passage(" ".join(["word"] * 90), words_shown=70)
    assert (found.hidden, found.n_hidden_words) == ((), 0)
