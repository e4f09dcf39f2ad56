"""An edited plugin is another identity: nothing that depends on its code is taken from a store that the old code filled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from orchestrator import api
from orchestrator.cli import main
from orchestrator.config.schema import LoadedConfig
from orchestrator.experiment.edited_plugins import edited_plugins
from orchestrator.inspection.status import status
from orchestrator.runtime.worker import configure, retrain
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import InputError, RefitError
from tests.orchestrator.small_campaigns import DEBIAS, small_debias
from tests.orchestrator.small_grid import WATCHER
from tests.orchestrator.tiny_campaign import CONFIG, pipeline_of, run_here, small_config, write_config

PARTS = """
from typing import ClassVar
import numpy as np
from influence.base import Method
from orchestrator.campaigns.deletion.campaign import Deletion
from tasks.measurements import GoldProbability
from tasks.models.text_cnn import TextCNN
from tasks.planted import Planted
from tasks.properties import Displacement, ResolvedDisplacement
from tasks.recipes.finetune import Finetune

class Overlap(Method):
    name: ClassVar[str] = "overlap"
    follows_query_loss: ClassVar[bool] = False
    uses_checkpoints: ClassVar[bool] = False

    def score(self, queries, train, prepared):
        return np.outer(queries.ids + 1.0, train.ids % 7).astype(np.float32)

class MyTask(Planted):
    name: ClassVar[str] = "my_task"

class MyModel(TextCNN):
    name: ClassVar[str] = "my_model"

class MyRecipe(Finetune):
    name: ClassVar[str] = "my_recipe"

class MyMeasurement(GoldProbability):
    name: ClassVar[str] = "my_measurement"

class MyCampaign(Deletion):
    name: ClassVar[str] = "my_campaign"

class MyResolved(ResolvedDisplacement):
    pass

class MyProperty(Displacement):
    name: ClassVar[str] = "my_property"

    def resolve(self, counts, base_dir, where):
        found = super().resolve(counts, base_dir, where)
        return MyResolved(found.label, found.words, found.refused)
"""
EDIT = "\n# pooled by the mean from here on\n"
OTHERS = [{"name": "tracin_last"}, {"name": "random"}]


class Ids(NamedTuple):
    """Everything that a store or a run directory is asked for."""

    spec: str
    scores: Mapping[str, str]
    ledger: str
    run: str


def ids_of(config: LoadedConfig) -> Ids:
    pipeline = pipeline_of(config)
    arm, numerics = pipeline.experiment.main, Numerics(device_model="a processor")
    stages = pipeline.models.stages.values() if pipeline.experiment.campaign.asks_queries else ()
    scores = {label: stage.score_id(method) for stage in stages for label, method in pipeline.experiment.scored.items()}
    return Ids(arm.spec(numerics, Edit(), 1).spec_id, scores, arm.task_id, pipeline.experiment.run_name)


def small(module: str, **changes: Any) -> Callable[[Path], LoadedConfig]:
    return lambda folder: small_config(folder, plugins=[module], **{"methods": OTHERS, **changes})


def with_name(block: dict[str, Any], name: str) -> dict[str, Any]:
    return {**block, "name": name}


def with_property(module: str) -> Callable[[Path], LoadedConfig]:
    own = {"name": f"{module}:MyProperty", "word": "he", "as": "moved"}
    properties = [own, *DEBIAS["task"]["properties"]]
    return lambda folder: small_debias(folder, plugins=[module], task__properties=properties)


def with_campaign(module: str) -> Callable[[Path], LoadedConfig]:
    name = f"{module}:MyCampaign"
    options = {key: value for key, value in CONFIG.items() if key != "deletion"}
    options |= {"campaign": name, name: CONFIG["deletion"], "plugins": [module]}

    def make(folder: Path) -> LoadedConfig:
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump({**options, "output": str(folder / "runs")}))
        return api.load_config(path)

    return make


def configs(m: str) -> dict[str, tuple[Callable[[Path], LoadedConfig], set[str]]]:
    """Kind of part -> a config with one of the module `m`, and which ids its edit must change beside the run's."""
    task = CONFIG["task"]
    return {
        "method": (small(m, methods=[{"name": f"{m}:Overlap", "as": "overlap"}, *OTHERS]), {"scores"}),
        "task": (small(m, task__name=f"{m}:MyTask"), {"spec", "scores"}),
        "model": (small(m, task__model=with_name(task["model"], f"{m}:MyModel")), {"spec", "scores"}),
        "recipe": (small(m, task__recipe=with_name(task["recipe"], f"{m}:MyRecipe")), {"spec", "scores"}),
        "measurement": (small(m, measurement=f"{m}:MyMeasurement"), set()),
        "observer": (small(m, observe=[{"name": f"{m}:Norms"}]), {"ledger", "scores"}),
        "campaign": (with_campaign(m), set()),
        "property": (with_property(m), {"ledger", "scores"}),
    }


KINDS = list(configs("any"))


@pytest.fixture
def parts(plugin) -> Callable[[str], str]:
    """parts(more): the module of all kinds of parts, with `more` at its end; imported anew, as by a new process."""
    return lambda more="": plugin("parts_of_mine", PARTS + WATCHER + more)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_of_any_kind_of_part_changes_what_depends_on_it_and_nothing_else(kind, tmp_path, parts):
    make, changing = configs(parts(""))[kind]
    before = ids_of(make(tmp_path))
    assert ids_of(make(tmp_path)) == before
    parts(EDIT)
    after = ids_of(make(tmp_path))
    changed = {name for name in ("spec", "scores", "ledger") if getattr(before, name) != getattr(after, name)}
    assert changed == changing
    assert before.run != after.run
    if kind == "method":
        assert {label for label in before.scores if before.scores[label] != after.scores[label]} == {"overlap"}


def test_built_in_parts_beside_an_edited_plugin_keep_their_identities(tmp_path, parts):
    """A plugin that is listed and not used, or that judges only, costs no retrain."""
    module = parts("")
    before = ids_of(small(module)(tmp_path))
    parts(EDIT)
    assert ids_of(small(module)(tmp_path)) == before


MODEL = """
import torch
from typing import ClassVar
from tasks.models.text_cnn import TextCNN
from pooling_of_mine import pool

class Pooled(TextCNN):
    name: ClassVar[str] = "pooled"

    def forward(self, network, batch):
        return pool(super().forward(network, batch))
"""
POOLING = "def pool(x):\n    return {}\n"


def pooled_config(folder: Path) -> Path:
    changes = {"task.model": with_name(CONFIG["task"]["model"], "model_of_mine:Pooled"), "plugins": ["model_of_mine"]}
    return write_config(folder, {**changes, "methods": OTHERS, "repeats.count": 1, "deletion.k": [2]})


MEAN, MAX = POOLING.format("x - x.mean(1, keepdim=True)"), POOLING.format("x - x.max(1, keepdim=True).values")


@pytest.fixture
def pooled(tmp_path, plugin, capsys) -> Callable[..., tuple[int, str]]:
    """pooled(source, *arguments): a command with that pooling beside the plugin, both imported anew; exit code and what it said."""
    config = pooled_config(tmp_path)

    def command(pooling: str, *arguments: object) -> tuple[int, str]:
        plugin("pooling_of_mine", pooling)
        plugin("model_of_mine", MODEL)
        capsys.readouterr()
        code = main([str(config if one == "CONFIG" else one) for one in arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


RUN = ("run", "CONFIG", "--yes", "--address", "local")


def run_dirs(folder: Path) -> list[Path]:
    return sorted((folder / "runs").glob("small-*"))


def test_an_edit_beside_a_plugin_retrains_and_is_told_everywhere(pooled, tmp_path):
    assert pooled(MEAN, *RUN)[0] == 0
    [first] = run_dirs(tmp_path)
    code, said = pooled(MEAN, *RUN)
    assert code == 0
    assert "retrained 0" in said
    assert "edited" not in said

    for command in ("report", "verify"):
        code, said = pooled(MAX, command, first)
        assert code == 2
        assert "plugin model_of_mine has been edited" in said
        assert len(said.splitlines()) == 1
    code, said = pooled(MAX, "status", first)
    assert code == 0
    assert "plugin model_of_mine has been edited" in said

    code, said = pooled(MAX, *RUN)
    assert code == 0
    assert "plugin model_of_mine has been edited: its source was" in said
    assert first.name in said
    assert "retrained 0" not in said
    [second] = set(run_dirs(tmp_path)) - {first}
    assert "plugin model_of_mine has been edited" in (second / "refit.log").read_text()
    digests = [json.loads((run / "provenance.json").read_text())["plugins"]["model_of_mine"] for run in (first, second)]
    assert digests[0] != digests[1]
    assert digests[1] in (second / "report.html").read_text()
    specs = [set(json.loads((run / "provenance.json").read_text())["references"]) for run in (first, second)]
    assert specs[0].isdisjoint(specs[1])


def test_the_source_brought_back_finds_everything_done(pooled, tmp_path):
    pooled(MEAN, *RUN)
    planned = json.loads(pooled(MAX, "plan", "CONFIG", "--json")[1])
    assert planned["scoring_models_to_do"] == 1
    assert "plugin model_of_mine has been edited" in planned["edited"][0]
    assert "retrained 0" in pooled(MEAN, *RUN)[1]
    assert pooled(MEAN, "verify", run_dirs(tmp_path)[0])[0] == 0


def test_a_run_of_before_sources_were_recorded_says_so(tmp_path, parts):
    module = parts("")
    config = configs(module)["recipe"][0](tmp_path)
    result = run_here(config, until="train")
    path = result.run_dir / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["run"] = f"small-{'0' * 16}"
    del provenance["plugins"]
    path.write_text(json.dumps(provenance))
    with pytest.raises(InputError, match="made by a version that did not record the source of plugins"):
        api.open_run(result.run_dir).pipeline()


def test_a_plugin_that_is_gone_is_told(tmp_path):
    [line] = edited_plugins({"plugins": {"module_that_is_gone": "0" * 32}})
    assert line == "plugin module_that_is_gone (source 000000000000) cannot be found here"


def test_a_run_of_built_in_parts_has_nothing_to_tell(finished):
    assert finished.pipeline.run_dir.provenance()["plugins"] == {}
    assert not any("plugin" in line for line in status(finished.run_dir).lines())


def test_a_worker_whose_source_is_another_does_not_begin(tmp_path, parts):
    module = parts("")
    context = pipeline_of(configs(module)["recipe"][0](tmp_path)).context()
    configure(context)
    other = {name: {**files, name: "0" * 32} for name, files in context.sources.items()}
    with pytest.raises(
        RefitError, match=f"module '{module}' is of digest .* on this worker, and of digest 000000000000"
    ):
        configure(replace(context, sources=other))


LATE = """
from typing import ClassVar
from tasks.recipes.finetune import Finetune

class Late(Finetune):
    name: ClassVar[str] = "late"

    def train(self, task, training):
        from helper_of_mine import note

        note()
        return super().train(task, training)
"""


def test_a_helper_edited_in_the_middle_of_a_run_spoils_no_result(tmp_path, plugin):
    """A part imports it when it first works: by then it is not what the identity says."""
    plugin("helper_of_mine", "def note():\n    pass\n")
    module = plugin("late_of_mine", LATE)
    recipe = with_name(CONFIG["task"]["recipe"], f"{module}:Late")
    pipeline = pipeline_of(small_config(tmp_path, plugins=[module], methods=OTHERS, task__recipe=recipe))
    context = pipeline.context()
    configure(context)
    plugin("helper_of_mine", "def note():\n    return 'something else'\n")
    with pytest.raises(RefitError, match="module 'helper_of_mine' was edited before late_of_mine imported it"):
        retrain(context, pipeline.scoring[0].work, "here")


LATER = """
from pathlib import Path
from typing import ClassVar
from tasks.recipes.finetune import Finetune

class Later(Finetune):
    name: ClassVar[str] = "later"

    def train(self, task, training):
        if not training.edit.is_empty:
            EDIT
            from helper_for_later import note

            note()
        return super().train(task, training)
"""


@pytest.mark.parametrize("retries", [0, 1])
def test_a_helper_edited_in_the_middle_of_a_campaign_ends_the_session_and_quarantines_nothing(
    tmp_path, plugin, capsys, retries
):
    before = "def note():\n    pass\n"
    plugin("helper_for_later", before)
    edit = "Path(__file__).with_name('helper_for_later.py').write_text('def note():\\n    return 8\\n')"
    module = plugin("later_of_mine", LATER.replace("EDIT", edit))
    path = write_config(
        tmp_path,
        {
            "plugins": [module],
            "methods": OTHERS,
            "task.recipe": with_name(CONFIG["task"]["recipe"], f"{module}:Later"),
            "compute": {"workers": 1, "retries": retries, "preemptions": 0},
        },
    )
    assert main(["run", str(path), "--address", "local"]) == 2
    said = capsys.readouterr().err
    assert "plugins: on worker" in said
    assert "module 'helper_for_later' was edited before later_of_mine imported it" in said
    assert "start the command again" in said.splitlines()[-1]
    [run_dir] = run_dirs(tmp_path)
    plugin("helper_for_later", before)
    found = status(run_dir)
    assert (found.quarantined, found.finished > 0) == (0, True)
