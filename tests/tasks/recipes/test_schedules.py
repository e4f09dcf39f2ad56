import pytest

from tasks.recipes.schedules import rate_factor


def factors(schedule, warmup_frac, n_steps):
    return [rate_factor(schedule, warmup_frac, n_steps, step) for step in range(1, n_steps + 1)]


@pytest.mark.parametrize(
    ("schedule", "warmup_frac", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1, 1]),
        ("constant", 0.4, [1 / 2, 1, 1, 1, 1]),
        ("linear", 0.0, [1, 4 / 5, 3 / 5, 2 / 5, 1 / 5]),
        ("linear", 0.4, [1 / 2, 1, 1, 2 / 3, 1 / 3]),
        ("linear", 0.01, [1, 1, 3 / 4, 2 / 4, 1 / 4]),
        ("linear", 1.0, [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1]),
        ("one_minus", 0.0, [1, 4 / 5, 3 / 5, 2 / 5, 1 / 5]),
        ("one_minus", 0.4, [0, 1 / 2, 3 / 5, 2 / 5, 1 / 5]),
        ("one_minus", 1.0, [0, 1 / 5, 2 / 5, 3 / 5, 4 / 5]),
    ],
)
def test_factors_of_five_updates(schedule, warmup_frac, expected):
    assert factors(schedule, warmup_frac, 5) == pytest.approx(expected)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup_frac", [0.0, 0.1, 0.99, 1.0])
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_no_update_is_wasted_and_none_exceeds_the_peak(schedule, warmup_frac, n_steps):
    assert min(factors(schedule, warmup_frac, n_steps)) > 0
    assert max(factors(schedule, warmup_frac, n_steps)) == 1


def test_one_minus_jumps_from_the_peak_to_one_minus_the_warm_up():
    rates = factors("one_minus", 0.1, 240)
    assert rates[:3] == pytest.approx([0, 1 / 24, 2 / 24])
    assert rates[23:25] == pytest.approx([23 / 24, 0.9])
    assert rates[-1] == pytest.approx(1 / 240)
    assert min(rates) == 0


@pytest.mark.parametrize("step", [0, -1, 6])
def test_updates_that_are_never_made_have_no_rate(step):
    with pytest.raises(ValueError, match=r"outside 1\.\.5"):
        rate_factor("linear", 0.1, 5, step)
