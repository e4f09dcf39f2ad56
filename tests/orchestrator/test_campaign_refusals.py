"""What campaigns leave_one_out and debias refuse, before anything is trained: one line that names the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.load import parse_config
from orchestrator.config.schema import LoadedConfig
from tasks.errors import InputError
from tests.orchestrator.small_campaigns import LOO, small_debias, small_loo
from tests.orchestrator.tiny_campaign import pipeline_of, small_config

MATCHED = {"method": "exact", "scores": "nll", "truth": "nll"}
LEAVE_ONE_OUT = {
    "an unknown arm of scores": ({"comparisons": [MATCHED | {"scores": "kl"}]}, "comparisons.0.scores", "'kl'"),
    "an unknown arm of truth": ({"comparisons": [MATCHED, MATCHED | {"truth": "kl"}]}, "comparisons.1.truth", "'kl'"),
    "no arm among several": ({"comparisons": [{"method": "exact"}]}, "comparisons.0.scores", "nll, twin, dec"),
    "an unknown method": ({"comparisons": [MATCHED | {"method": "lissa"}]}, "comparisons.0.method", "'lissa'"),
    "a control": ({"comparisons": [MATCHED | {"method": "random"}]}, "comparisons.0.method", "'random'"),
    "two equal rows": ({"comparisons": [MATCHED, MATCHED]}, "leave_one_out.comparisons", "give one an `as`"),
    "rows that name the one arm and leave it out": (
        {"arms": {"nll": {}}, "comparisons": [MATCHED, {"method": "exact"}]},
        "leave_one_out.comparisons",
        "give one an `as`",
    ),
    "more points than there are": ({"points": 13}, "leave_one_out.points", "13 is more than the 12"),
    "arms with different training examples": (
        {"arms": {"nll": {}, "more": {"data.per_class": 5}}, "comparisons": [MATCHED | {"truth": "more"}]},
        "leave_one_out.comparisons.0",
        "nll.0 and more.0 have different training examples",
    ),
    "arms with different queries": (
        {"arms": {"nll": {}, "few": {"measure": [{"split": "train", "limit": 9}, {"split": "means"}], "recipe.steps": 2}}}
        | {"comparisons": [MATCHED | {"truth": "few"}]},
        "leave_one_out.comparisons.0",
        "nll.0 and few.0 have different measured points",
    ),
    "a unit key the task does not have": ({"over": {"data.sed": [0, 1]}}, "task.data.sed", "'sed'"),
    "a unit key below a name": ({"over": {"name.seed": [0, 1]}}, "task.name.seed", "not a mapping"),
    "a unit value the task refuses": ({"over": {"data.seed": [0, -1]}}, "task.data.seed", "-1"),
    "an arm that changes what is not there": ({"arms": {"nll": {"recipe.momentum": 1}}}, "task.recipe", "'momentum'"),
    "an arm with a recipe for other tasks": (
        {"arms": {"nll": {}, "text": {"recipe": {"name": "finetune"}}}},
        "task.recipe.name",
        "'finetune' fits tasks of text",
    ),
    "arms that train the same and record other splits": (
        {"arms": {"nll": {}, "means": {"measure": [{"split": "train"}, {"split": "means"}], "recipe.steps": 2}}}
        | {"over": {"measure": [[{"split": "train"}, {"split": "means"}], [{"split": "train", "limit": 6}, {"split": "means"}]]}},
        "leave_one_out",
        "record different splits",
    ),
}  # fmt: skip


DEBIAS = {
    "an unknown property": ({"debias__correct": ["gendre"], "debias__halves": {}}, "debias.correct", "'gendre'"),
    "a property that was refused": ({"debias__correct": ["rare"], "debias__halves": {}}, "debias.correct", "too few"),
    "an unknown half": (
        {"debias__halves": {"gender": ["gender_first", "third"]}},
        "debias.halves.gender",
        "'third'",
    ),
    "halves of what is not corrected": ({"debias__correct": ["reversed"]}, "debias", "'gender' is not among"),
    "a half that is corrected itself": (
        {"debias__correct": ["gender", "gender_first"]},
        "debias",
        "'gender_first' can be a half of one property only",
    ),
    "one half twice": ({"debias__halves": {"gender": ["gender_first"] * 2}}, "debias", "'gender_first' can be a half"),
    "passes of a fine-tune": ({"debias__finetune": {"name": "reinforce", "passes": 3}}, "debias", "debias.passes"),
    "a fine-tune with an unknown option": (
        {"debias__finetune": {"name": "reinforce", "rate": 3}},
        "task.recipe",
        "'rate'",
    ),
    "a fine-tune for other tasks": ({"debias__finetune": {"name": "dec"}}, "task.recipe", ""),
    "queries without a corrected property": (
        {"queries": {"split": "properties", "ids": [0, 1, 2]}},
        "queries",
        "'reversed' is corrected",
    ),
    "queries of another split": ({"queries": {"split": "words", "count": 3}}, "queries", "'gender' is corrected"),
    "queries that a model judges": (
        {"queries": {"split": "properties", "where": {"probability": [0.1, 0.9]}}},
        "queries",
        "",
    ),
    "no scored method": ({"methods": [{"name": "random"}]}, "methods", "no method has scores"),
    "a size twice": ({"debias__sizes": [3, 3]}, "debias.sizes", "each may occur only once"),
    "no size": ({"debias__sizes": []}, "debias.sizes", "at least 1"),
    "an unknown action": ({"debias__actions": ["forget"]}, "debias.actions.0", "'forget'"),
}


def check_refused(config, folder: Path, key: str, names: str) -> None:
    """`config` is called to write and load the config."""
    with pytest.raises(InputError) as refused:
        pipeline_of(config())
    assert key in refused.value.where
    assert "config.yaml" in refused.value.where
    assert names in refused.value.problem
    assert not (folder / "runs" / "ledger").exists()


@pytest.mark.parametrize("case", LEAVE_ONE_OUT)
def test_leave_one_out(case, tmp_path):
    block, key, names = LEAVE_ONE_OUT[case]
    kept = {name: value for name, value in LOO["leave_one_out"].items() if "arms" not in block or name != "comparisons"}
    methods = [*LOO["methods"], {"name": "random"}]
    check_refused(lambda: small_loo(tmp_path, leave_one_out={**kept, **block}, methods=methods), tmp_path, key, names)


@pytest.mark.parametrize("case", DEBIAS)
def test_debias(case, tmp_path):
    changes, key, names = DEBIAS[case]
    check_refused(lambda: small_debias(tmp_path, **changes), tmp_path, key, names)


OTHERS = {
    "methods without scores": ({"methods": [{"name": "random"}], "leave_one_out": {"points": 6}}, "methods", "no method"),
    "models that choose their own queries, compared with others": (
        {"queries": {"split": "train", "where": {"correct": True}}},
        "leave_one_out.comparisons.2",
        "queries.where lets the models of dec and nll",
    ),
    "more scoring models than the reference": ({"scores": {"models": 2}}, "scores.models", "2 is not allowed: leave_one_out"),
    "epochs that a scored arm does not reach": (
        {"leave_one_out__arms": {"nll": {}, "twin": {}, "dec": {"recipe.steps": 2}}, "scores": {"checkpoints": [3]}},
        "scores.checkpoints",
        "3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_leave_one_out_with_other_blocks(case, tmp_path):
    changes, key, names = OTHERS[case]
    check_refused(lambda: small_loo(tmp_path, **changes), tmp_path, key, names)


def test_debias_of_a_task_without_properties(tmp_path):
    def config() -> LoadedConfig:
        found = small_config(tmp_path)
        raw = {key: value for key, value in found.raw.items() if key != "deletion"}
        return parse_config(raw | {"campaign": "debias", "debias": {"correct": ["gender"]}}, found.path)

    check_refused(config, tmp_path, "debias", "task 'planted' has no properties to correct")
