"""Patterns of names enter identities as what they select, wherever an option is one; words such as `all` stay as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from influence.methods.influence_function import InfluenceFunction
from influence.methods.tracin import TracIn
from influence.selections import with_selections
from orchestrator.cli import main
from orchestrator.config.schema import LoadedConfig
from orchestrator.experiment.checks import checked_experiment
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.models.text_cnn import TextCNN
from tests.fakes import tiny_bert
from tests.orchestrator.tiny_campaign import CONFIG, options, pipeline_of, run_here, small_config, write_config

NUMERICS = Numerics(device_model="a processor")
RANDOM = {"name": "random"}


def with_method(method: dict[str, Any]) -> dict[str, Any]:
    return {"methods": [{**method, "as": "judged"}, RANDOM]}


def with_model(**changes: Any) -> dict[str, Any]:
    return {"task__model": {**CONFIG["task"]["model"], **changes}}


def changed(config: LoadedConfig) -> dict[str, str]:
    """Every identity that an option could be in."""
    pipeline = pipeline_of(config)
    arm = pipeline.experiment.main
    scores = pipeline.models.first.score_id(next(iter(pipeline.experiment.scored.values())))
    spec = arm.spec(NUMERICS, Edit(), 1).spec_id
    return {"spec": spec, "scores": scores, "ledger": arm.task_id, "run": pipeline.experiment.run_name}


SAME = {
    "freeze": (with_model(freeze=["embedding"]), with_model(freeze=["emb*"])),
    "freeze, in another order": (
        with_model(freeze=["embedding", "conv1"]),
        with_model(freeze=["conv1.*", "embedding"]),
    ),
    "layers of tracin": (
        with_method({"name": "tracin", "layers": ["conv1", "linear"]}),
        with_method({"name": "tracin", "layers": ["lin*", "conv1", "conv[1]"]}),
    ),
    "layers of gradient_cosine": (
        with_method({"name": "gradient_cosine", "layers": ["conv?"]}),
        with_method({"name": "gradient_cosine", "layers": ["conv3", "conv2", "conv1"]}),
    ),
    "parameters of influence_function": (
        with_method({"name": "influence_function", "parameters": ["linear.*"]}),
        with_method({"name": "influence_function", "parameters": ["linear.bias", "linear.weight"]}),
    ),
    "trained parameters of influence_function": (
        {**with_model(freeze=["conv?"]), **with_method({"name": "influence_function", "parameters": ["*.bias"]})},
        {**with_model(freeze=["conv*"]), **with_method({"name": "influence_function", "parameters": ["linear.bias"]})},
    ),
}
OTHER = {
    "freeze": (with_model(freeze=["embedding"]), with_model(freeze=["conv1"])),
    "layers": (
        with_method({"name": "tracin", "layers": ["conv1"]}),
        with_method({"name": "tracin", "layers": ["conv*"]}),
    ),
    "parameters": (
        with_method({"name": "influence_function", "parameters": ["linear.bias"]}),
        with_method({"name": "influence_function", "parameters": ["linear.*"]}),
    ),
}


@pytest.mark.parametrize("kind", SAME)
def test_two_spellings_of_one_choice_are_one_campaign(kind, tmp_path):
    one, other = (changed(small_config(tmp_path, **changes)) for changes in SAME[kind])
    assert one == other


@pytest.mark.parametrize("kind", OTHER)
def test_another_choice_is_another_campaign(kind, tmp_path):
    one, other = (changed(small_config(tmp_path, **changes)) for changes in OTHER[kind])
    assert one["run"] != other["run"]
    assert one["scores"] != other["scores"]


def test_another_spelling_trains_and_scores_nothing_again(tmp_path):
    def config(**model: Any) -> LoadedConfig:
        layers = {"name": "tracin", "layers": model.pop("layers")}
        return small_config(tmp_path, **with_model(**model), **with_method(layers), repeats__count=1, deletion__k=[2])

    first = run_here(config(freeze=["embedding", "conv1"], layers=["conv2", "linear"]))
    again = run_here(config(freeze=["conv1*", "emb*"], layers=["lin*", "conv2"]))
    assert first.report.retrained > 0
    assert (again.report.retrained, again.report.score_seconds, again.run_dir) == (0, 0.0, first.run_dir)


@pytest.mark.parametrize("layers", ["all", "last", "first"])
def test_words_stay_as_they_are(layers, tmp_path):
    task = checked_experiment(small_config(tmp_path), None).task
    method = TracIn(layers=layers)
    assert with_selections(method.identity(), method, task, tmp_path) == method.identity()


def test_a_selection_of_a_recipe_and_of_an_observer_is_resolved_too(tmp_path):
    from influence.diagnostics.confound_influence_difference import ConfoundInfluenceDifference
    from influence.recipes.influence_tuning import InfluenceTuning

    task = checked_experiment(small_config(tmp_path), None).task
    parts = (
        (InfluenceTuning(parameters=("conv[12]",)), "parameters"),
        (ConfoundInfluenceDifference(layers=("conv[12]",)), "layers"),
    )
    for part, option in parts:
        assert with_selections(part.identity(), part, task, tmp_path)[option] == ["conv1", "conv2"]


def test_patterns_for_a_model_of_somebody_else_stay_as_they_are_written(tmp_path, plugin):
    """Which names its network has is known only once it is built."""
    source = "from typing import ClassVar\nfrom tasks.models.text_cnn import TextCNN\n\nclass Mine(TextCNN):\n    name: ClassVar[str] = 'mine'\n"
    module = plugin("patterns_of_mine", source)
    model = with_model(name=f"{module}:Mine", freeze=["emb*"])
    config = small_config(tmp_path, plugins=[module], **model, **with_method({"name": "tracin", "layers": ["conv?"]}))
    arm = checked_experiment(config, None).main
    assert arm.model_identity["freeze"] == ["emb*"]
    assert arm.method_identity(config.methods["judged"])["layers"] == ["conv?"]


def test_how_products_are_computed_for_the_model_is_in_the_identity_of_influence_functions_only(tmp_path):
    arm = checked_experiment(small_config(tmp_path), None).main
    assert arm.method_identity(InfluenceFunction())["products"] == "by_layer"
    assert "products" not in arm.method_identity(TracIn())


def test_layers_are_taken_in_the_order_of_the_network(tmp_path):
    """A sum over layers must not round otherwise where the same patterns stand in another order."""
    from influence.layers import Layers

    layers = Layers({name: (name,) for name in ("embedding", "conv1", "linear")})
    assert layers.choose(["linear", "conv1"]) == layers.choose(["conv1", "linear"]) == ["conv1", "linear"]


def refit(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\nfrom orchestrator.cli import main\nsys.exit(main(sys.argv[1:]) or 100 * ('torch' in sys.modules))"
    )
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=root, capture_output=True, text=True, check=False
    )


def encoder_config(folder: Path, *freeze: str) -> Path:
    model = {"name": "encoder", "pretrained": str(folder / "bert"), "max_length": 16, "freeze": list(freeze)}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(options({"output": str(folder / "runs"), "task.model": model})))
    return path


def test_plan_refuses_a_pattern_that_matches_nothing(tmp_path):
    tiny_bert(tmp_path / "bert")
    planned = refit("plan", encoder_config(tmp_path, "bert.embeddings"))
    assert planned.returncode == 0, planned.stderr or "torch was imported"
    refused = refit("plan", encoder_config(tmp_path, "bert.embeddings", "bert.encodr.layer.0"))
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert "task.model.freeze: 'bert.encodr.layer.0' matches no parameter; close to it: bert.encoder.layer.0" in line


def test_plan_refuses_such_a_pattern_of_a_model_from_scratch_too(tmp_path):
    path = write_config(tmp_path, {"task.model": {**CONFIG["task"]["model"], "freeze": ["embeding"]}})
    refused = refit("plan", path)
    assert refused.returncode == 2
    assert "task.model.freeze: " in refused.stderr
    assert "'embeding' matches no parameter; close to it: embedding" in refused.stderr


def test_every_built_in_model_lists_the_parameters_of_its_network(tmp_path):
    task = checked_experiment(small_config(tmp_path), None).task
    task.prepare()
    built = [name for name, _ in task.network(0).named_parameters()]
    assert TextCNN().parameter_names() == built


def of_version_0_1(config: LoadedConfig) -> Path:
    """A run directory with the id that version 0.1 gave this config, whatever it was; that version recorded no plugins."""
    run_dir = run_here(config, until="train").run_dir
    path = run_dir / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["run"] = f"small-{'0' * 16}"
    del provenance["plugins"]
    path.write_text(json.dumps(provenance))
    return run_dir


EXACT = {"name": "influence_function", "parameters": "all", "solver": {"name": "exact", "damping": 0.1}}


@pytest.mark.parametrize("command", ["verify", "report"])
@pytest.mark.parametrize(
    "changes",
    [with_model(freeze=["conv*"]), with_method({"name": "tracin", "layers": ["conv*"]}), with_method(EXACT)],
    ids=["freeze", "layers", "exact"],
)
def test_a_run_of_an_older_version_whose_ids_have_changed_says_so(tmp_path, capsys, command, changes):
    assert main([command, str(of_version_0_1(small_config(tmp_path, **changes)))]) == 2
    said = capsys.readouterr().err
    assert "an older version made this run, in which patterns of names and the exact solver had other ids" in said
    assert "read it with that version, or run the config again" in said
    assert "--run-dir" not in said


def test_another_run_directory_is_asked_for_only_where_one_can_be_given(tmp_path, capsys):
    config = small_config(tmp_path)
    run_dir = of_version_0_1(config)
    assert main(["verify", str(run_dir)]) == 2
    said = capsys.readouterr().err
    assert "the data or the version of Refit differ" in said
    assert "--run-dir" not in said
    assert main(["plan", str(config.path), "--run-dir", str(run_dir)]) == 2
    assert "give another --run-dir" in capsys.readouterr().err
