"""cluster.yaml passes Ray's own schema, and is closed to strangers, bounded in cost and free of secrets."""

from __future__ import annotations

import re
import shlex
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError

PATH = Path(__file__).parents[1] / "cluster.yaml"
SECRET = re.compile(r"AKIA[0-9A-Z]{16}|[0-9a-f]{40}|PRIVATE KEY|RAY_AUTH_TOKEN=|aws_secret|password", re.IGNORECASE)


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load(PATH.read_text())


@pytest.fixture(scope="module")
def prepared(config):
    """What Ray makes of it: defaults of the provider filled in."""
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(deepcopy(config))


def starts(prepared, role):
    """The words of the `ray start` command of the head or of a worker, with the variables set before it."""
    commands = [c for c in prepared[f"{role}_start_ray_commands"] if "ray start" in c]
    assert len(commands) == 1
    return shlex.split(commands[0].replace(";", " ; "))


def test_ray_accepts_it(prepared):
    from ray.autoscaler._private.util import validate_config

    assert validate_config(prepared) is None  # raises on what the schema does not allow
    with pytest.raises(ValidationError):
        validate_config({**prepared, "max_worker": 1})


def test_ray_knows_every_flag(prepared):
    from ray.scripts.scripts import start

    known = {name for parameter in start.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for role in ("head", "worker"):
        words = starts(prepared, role)
        flags = {word.partition("=")[0] for word in words[words.index("start") :] if word.startswith("--")}
        assert flags <= known


@pytest.mark.parametrize("role", ["head", "worker"])
def test_every_node_asks_for_the_token(prepared, role):
    words = starts(prepared, role)
    assert words[:2] == ["export", "RAY_AUTH_MODE=token"]
    assert prepared["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in prepared["setup_commands"]


def test_the_dashboard_is_on_loopback_and_nothing_asks_for_every_interface(prepared):
    assert "--dashboard-host=127.0.0.1" in starts(prepared, "head")
    commands = prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"]
    assert not any("0.0.0.0" in command for command in commands)


def test_the_head_is_on_demand_and_schedules_nothing(prepared):
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_are_spot_with_a_gpu_bounded_and_gone_when_idle(prepared):
    [worker] = [node for name, node in prepared["available_node_types"].items() if name != prepared["head_node_type"]]
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert worker["resources"]["GPU"] == 1
    assert worker["min_workers"] == 0
    assert worker["max_workers"] <= prepared["max_workers"] <= 16
    assert 0 < prepared["idle_timeout_minutes"] <= 10
    assert prepared["provider"]["cache_stopped_nodes"] is False


def test_disks_are_encrypted_and_instance_credentials_need_a_session(prepared):
    for node in prepared["available_node_types"].values():
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["node_config"]["BlockDeviceMappings"])


def test_the_image_has_the_ray_that_is_installed_and_a_python_we_support(prepared):
    import ray

    assert prepared["docker"]["image"].startswith(f"rayproject/ray:{ray.__version__}-py311")


def test_no_secret_is_in_it():
    assert not SECRET.search(PATH.read_text())
