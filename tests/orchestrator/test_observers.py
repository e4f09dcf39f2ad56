"""`observe:`: components that look at every retrain, recorded beside its outputs and part of what a ledger records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from orchestrator import api
from orchestrator.cli import main
from orchestrator.config.load import dump_config, parse_config
from orchestrator.experiment.checks import checked_experiment
from orchestrator.inspection.verify import verify
from orchestrator.runtime.worker import configure, retrain
from tasks.errors import InputError
from tasks.sources import source_digests
from tests.orchestrator.small_campaigns import small_loo
from tests.orchestrator.small_grid import WATCHER
from tests.orchestrator.tiny_campaign import CONFIG, pipeline_of, run_here, small_config

TINY = Path(__file__).parents[2] / "configs" / "tiny.yaml"
N_STEPS = 8  # two epochs of 40 examples by tens


@pytest.fixture
def watcher(plugin) -> str:
    """A module of observers."""
    return plugin("watcher", WATCHER)


def observed(folder, watcher, *blocks, **changes):
    """The small campaign with observers of the module `watcher`, by class name and options."""
    observe = [{"name": f"{watcher}:{name}", **options} for name, options in blocks]
    return small_config(folder, observe=observe, plugins=[watcher], **changes)


def test_every_retrain_and_scoring_model_records_what_observers_see(tmp_path, watcher):
    config = observed(tmp_path, watcher, ("Norms", {"every": 4}), deletion__k=[5], repeats={"seeds": [3]})
    result = run_here(config)
    pipeline = pipeline_of(config)
    for spec_id, row in pipeline.rows.items():
        outputs = row.outcome.outputs
        assert set(outputs) == {"test", *(f"norms/{key}@{s}" for key in ("parameters", "of") for s in (0, 4, 8))}
        assert outputs["norms/of@4"].tolist() == [4, N_STEPS, 40], spec_id
        assert (outputs["norms/parameters@0"] != outputs["norms/parameters@8"]).any()
    assert {s.work.spec_id for s in pipeline.scoring} <= pipeline.rows.keys()
    assert not verify(api.open_run(result.run_dir).pipeline(), rerun=1).problems, "done again, it sees the same"


def test_what_observers_see_changes_no_output(finished, tmp_path, watcher):
    config = observed(tmp_path, watcher, ("Norms", {}))
    pipeline, work = pipeline_of(config), finished.pipeline.planned.works[0]
    context = pipeline.context()
    configure(context)
    ours, theirs = retrain(context, work, "here"), finished.pipeline.rows[work.spec_id].outcome
    assert ours.outputs["test"].tobytes() == theirs.outputs["test"].tobytes()


def test_observers_are_part_of_what_is_recorded_and_not_of_what_is_trained(tmp_path, watcher):
    plain = checked_experiment(small_config(tmp_path), None)
    one, same, other, both, swapped = (
        checked_experiment(observed(tmp_path, watcher, *blocks), None)
        for blocks in (
            [("Norms", {})],
            [("Norms", {"every": 2})],
            [("Norms", {"every": 3})],
            [("Norms", {}), ("Other", {})],
            [("Other", {}), ("Norms", {})],
        )
    )
    assert one.task_id == same.task_id
    assert both.task_id == swapped.task_id
    assert len({e.task_id for e in (plain, one, other, both)}) == 4
    assert len({e.run_hex for e in (plain, one, other, both)}) == 4
    assert len({(e.train_digest, str(e.recipe_identity)) for e in (plain, one, other, both)}) == 1


def test_a_ledger_says_what_was_observed_and_keeps_it(tmp_path, watcher):
    config = observed(tmp_path, watcher, ("Norms", {"every": 8}))
    run_here(config, until="train")
    pipeline = pipeline_of(config)
    record = pipeline.store.ledger(pipeline.experiment.task_id).description()
    assert record is not None
    sources = source_digests(pipeline.experiment.sources)
    expected = {"name": "norms", "version": 1, "every": 8, "refuse": "", "sources": sources}
    assert record["observers"] == {"norms": expected}
    [row] = pipeline.ledger_rows([s.work.spec_id for s in pipeline.scoring]).values()
    pipeline.experiment.task.prepare()
    n_parameters = len(list(pipeline.experiment.task.network(0).parameters()))
    assert row.outcome.outputs["norms/parameters@8"].shape == (n_parameters,)
    assert row.outcome.outputs["norms/parameters@8"].dtype == np.float32


def test_ids_of_a_campaign_without_observers_are_those_it_always_had(tmp_path):
    experiment = checked_experiment(api.load_config(TINY, [f"output={tmp_path}"]), None)
    assert (experiment.run_name, experiment.task_id) == ("tiny-a07b4cc85cf84fcc", "ed70766aa49cb9ab2fc33b8230904205")
    assert "observers" not in experiment.main.record


def test_a_stack_of_retrains_is_not_observed(tmp_path, watcher):
    changes = {"leave_one_out__over": {"data.seed": [0]}, "plugins": [watcher]}
    config = small_loo(tmp_path, observe=[{"name": f"{watcher}:Norms", "every": 1}], **changes)
    run_here(config)
    pipeline = pipeline_of(config)
    works = {work.spec_id: work for work in pipeline.planned.works}
    names = {s: {n for n in row.outcome.outputs if "@" in n} for s, row in pipeline.rows.items()}
    stacks = {s for s, work in works.items() if work.edit.mode == "each"}
    assert stacks
    assert not any(names[s] for s in stacks)
    assert all(names[s] for s in names.keys() - stacks)


def test_a_resolved_config_observes_the_same(tmp_path, watcher):
    config = observed(tmp_path, watcher, ("Norms", {"every": 5}), ("Other", {}))
    raw = yaml.safe_load(dump_config(config, checked_experiment(config, None).task))
    assert raw["observe"][0] == {"name": f"{watcher}:Norms", "every": 5, "refuse": ""}
    assert parse_config(raw, config.path).observers == config.observers


@pytest.mark.parametrize(
    ("blocks", "named"),
    [
        ([("Norms", {}), ("Norms", {"every": 3})], r"config.yaml: observe\.1: duplicate observer 'norms'"),
        ([("Norms", {"evry": 3})], r"config.yaml: observe\.0\.evry: unknown key 'evry'; allowed: every, refuse"),
        ([("Norms", {"every": "two"})], r"config.yaml: observe\.0\.every: 'two'"),
        ([("Nothing", {})], r"config.yaml: observe\.0\.name: 'watcher:Nothing' is not an observer"),
        ([("Other", {}), ("Norms", {"refuse": "all"})], r"config.yaml: observe\.1: all of 40"),
    ],
)
def test_what_cannot_be_observed_is_refused(tmp_path, watcher, blocks, named):
    with pytest.raises(InputError, match=named):
        checked_experiment(observed(tmp_path, watcher, *blocks), None)


def test_an_unknown_observer_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match=r"observe\.0\.name: unknown observer 'magic'; allowed: .*confound_influence"):
        small_config(tmp_path, observe=[{"name": "magic"}])


def test_observers_are_listed(capsys):
    assert main(["list", "observers"]) == 0
    assert "confound_influence_difference" in capsys.readouterr().out


RECIPE = """
from typing import ClassVar
from tasks.errors import InputError
from tasks.recipes.finetune import Finetune

class Choosy(Finetune):
    name: ClassVar[str] = "choosy"

    def check_task(self, task, where):
        raise InputError(where, f"{len(task.splits['train'])} examples are too few")
"""


def test_a_recipe_may_refuse_a_task(tmp_path, plugin):
    module = plugin("choosy_recipe", RECIPE)
    recipe = {**CONFIG["task"]["recipe"], "name": f"{module}:Choosy"}
    with pytest.raises(InputError, match=r"config.yaml: task.recipe: 40 examples are too few"):
        checked_experiment(small_config(tmp_path, task__recipe=recipe, plugins=[module]), None)


def test_a_recipe_of_an_arm_is_named_with_it(tmp_path, plugin):
    module = plugin("choosy_arm", RECIPE.replace("Finetune", "DecTraining").replace("finetune", "dec"))
    arms = {"nll": {}, "twin": {}, "dec": {"recipe.name": f"{module}:Choosy", "recipe.objective": "dec"}}
    with pytest.raises(InputError, match=r"config.yaml \(arm dec.0\): task.recipe: 12 examples"):
        checked_experiment(small_loo(tmp_path, leave_one_out__arms=arms, plugins=[module]), None)
