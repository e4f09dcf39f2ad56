import pytest

from tasks.models.freezing import frozen_names

NAMES = [
    "bert.embeddings.word.weight",
    "bert.layer.0.dense.weight",
    "bert.layer.0.dense.bias",
    "bert.layer.10.dense.weight",
    "head.weight",
]


@pytest.mark.parametrize(
    ("pattern", "frozen"),
    [
        ("bert.embeddings", NAMES[:1]),
        ("bert.layer.0", NAMES[1:3]),
        ("bert.layer.?.*", NAMES[1:3]),
        ("bert", NAMES[:4]),
        ("*.bias", NAMES[2:3]),
        ("head.weight", NAMES[4:]),
    ],
)
def test_a_pattern_names_parameters_or_a_module_above_them(pattern, frozen):
    assert frozen_names(NAMES, [pattern]) == set(frozen)


def test_nothing_is_frozen_without_patterns():
    assert frozen_names(NAMES, []) == set()


def test_a_pattern_without_a_match_and_a_network_without_training_are_refused():
    with pytest.raises(ValueError, match=r"'bert.layer.1' matches no parameter; close to it: bert.layer.10, "):
        frozen_names(NAMES, ["bert.layer.1"])
    with pytest.raises(ValueError, match="at least one must be trained"):
        frozen_names(NAMES, ["bert", "head"])
