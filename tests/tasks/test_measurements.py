"""Contract of every measurement: its numpy value is a stated function of its torch loss."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.components import parse_named
from tasks.errors import InputError
from tasks.registry import MEASUREMENTS

VALUE_OF_LOSS = {
    "gold_probability": lambda loss: np.exp(-loss),
    "predicted_probability": lambda loss: np.exp(-loss),
    "reference_probability": lambda loss: np.exp(-loss),
    "loss": lambda loss: -loss,
    "margin": lambda loss: -loss - np.log(-np.expm1(-loss)),  # log(p / (1 - p))
    "output": lambda loss: -loss,
}
LABEL = dict.fromkeys(VALUE_OF_LOSS, "gold") | {
    "predicted_probability": "predicted",
    "reference_probability": "reference",
}


def measurement(name):
    return parse_named(MEASUREMENTS, {"name": name}, "c.yaml", "measurement")


def test_every_registered_measurement_is_under_contract():
    assert set(MEASUREMENTS.entries()) == {*VALUE_OF_LOSS, "correct"}, "correct has no loss; its tests are below"


@pytest.mark.parametrize("name", VALUE_OF_LOSS)
@given(data=st.data())
def test_value_is_the_stated_function_of_the_loss(name, data):
    outputs = data.draw(arrays(np.float64, (4, 3), elements=st.floats(-12, 12)))
    labels = data.draw(arrays(np.int64, 4, elements=st.integers(0, 2)))
    found = measurement(name)
    loss = found.loss(torch.from_numpy(outputs), torch.from_numpy(labels)).numpy()
    value = found.value(outputs, labels)
    assert value.dtype == np.float64
    assert value.shape == (4,)
    np.testing.assert_allclose(value, VALUE_OF_LOSS[name](loss), rtol=1e-6, atol=1e-9)
    assert found.label == LABEL[name]


@pytest.mark.parametrize("name", VALUE_OF_LOSS)
def test_more_evidence_for_the_label_is_more(name):
    low, high = measurement(name).value(np.float32([[0, 0.5, 0.1], [1, 0.5, 0.1]]), np.array([0, 0]))
    assert high > low


@pytest.mark.parametrize("name", VALUE_OF_LOSS)
def test_extreme_logits_are_exact_and_nan_stays_nan(name):
    outputs = np.float32([[1000, 0, 0], [-1000, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0]])
    value = measurement(name).value(outputs, np.zeros(4, np.int64))
    known = {"loss": [0, -1000 - np.log(2)], "margin": [1000 - np.log(2), -1000 - np.log(2)], "output": [1000, -1000]}
    expected = known.get(name, [1, 0])
    np.testing.assert_allclose(value[:2], expected, atol=1e-12)
    assert np.isnan(value[2])


def test_known_numbers():
    outputs, labels = np.log([[0.2, 0.3, 0.5]]), np.array([2])
    assert measurement("gold_probability").value(outputs, labels) == pytest.approx(0.5)
    assert measurement("loss").value(outputs, labels) == pytest.approx(np.log(0.5))
    assert measurement("margin").value(outputs, labels) == pytest.approx(0)


def test_correct_is_whether_the_gold_label_has_the_largest_logit():
    outputs = np.float32([[0, 2, 1], [0, 2, 1], [1, 1, 0], [1, 1, 0], [np.nan, 0, 0], [-np.inf, 3, 0]])
    value = measurement("correct").value(outputs, np.array([1, 2, 0, 1, 0, 1]))
    np.testing.assert_array_equal(value, [1, 0, 1, 0, np.nan, 1])
    assert value.dtype == np.float64
    assert (measurement("correct").label, measurement("correct").of_classes) == ("gold", True)


def test_correct_is_refused_as_a_loss_in_one_line():
    with pytest.raises(
        InputError, match=r"^measurement: 'correct' is 0 or 1 and has no gradient; allowed as a loss: \w+"
    ):
        measurement("correct").loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
