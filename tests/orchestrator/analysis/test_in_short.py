"""The sentences in short say of every group which methods do more than each control."""

import pytest

from orchestrator.analysis.in_short import in_short

NAN = float("nan")


def contrasts(group, **p_and_diff):
    """Rows against `random`, and with a second pair of numbers also against `by_label`: method=(p, diff, p, diff)."""
    rows = []
    for method, numbers in p_and_diff.items():
        for baseline, p, diff in zip(("random", "by_label"), numbers[::2], numbers[1::2], strict=False):
            rows.append({"method": method, "baseline": baseline, "group": group, "p_holm": p, "diff": diff})
    return rows


def summary(group, **values):
    return [{"method": method, "group": group, "auc_del": value} for method, value in values.items()]


def short(values, rows, by_label=None, measured="the measurement"):
    return in_short(values, rows, "random", by_label, measured)


def test_methods_that_do_more_than_chance_are_named_with_the_best_first():
    values = summary("proponents", a=-0.1, b=-0.3, c=-0.02, random=0.01)
    rows = contrasts("proponents", a=(0.01, -0.11), b=(0.001, -0.31), c=(0.4, -0.03))
    assert short(values, rows, measured="the probability of the gold label") == (
        "Removing the proponents of b and a lowers the probability of the gold label more than removing random examples "
        "does (b -0.3, a -0.1; random +0.01).",
    )


def test_many_methods_are_counted_and_the_best_are_named():
    names = "abcde"
    values = summary("opponents", **{name: 0.1 * i for i, name in enumerate(names, 1)}, random=0.0)
    rows = contrasts("opponents", **dict.fromkeys(names, (0.01, 0.1)))
    (sentence,) = short(values, rows)
    assert sentence == (
        "Removing the opponents of all 5 methods raises the measurement more than removing random examples does "
        "(best: e +0.5, d +0.4, c +0.3; random 0)."
    )
    rows[0]["p_holm"] = 0.05
    assert "of 4 of 5 methods raises" in short(values, rows)[0]


@pytest.mark.parametrize(
    ("beyond", "end"),
    [
        (
            (),
            "None of them does more than random examples of the label that is asked about (by_label -0.2), so it may be",
        ),
        (("a",), "Of these, a also does more than random examples of the label that is asked about (by_label -0.2)."),
        (("a", "b"), "They also do more than random examples of the label that is asked about (by_label -0.2)."),
    ],
)
def test_the_control_by_label_says_whether_more_than_the_label_was_found(beyond, end):
    values = summary("proponents", a=-0.3, b=-0.3, random=0.0, by_label=-0.2)
    numbers = {name: (0.01, -0.3, 0.01 if name in beyond else 0.5, -0.1) for name in "ab"}
    (found,) = short(values, contrasts("proponents", **numbers), "by_label")
    assert end in found


def test_a_method_that_goes_the_other_way_is_named():
    values = summary("opponents", a=-0.3, b=0.0, random=0.0)
    rows = contrasts("opponents", a=(0.01, -0.3), b=(0.9, 0.0))
    assert short(values, rows) == (
        "No method's opponents do more than random examples, as far as this campaign can tell. Those of a do the opposite.",
    )


def test_in_the_group_least_the_smaller_change_is_better():
    values = summary("least", a=-0.01, b=0.0, random=-0.2)
    (found,) = short(values, contrasts("least", a=(0.01, -0.19), b=(0.01, -0.2)), "by_label")
    assert found == (
        "Removing the least influential examples of b and a changes the measurement less than removing random examples "
        "does (b 0, a -0.01; random -0.2)."
    )


def test_in_the_group_least_a_method_that_is_not_told_apart_did_not_change_less():
    values = summary("least", a=-0.1, random=-0.2)
    assert short(values, contrasts("least", a=(0.4, -0.1))) == (
        "No method's least influential examples change the measurement less than random examples do, as far as this "
        "campaign can tell.",
    )


def test_every_group_has_its_sentence_and_words_are_replaced():
    values = [*summary("proponents", a=0.0, random=0.0), *summary("proponent_words", a=-0.2, random=0.0)]
    rows = [*contrasts("proponents", a=(1.0, 0.0)), *contrasts("proponent_words", a=(0.01, -0.2))]
    first, second = short(values, rows)
    assert first.startswith("No method's proponents do more")
    assert second.startswith(
        "Replacing the words in proponents of a lowers the measurement more than replacing random words"
    )


def test_what_could_not_be_compared_is_no_finding():
    values = summary("proponents", a=NAN, random=NAN)
    assert short(values, contrasts("proponents", a=(NAN, NAN))) == (
        "No method's proponents could be compared with random examples.",
    )


def test_without_a_control_nothing_is_claimed():
    values, rows = (
        summary("proponents", a=-0.3),
        [{"method": "a", "baseline": "b", "group": "proponents", "p_holm": 0.01, "diff": -0.3}],
    )
    assert in_short(values, rows, None, None) == (
        "No control is among the methods, so it is unknown whether their removals do more than random ones.",
    )
    assert in_short([], [], None, None) == ()
