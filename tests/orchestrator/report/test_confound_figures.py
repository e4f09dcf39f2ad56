import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from grid_views import ARMS, LEVELS, made_grid

from orchestrator.campaigns.recipe_grid.accuracy_figures import accuracy_svg, levels_svg
from orchestrator.campaigns.recipe_grid.confound_figures import (
    PANELS,
    along_training,
    cid_svg,
    influence_svg,
    shown_distributions,
)
from orchestrator.campaigns.recipe_grid.grid_rows import level_places, level_text, ordered, series_name
from orchestrator.report.canvas import looks

SVG = "{http://www.w3.org/2000/svg}"
FAILING = [("influence", 0.05, (0, 3)), ("adversarial", None, (4,))]


def texts(svg):
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter(f"{SVG}text")]


def boxes(svg):
    """Rough boxes of all upright texts: (left, right, baseline, text), at 0.6 of the font size a character."""
    found = []
    for node in ET.fromstring(svg).iter(f"{SVG}text"):
        style, text = node.get("style", ""), "".join(node.itertext())
        size, anchor = re.search(r"([\d.]+)px", style), re.search(r"text-anchor: (\w+)", style)
        place = [float(one) for one in re.findall(r"-?[\d.]+", node.get("transform", ""))]
        x, y = (float(node.get(name, place[i] if place else 0)) for i, name in enumerate("xy"))
        width = 0.6 * float(size[1] if size else 9) * len(text)
        left = {"middle": x - width / 2, "end": x - width}.get(anchor[1] if anchor else "", x)
        if "rotate(-90" not in node.get("transform", ""):
            found.append((left, left + width, y, text))
    return found


def overlapping(svg):
    found = boxes(svg)
    return [
        (a[3], b[3])
        for i, a in enumerate(found)
        for b in found[i + 1 :]
        if abs(a[2] - b[2]) < 6 and a[0] < b[1] and b[0] < a[1]
    ]


@pytest.fixture(scope="module")
def grid():
    return made_grid(levels=LEVELS, failing=FAILING)


def drawn(tables, view):
    found = {
        "accuracy": accuracy_svg(tables["accuracy"], tables["trials"], view.arms, view.baseline),
        "cid": cid_svg(tables["cid"], view.arms, view.baseline, "access rate"),
        "influence": influence_svg(shown_distributions(view.distributions, view.arms), tables["cid_probes"]),
    }
    if view.ablate:
        found["levels"] = levels_svg(tables["accuracy"], view.arms, view.baseline, "access rate")
    return found


@pytest.fixture(scope="module")
def figures(grid):
    return drawn(*grid)


def test_figures_are_the_same_bytes_every_time_and_hold_no_nan(grid, figures):
    tables, view = grid
    assert levels_svg(tables["accuracy"], view.arms, view.baseline, "access rate") == figures["levels"]
    assert cid_svg(tables["cid"], view.arms, view.baseline, "access rate") == figures["cid"]
    assert not any(re.search(r"\bnan\b", svg, re.IGNORECASE) for svg in figures.values())


def test_every_arm_and_level_is_named_in_text(figures):
    rows = {f"influence · {level:g}" for level in LEVELS} | {"finetuning", "adversarial", "no_spurious"}
    assert rows <= set(texts(figures["accuracy"]))
    assert rows <= set(texts(figures["influence"]))
    assert {*ARMS, "0.05", "0.1", "0.2", "0.5", "1", "access rate"} <= set(texts(figures["levels"]))
    assert {*ARMS, "access rate", "0.05", "training step"} <= set(texts(figures["cid"]))


@pytest.mark.parametrize("n_arms", [2, 12])
def test_labels_of_many_arms_and_levels_do_not_overlap(n_arms):
    names = tuple(f"arm_{i}-with_a_name_that_goes_on+and_on" for i in range(n_arms))
    levels = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0)
    made = made_grid(
        names, levels=levels, with_levels=names[1:3], failing=[(names[1], 0.01, (0,))], steps=(25,), n_probes=2
    )
    for svg in drawn(*made).values():
        assert overlapping(svg) == []


def test_failed_trials_are_hollow_and_counted_under_their_level(grid, figures):
    found = texts(figures["levels"])
    assert found.count("2/5") == 1
    assert found.count("0/5") == 9
    assert "failed trial, left out" in texts(figures["accuracy"])
    quiet, view = made_grid(levels=LEVELS)
    svg = levels_svg(quiet["accuracy"], view.arms, view.baseline, "access rate")
    assert not any("failed" in one or "/5" in one for one in texts(svg))
    assert "failed trial, left out" not in texts(
        accuracy_svg(quiet["accuracy"], quiet["trials"], view.arms, view.baseline)
    )


def test_every_trial_is_drawn_a_failed_one_without_filling(grid, figures):
    tables, view = grid
    colour = looks(view.arms)["influence"].colour
    uses = re.findall(r"<use [^>]*style=\"([^\"]*)\"", figures["accuracy"])
    hollow = [style for style in uses if "fill-opacity: 0;" in style and f"stroke: {colour}" in style]
    filled = [style for style in uses if f"fill: {colour}" in style and "fill-opacity: 0.5" in style]
    ok = tables["trials"].query("arm == 'influence' and status == 'ok'")
    assert (len(hollow), len(filled)) == (2, len(ok)) == (2, 23)


def test_a_failed_trial_far_away_does_not_stretch_the_axis():
    near, far = made_grid(paper=False), made_grid(failing=[("influence", None, (0,))], paper=False)
    for tables, view in (near, far):
        ticks = [
            float(one)
            for one in texts(accuracy_svg(tables["accuracy"], tables["trials"], view.arms, view.baseline))
            if re.fullmatch(r"0\.\d+", one)
        ]
        assert min(ticks) > 0.6


@pytest.mark.parametrize("missing", [np.nan, None])
def test_one_arm_whose_trials_all_failed_is_drawn_without_a_mean(missing):
    tables, view = made_grid(("only",), failing=[("only", None, (0, 1, 2, 3, 4))])
    accuracy = tables["accuracy"].assign(test=missing, ci_low=missing, ci_high=missing)
    svg = accuracy_svg(accuracy, tables["trials"], view.arms, view.baseline)
    assert "only" in texts(svg)
    assert "mean of only" not in texts(svg)
    assert not re.search(r"\bnan\b", svg, re.IGNORECASE)


def test_a_trial_without_any_accuracy_is_left_out_of_the_drawing():
    tables, view = made_grid(ARMS[:2])
    lost = tables["trials"].copy()
    lost.loc[lost["seed"] == 2022, ["status", "test"]] = ["diverged", np.nan]
    svg = accuracy_svg(tables["accuracy"], lost, view.arms, view.baseline)
    assert not re.search(r"\bnan\b", svg, re.IGNORECASE)


def test_levels_stand_to_scale_until_two_are_too_close_or_one_is_no_number():
    assert level_places(["1", "2", "4"]) == ([0.0, pytest.approx(1 / 3), 1.0], False)
    assert level_places(["0.1", "1", "10"]) == ([0.0, pytest.approx(0.5), 1.0], False)
    assert level_places(["0", "1", "10"]) == ([0.0, pytest.approx(0.1), 1.0], False)  # no logarithm of 0
    assert level_places(["0.01", "0.9", "1"]) == ([0.0, 0.5, 1.0], True)
    assert level_places(["1", "null", "true"]) == ([0.0, 0.5, 1.0], True)
    assert level_places(["1"]) == ([0.0], False)


def test_levels_are_ordered_as_numbers_within_the_order_of_arms():
    table = pd.DataFrame({"arm": ["b", "b", "b", "a", "c"], "level": [10.0, "null", 9.0, np.nan, 1.0]})
    found = ordered(table, ("a", "b"))
    assert found["level"].tolist() == ["", "9", "10", "null"]
    assert (level_text(0.30000000000000004), level_text(1.0), level_text(2e-5)) == ("0.3", "1", "2e-05")


def test_a_long_name_gives_way_to_its_level():
    assert series_name("a" * 60, "0.05", 28) == "a" * 20 + "… · 0.05"
    assert len(series_name("a" * 60, "", 28)) == 28


def test_a_round_follows_the_update_of_its_step():
    rows = [(50, "round", 1), (25, "update", 2), (50, "update", 3), (100, "update", 4)]
    found = along_training(pd.DataFrame(rows, columns=["step", "stage", "cid"]))
    assert found["cid"].tolist() == [2, 3, 1, 4]


def test_a_round_is_a_vertical_piece_of_the_curve():
    tables, view = made_grid(("finetuning", "influence"), steps=(25, 50, 75))
    svg = cid_svg(tables["cid"], view.arms, view.baseline)
    colour = looks(view.arms)["influence"].colour
    (path,) = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none; stroke: {colour}[^"]*stroke-linecap', svg)[:1]
    points = [tuple(map(float, point)) for point in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    assert len(points) == 4
    assert points[1][0] == points[2][0]
    assert points[2][1] - points[1][1] > 10  # down, that is to a larger y


def test_the_difference_and_its_test_are_those_of_the_table(grid, figures):
    tables, view = grid
    shown = shown_distributions(view.distributions, view.arms)
    assert [one.arm for one in shown] == [*ARMS[:2], *["influence"] * 5, *["embedding"] * 5, "no_spurious"]
    row = tables["cid_probes"].query("arm == 'finetuning' and seed == 2021 and probe_id == 100").iloc[0]
    assert f"difference +{row['cid']:.3f}, Welch p < 0.001" in texts(figures["influence"])
    assert float(shown[0].same.mean() - shown[0].other.mean()) == pytest.approx(row["cid"], abs=1e-6)


def test_the_same_probe_is_shown_of_every_arm_even_under_another_seed(grid):
    _, view = grid
    shown = shown_distributions(view.distributions[::-1], view.arms)
    assert len({one.probe_id for one in shown}) == 1
    other = [one for one in shown if (one.arm, one.level) == ("influence", 0.05)]
    assert [one.seed for one in other] == [2022]  # its first trial failed
    assert {one.seed for one in shown if one is not other[0]} == {2021}


def test_of_very_many_panels_the_ends_of_every_arm_are_kept():
    names = tuple(f"a{i}" for i in range(6))
    _, view = made_grid(names, levels=LEVELS, with_levels=names[1:], steps=(25,), n_probes=2)
    shown = shown_distributions(view.distributions, view.arms)
    assert 5 * len(LEVELS) + 1 > PANELS
    assert [(one.arm, level_text(one.level)) for one in shown[:3]] == [("a0", ""), ("a1", "0.05"), ("a1", "1")]
    assert len(shown) == 11


def test_a_probe_without_examples_of_another_confound_is_drawn_with_one_side(grid):
    tables, view = grid
    lone = replace(view.distributions[0], other=np.array([np.nan]))
    probes = tables["cid_probes"].assign(cid=np.nan, p=np.nan)
    svg = influence_svg([lone], probes)
    assert "no difference: one side is empty" in texts(svg)
    assert not re.search(r"\bnan\b", svg, re.IGNORECASE)
    assert influence_svg([replace(lone, same=np.zeros(0))], probes)
    assert influence_svg([replace(lone, same=np.ones(3))], probes.iloc[:0])
