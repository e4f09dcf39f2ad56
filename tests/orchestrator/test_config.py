"""The config file: what is read, overridden, defaulted and refused."""

from __future__ import annotations

import pytest
import yaml

from orchestrator.config.load import dump_config, load_config, parse_config
from orchestrator.config.yaml_files import ConfigError, apply_overrides, read_yaml
from orchestrator.experiment.checks import checked_experiment
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import CONFIG, options, write_config

SECRET = "hunter2"


def load(tmp_path, overrides=(), **changes):
    path = write_config(tmp_path, {key.replace("__", "."): value for key, value in changes.items()})
    return load_config(path, overrides)


def test_every_block_is_parsed_by_the_class_it_names(tmp_path):
    config = load(tmp_path)
    assert (config.campaign.name, config.campaign.k, config.campaign.groups) == (
        "deletion",
        (2, 5),
        ("proponents", "opponents"),
    )
    assert config.measurement.name == "gold_probability"
    assert config.task.n_train == 40
    assert config.settings.queries.count == 3
    assert config.base_dir == tmp_path


def test_what_is_left_out_has_a_default(tmp_path):
    path = tmp_path / "c.yaml"
    kept = ("name", "campaign", "task", "queries", "methods")
    path.write_text(yaml.safe_dump({**{key: CONFIG[key] for key in kept}, "deletion": {"k": [1]}}))
    settings = load_config(path).settings
    assert (settings.measurement, settings.output, settings.plugins) == ("gold_probability", "runs", [])
    assert (settings.repeats.count, settings.repeats.base_seed) == (10, 2021)
    assert (settings.scores.models, settings.scores.checkpoints) == (1, None)
    assert (settings.compute.workers, settings.compute.retries, settings.compute.timeout_s) == (2, 2, None)
    assert settings.tracking is not None
    assert settings.tracking.uri == "sqlite:///runs/mlflow.db"
    assert load_config(path).campaign.mode == "mask"


def test_the_campaigns_block_is_the_one_named_after_it(tmp_path):
    path = write_config(tmp_path)
    raw = yaml.safe_load(path.read_text())
    del raw["deletion"]
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(InputError, match=r"deletion\.k: is missing"):
        load_config(path)
    path.write_text(yaml.safe_dump({**raw, "deletion": {"k": [1]}, "loo": {}}))
    with pytest.raises(InputError, match="unknown key 'loo'"):
        load_config(path)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.001", "+1e-3", "1.e-3", "10e-4"])
def test_numbers_with_an_exponent_are_numbers(tmp_path, text):
    config = load(tmp_path, [f"task.recipe.learning_rate={text}"])
    assert config.settings.task["recipe"]["learning_rate"] == 0.001
    path = write_config(tmp_path)
    path.write_text(path.read_text().replace("learning_rate: 0.05", f"learning_rate: {text}"))
    assert load_config(path).settings.task["recipe"]["learning_rate"] == 0.001


@pytest.mark.parametrize("text", ["'5'", '"5"', "five", "true", "[5]", "{a: 5}"])
def test_no_text_becomes_a_number(tmp_path, text):
    with pytest.raises(InputError, match=r"config.yaml: repeats\.count"):
        load(tmp_path, [f"repeats.count={text}"])


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("name=other", ("name",), "other"),
        ("deletion.k=[3, 4]", ("deletion", "k"), [3, 4]),
        ("deletion.k.1=9", ("deletion", "k"), [2, 9]),
        ("methods.2.name=tfidf", ("methods", 2, "name"), "tfidf"),
        ("tracking={uri: 'sqlite:///a.db'}", ("tracking", "uri"), "sqlite:///a.db"),
        ("compute.timeout_s=null", ("compute", "timeout_s"), None),
        ("task.model.kernel=1", ("task", "model", "kernel"), 1),
        ("output=a=b", ("output",), "a=b"),
        ("queries.where.correct=false", ("queries", "where"), {"correct": False}),
    ],
)
def test_overrides_reach_any_depth(tmp_path, override, where, value):
    found = apply_overrides(options(), [override], tmp_path)
    for key in where:
        found = found[key]
    assert found == value


def test_overrides_apply_in_order_and_leave_the_original_alone(tmp_path):
    raw = options()
    found = apply_overrides(raw, ["deletion={k: [1]}", "deletion.k.0=7", "deletion.k.0=8"], tmp_path)
    assert found["deletion"] == {"k": [8]}
    assert raw == options()


def test_overrides_are_validated_like_the_file(tmp_path):
    with pytest.raises(InputError, match=r"deletion\.k\.0"):
        load(tmp_path, ["deletion.k=[0]"])
    with pytest.raises(InputError, match="unknown key 'colour'"):
        load(tmp_path, ["compute.colour=red"])
    with pytest.raises(ConfigError, match=r"--set name\.first"):
        load(tmp_path, ["name.first=a"])
    with pytest.raises(ConfigError, match="'3' is not a position in a list of 3"):
        load(tmp_path, ["methods.3.name=tfidf"])


# --- labels --------------------------------------------------------------------------------------------------------


def test_labels_are_names_or_as_in_the_configs_order(tmp_path):
    methods = [{"name": "tracin_last", "as": "b"}, {"name": "random"}, {"name": "tracin_last"}]
    config = load(tmp_path, methods=methods)
    assert list(config.methods) == ["b", "random", "tracin_last"]
    assert [m.name for m in config.methods.values()] == ["tracin_last", "random", "tracin_last"]
    assert config.methods["b"] == config.methods["tracin_last"], "a label is no option"


@pytest.mark.parametrize(
    ("methods", "named"),
    [
        ([{"name": "random"}, {"name": "random"}], r"methods\[1\]: duplicate label 'random'"),
        ([{"name": "tfidf", "as": "tracin_last"}, {"name": "tracin_last"}], r"methods\[1\]: duplicate label"),
        ([{"name": "tracin_last", "as": "random"}], r"methods\[0\]\.as: 'random'"),
        ([{"name": "random", "as": "../x"}], r"methods\[0\]\.as: '\.\./x'"),
        ([{"name": "random", "as": ""}], r"methods\[0\]\.as"),
        ([{"name": "random", "as": 3}], r"methods\[0\]\.as: 3"),
        ([{"name": "random", "as": "a b"}], r"methods\[0\]\.as"),
    ],
)
def test_labels_that_cannot_be_are_refused(tmp_path, methods, named):
    with pytest.raises(InputError, match=named):
        load(tmp_path, methods=methods)


# --- dump ----------------------------------------------------------------------------------------------------------


def opened(config):
    return checked_experiment(config, None)


def test_a_dumped_config_is_the_same_campaign_with_its_defaults_written_out(tmp_path):
    methods = [{"name": "tracin_last", "as": "b"}, {"name": "random"}]
    config = load(tmp_path, ["deletion.k=[3]", "task.recipe.learning_rate=1e-7"], methods=methods)
    text = dump_config(config, opened(config).task)
    path = tmp_path / "dumped.yaml"
    path.write_text(text, encoding="utf-8")
    again = parse_config(read_yaml(path), config.path)
    assert again.campaign == config.campaign
    assert again.methods == config.methods
    assert list(again.methods) == ["b", "random"]
    assert again.measurement == config.measurement
    assert opened(again).run_hex == opened(config).run_hex
    assert dump_config(again, opened(again).task) == text
    written = yaml.safe_load(text)
    assert written["compute"]["preemptions"] == 20
    assert written["task"]["recipe"]["learning_rate"] == 1e-7
    assert written["task"]["recipe"]["weight_decay"] == 0.0


# --- plugins -------------------------------------------------------------------------------------------------------

OWN_METHOD = """
from influence.base import Method
class Own(Method):
    name = "own"
    strength: float = 1.0
"""


def with_own_method(name, **more):
    return {"methods": [{"name": name, "as": "own", **more}, {"name": "random"}]}


def test_a_class_of_a_listed_module_is_loaded(tmp_path, plugin):
    module = plugin("plugin_own_method", OWN_METHOD)
    config = load(tmp_path, plugins=[module], **with_own_method(f"{module}:Own", strength=0.5))
    assert config.methods["own"].strength == 0.5
    with pytest.raises(InputError, match=r"methods\[0\].*strenght"):
        load(tmp_path, plugins=[module], **with_own_method(f"{module}:Own", strenght=0.5))


def test_nothing_is_imported_that_the_config_does_not_list(tmp_path, plugin):
    module = plugin("plugin_not_listed", "raise SystemExit('imported')\n")
    with pytest.raises(InputError, match="not listed under plugins"):
        load(tmp_path, **with_own_method(f"{module}:Own"))
    with pytest.raises(InputError, match="not listed under plugins"):
        load(tmp_path, plugins=["os"], **with_own_method(f"{module}:Own"))


@pytest.mark.parametrize(
    ("source", "attribute"),
    [
        (OWN_METHOD, "Missing"),
        ("import a_module_that_is_not_there\n", "Own"),
        ("def Own(:\n", "Own"),
        ("1 / 0\n", "Own"),
        ("Own = 3\n", "Own"),
        ("class Own:\n    pass\n", "Own"),
        ("from tasks.recipes.finetune import Finetune as Own\n", "Own"),  # a component of another kind
    ],
    ids=["no such class", "import fails", "syntax error", "raises", "no class", "no component", "no method"],
)
def test_a_plugin_that_cannot_be_used_is_bad_input(tmp_path, plugin, source, attribute):
    module = plugin("plugin_unusable", source)
    with pytest.raises(InputError, match=r"config.yaml: methods\[0\]"):
        load(tmp_path, plugins=[module], **with_own_method(f"{module}:{attribute}"))


# --- secrets -------------------------------------------------------------------------------------------------------

URI = f"postgresql://me:{SECRET}@host/db"


@pytest.mark.parametrize(
    "changes",
    [
        {"tracking": {"uri": URI}},
        {"tracking": {"uri": f"https://me:{SECRET}@host"}},
        {"tracking": {"uri": f"https://host/?token={SECRET}"}},
        {"tracking": URI},
        {"output": f"s3://key:{SECRET}@bucket/x"},
        {"name": URI},
        {"campaign": URI},
        {"repeats": {"count": URI}},
        {"methods": [{"name": "scores_file", "path": URI, "axes": "query_train", "orientation": "helpful_positive"}]},
        {"methods": [{"name": URI}]},
        {"task__model": {"name": "text_cnn", "filters": URI}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_password_in_a_uri_is_refused_and_never_repeated(tmp_path, changes):
    with pytest.raises(InputError) as refused:
        load(tmp_path, **changes)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("override", [f"tracking.uri={URI}", f"output=s3://key:{SECRET}@bucket/x", f"name={URI}", URI])
def test_neither_is_one_given_by_set(tmp_path, override):
    with pytest.raises(InputError) as refused:
        load(tmp_path, [override], tracking={"uri": "sqlite:///a.db"})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["repeats={min: 3, max: 10}"], "repeats"),
        (["repeats={min: 3, max: 10, target_se: 0.01, count: 4}"], "repeats"),
        (["repeats={min: 11, max: 10, target_se: 0.01}"], "repeats"),
        (["repeats={min: 2, max: 10, target_se: 0.01}"], r"repeats\.min"),
        (["repeats={min: 3, max: 10, target_se: 0}"], r"repeats\.target_se"),
        (["compute.device=cuda"], "compute"),
        (["compute.market.tail=cheap"], r"compute\.market\.tail"),
        (["compute.micro_batch=-1"], r"compute\.micro_batch"),
        (["compute.idle_s=-1"], r"compute\.idle_s"),
    ],
)
def test_bad_repeats_and_compute_are_refused_by_key(tmp_path, overrides, key):
    with pytest.raises(InputError, match=rf"config.yaml: {key}:"):
        load(tmp_path, overrides)


def test_adaptive_repeats_have_the_seeds_of_as_many_fixed_ones(tmp_path):
    adaptive = load(tmp_path, ["repeats={min: 3, max: 6, target_se: 0.01}"]).settings.repeats
    assert (adaptive.is_adaptive, adaptive.most, adaptive.base_seed) == (True, 6, 2021)
    assert load(tmp_path).settings.repeats.is_adaptive is False


@pytest.mark.parametrize(
    ("block", "device"),
    [("{}", "cpu"), ("{gpus_per_worker: 0.5}", "cuda"), ("{gpus_per_worker: 1, device: cpu}", "cpu")],
)
def test_retrains_run_on_a_gpu_where_workers_have_one_unless_told_otherwise(tmp_path, block, device):
    assert load(tmp_path, [f"compute={block}"]).settings.compute.trains_on == device


def test_the_date_of_prices_needs_no_quotes(tmp_path):
    prices = load(tmp_path, ["prices={date: 2026-11-01, per_hour: {default: 1.5}}"]).settings.prices
    assert prices.table().date == "2026-11-01"
    with pytest.raises(InputError, match=r"config.yaml: prices\.date"):
        load(tmp_path, ["prices={date: 2026-13-01, per_hour: {default: 1.5}}"])
