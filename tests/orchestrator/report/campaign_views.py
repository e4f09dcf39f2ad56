"""Invented views of leave-one-out and debias campaigns for tests: realistic shapes, user text that must be escaped."""

import numpy as np
import pandas as pd
from report_data import HOSTILE

from orchestrator.campaigns.debias.page_view import DebiasPageView, Sentence
from orchestrator.campaigns.leave_one_out.page_view import DrawnComparison, LeaveOneOutPageView

MEANS = ((0, 0), (5, 5), (5, -5))
CLASSES = ("left", "upper", "lower")
LABELS = (
    ("cross-loss", "NLL retraining", 0.655),
    ("matched", "NLL retraining", 0.58),
    ("tfidf", "NLL retraining", None),
)


def mixture(rng, n):
    """Return `n` points of each of three Gaussians: features [3n, 2], labels [3n]."""
    labels = np.repeat(np.arange(3), n)
    return np.asarray(MEANS, float)[labels] + 1.25 * rng.normal(size=(3 * n, 2)), labels


def comparison(rng, label, unit, features, labels, scale, noise):
    """Return a comparison in which nearby examples of the same class help; predictions are `scale` times that, with varying noise."""
    nearness = np.exp(-((features[:, None] - features[None]) ** 2).sum(-1) / 8)
    actual = 1e-3 * nearness * np.where(labels[:, None] == labels[None], 1, -0.7)
    actual = actual + 1e-5 * rng.normal(size=actual.shape)
    strength = noise * rng.random((len(labels), 1)) * actual.std(axis=1, keepdims=True)
    predicted = scale * (actual + strength * rng.normal(size=actual.shape))
    ids = list(range(100, 100 + len(labels)))
    return DrawnComparison(label, unit, predicted, actual, ids, ids, labels.tolist())


def leave_one_out_view(n=30, units=("seed 2021", "seed 2022"), seed=0):
    rng = np.random.default_rng(seed)
    features, labels = mixture(rng, n)
    rows, by_class, comparisons = [], [], []
    for i, (method, truth, paper) in enumerate(LABELS):
        share = 0.7 - 0.2 * i
        name = {"method": method, "ground_truth": truth}
        rows.append(
            {**name, "mean_r": share - 0.1, "ci_low": share - 0.2, "ci_high": share, "mean_rho": 0.5}
            | {
                "share_above": share,
                "class_share": share,
                "over_median": 12.5,
                "n_units": len(units),
                "n_queries": 3 * n,
            }
            | {"paper": paper if paper is not None else np.nan}
        )
        by_class += [{**name, "class": c, "share_above": share, "n_queries": n} for c in CLASSES]
        scale, noise = ((0.8, 1.0), (400.0, 2.5), (30.0, 9.0))[i]
        comparisons += [comparison(rng, method, unit, features, labels, scale, noise) for unit in units]
    return LeaveOneOutPageView(
        pd.DataFrame(rows), comparisons, CLASSES, pd.DataFrame(by_class), None, features, features, labels
    )


VARIANTS = ("original", "hard_debiased", "ours", "ours_after_hard")
TESTS = ("gender-career", "gender-math", "gender-arts", "race-pleasantness")
NAMES = {"gender-math": {"x": "male", "y": "female", "a": "math", "b": "arts"}}
SENTENCES = (
    (
        "A",
        "Maxwell's formulation was in terms of equations in his variables although he later attempted a calculus.",
        [("equations", "a", 0.0131), ("he", "x", 0.0064), ("his", "x", 0.0049), ("calculus", "a", -0.0011)],
    ),
    ("A", HOSTILE, [("script", "a", 0.004)]),
    ("A", "The vice president has an office in the building but his primary office is next door.", []),
    (
        "M",
        "Most programming is designed around computation whereas Alice has greater appeal to her daughter and her math class.",
        [("her", "y", -0.0100), ("math", "a", -0.0079), ("daughter", "y", 0.0002)],
    ),
    ("M", "With her dance moves she is best known for her spins.", [("dance", "b", -0.003), ("she", "y", -0.002)]),
)


def effect_rows(rng, test, variant):
    base = {"original": 0.5, "hard_debiased": 0.42, "ours": 0.12, "ours_after_hard": 0.05}[variant]
    base = base * (-1 if "arts" in test else 1) + 0.05 * rng.normal()
    halves = ("all", "halves") if variant in VARIANTS[:2] else ("held_out", "chosen", "chosen_per_seed")
    rows = []
    for i, half in enumerate(halves):
        effect = base - 0.04 * i
        setting = f"undo {rng.choice([5, 10, 100])} x {rng.choice([5, 10])}" if "ours" in variant else ""
        rows.append(
            {"test": test, "half": half, "variant": variant, "setting": setting, "n_seeds": 5, "effect": effect}
            | {"ci_low": effect - 0.15, "ci_high": effect + 0.15, "abs_effect": abs(effect)}
            | {"abs_ci_low": 0.0, "abs_ci_high": abs(effect) + 0.1}
        )
    return rows


def debias_view(tests=TESTS, seed=0):
    rng = np.random.default_rng(seed)
    effects = [row for test in tests for variant in VARIANTS for row in effect_rows(rng, test, variant)]
    actions = [(t, a, n, k) for t in tests[:2] for a in ("undo", "reinforce") for n in (5, 10) for k in (1, 5)]
    actions += [("all", a, "all", "all") for a in ("undo", "reinforce")]
    directions = [
        {"test": t, "start": "original", "action": a, "size": n, "passes": k}
        | {"count": (m := int(rng.integers(2, 6))), "n": 5, "share": m / 5}
        | {"ci_low": max(m / 5 - 0.4, 0), "ci_high": min(m / 5 + 0.4, 1), "ci_seed_low": 0.1, "ci_seed_high": 0.9}
        for t, a, n, k in actions
    ]
    grid = [
        {"corrected": c, "test": t, "action": a, "size": n, "passes": k, "start": "original", "n_seeds": 5}
        | {"effect": (e := float(rng.normal() * 0.4)), "ci_low": e - 0.1, "ci_high": e + 0.1}
        for c in tests[:3]
        for t in tests
        for a in ("undo", "reinforce", "both")
        for n in (5, 10, 100, 1000)
        for k in (5, 10, 100)
    ]
    settings = [{"test": t, "half": "held_out", "setting": "undo 10 x 5", "seed": 2021} for t in tests]
    sentences = [
        Sentence(test, which, rank, 1000 + rank, text, (0.031 if which == "A" else -0.022) / rank, words)
        for test in tests[1:2]
        for rank, (which, text, words) in enumerate(SENTENCES, 1)
    ]
    neighbours = [("math", [("algebra", 0.71), ("physics", 0.66)]), ("<b>poetry", [("drama", 0.5)])]
    refused = [("science", "3 of 8 attribute words B occur in the corpus; at least 5 are needed")]
    tables = (pd.DataFrame(found) for found in (effects, directions, grid, settings))
    return DebiasPageView(*tables, sentences, neighbours, refused, NAMES)
