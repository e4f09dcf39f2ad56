"""Invented trials of a recipe grid for tests, analysed by the campaign's own code: realistic shapes, one arm that fails."""

from itertools import product

import numpy as np

from orchestrator.campaigns.recipe_grid.cid import Observed, cid_probes_table, cid_table
from orchestrator.campaigns.recipe_grid.results import Distribution, RecipeGridView
from orchestrator.campaigns.recipe_grid.selection import GridSetting, GridTrials, choose
from orchestrator.campaigns.recipe_grid.tables import accuracy_table, settings_table, trials_table

ARMS = ("finetuning", "adversarial", "influence", "embedding", "no_spurious")
TEST = dict(zip(ARMS, (0.76, 0.784, 0.805, 0.822, 0.85), strict=True))
CID = dict(zip(ARMS, (0.093, 0.08, 0.035, 0.03, 0.019), strict=True))
SEEDS = (2021, 2022, 2023, 2024, 2025)
LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0)
RULE = "a trial failed if its accuracy on train is below 0.55; declared beforehand"


def settings_of(arms, n_settings, levels, with_levels):
    """Return `n_settings` learning rates for every arm; those in `with_levels` also at each of `levels`."""
    found = []
    for arm in arms:
        over = levels if arm in with_levels else (None,)
        points = list(product(over, range(n_settings)))
        for number, (level, i) in enumerate(points):
            options = {} if n_settings == 1 else {"recipe.learning_rate": 2e-5 * (i + 1)}
            options |= {} if level is None else {"recipe.access_rate": level}
            label = arm if len(points) == 1 else f"{arm}.{number}"
            found.append(GridSetting(arm, label, level, options))
    return found


def made_trials(settings, seeds, rng, failing=()):
    """Return accuracies near those of the paper; trials of `failing` (arm, level, seeds) did not fit their training set."""
    shape = len(settings), len(seeds)
    test = np.array([TEST.get(s.arm, 0.8) - 0.02 * (s.level is not None) * (1 - (s.level or 0)) for s in settings])
    test = np.round((test[:, None] + 0.012 * rng.standard_normal(shape)) * 500) / 500
    train, dev = np.full(shape, 1.0), np.round((test + 0.05) * 480) / 480
    outcome = np.full(shape, "ok", "U16")
    for arm, level, which in failing:
        for s, setting in enumerate(settings):
            for r in which if (setting.arm, setting.level) == (arm, level) else ():
                train[s, r], dev[s, r], test[s, r] = 0.51, 0.5, 0.5 + 0.01 * r
    return GridTrials(settings, seeds, outcome, train, dev, test, 0.55)


def moments(rng, difference, n_probes):
    """Return [n_probes, 6]: n, mean and sd of the same-confound examples and of the others."""
    other = 0.6 + 0.05 * rng.standard_normal(n_probes)
    same = other + difference + 0.03 * rng.standard_normal(n_probes)
    ones = np.ones(n_probes)
    return np.stack([675 * ones, same, 0.12 * ones, 75 * ones, other, 0.12 * ones], axis=1).astype(np.float32)


def observed_of(trials, chosen, rng, steps, n_probes):
    """Return CIDs that fall along training; recipes that tune influences fall at every second step, by a round after the update."""
    found = []
    for s in chosen:
        setting = trials.settings[s]
        final, tuned = CID.get(setting.arm, 0.06), setting.arm in ("influence", "embedding")
        for r in np.flatnonzero(trials.usable[s]):
            seen = {}
            for i, step in enumerate(steps):
                level = final + 0.3 * np.exp(-1.1 * i) + 0.004 * rng.standard_normal()
                seen[step, False, "update"] = moments(rng, level, n_probes)
                if tuned and i % 2:
                    seen[step, True, "round"] = moments(rng, 0.2 * level, n_probes)
            found.append(Observed(setting, trials.seeds[r], np.arange(100, 100 + n_probes), seen))
    return found


def distributions_of(observed, n_shown=2):
    """Return influences of every setting's first trial whose moments are exactly those observed at the end."""
    first = {}
    for one in observed:
        first.setdefault(one.setting.label, one)
    return [
        Distribution(one.setting.arm, one.setting.column, one.seed, int(probe), spread(*row[:3]), spread(*row[3:]))
        for one in first.values()
        for probe, row in zip(one.probe_ids[:n_shown], one.last, strict=False)
    ]


def spread(n, mean, sd):
    """Return `n` values with this mean and standard deviation, more of them in the middle."""
    quantiles = np.sinh(np.linspace(-2, 2, int(n)))
    return mean + sd * quantiles / quantiles.std(ddof=1)


def made_grid(
    arms=ARMS,
    n_settings=1,
    levels=(),
    with_levels=("influence", "embedding"),
    seeds=SEEDS,
    steps=tuple(range(25, 225, 25)),
    failing=(),
    paper=True,
    n_probes=20,
    seed=0,
):
    """Return (tables, view) of a campaign over `arms`, the first one the baseline; empty `steps` leave out the observer."""
    rng = np.random.default_rng(seed)
    settings = settings_of(arms, n_settings, levels, with_levels if levels else ())
    trials = made_trials(settings, seeds, rng, failing)
    choices = choose(trials, 3)
    chosen = [choice.setting for choice in choices]
    said = [TEST.get(settings[s].arm, np.nan) if paper else np.nan for s in chosen]
    tables = {
        "accuracy": accuracy_table(trials, choices, arms[0], said),
        "settings": settings_table(trials, choices),
        "trials": trials_table(trials),
    }
    observed = observed_of(trials, chosen, rng, steps, n_probes) if steps else []
    if observed:
        tables |= {"cid": cid_table(observed), "cid_probes": cid_probes_table(observed)}
    view = RecipeGridView(
        tables["trials"],
        {(settings[s].arm, settings[s].column): settings[s].label for s in chosen},
        distributions_of(observed),
        "recipe.access_rate" if levels else "",
        arms[0],
        RULE,
        tuple(arms),
    )
    return tables, view
