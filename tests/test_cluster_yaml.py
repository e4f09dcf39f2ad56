"""cluster.yaml passes Ray's own schema, launches what a campaign asks for, and is closed to strangers, bounded in cost and free of secrets."""

from __future__ import annotations

import re
import shlex
import subprocess
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError

from orchestrator import api, cli
from orchestrator.runtime import placement

ROOT = Path(__file__).parents[1]
PATH = ROOT / "cluster.yaml"
GUIDE = ROOT / "docs" / "cluster.md"
SPOT = ROOT / "configs" / "deletion" / "agnews_spot.yaml"
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|\b[0-9a-f]{32,}\b|PRIVATE KEY|RAY_AUTH_TOKEN\b|aws_secret|password", re.IGNORECASE
)
TOKEN = "/home/ray/refit-token/auth_token"
MARKET, ACCELERATOR = "ray.io/market-type", "ray.io/accelerator-type"
ACCELERATORS = {"g5": "A10G", "g6": "L4", "g2-standard": "L4"}  # by machine family, as Ray calls them
VCPUS = {"xlarge": 4, "2xlarge": 8, "4": 4, "8": 8}


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load(PATH.read_text())


@pytest.fixture(scope="module")
def prepared(config):
    """What Ray makes of it: defaults of the provider filled in."""
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(deepcopy(config))


@pytest.fixture(scope="module")
def gcp(config):
    """cluster.yaml with the blocks that docs/cluster.md gives for GCP."""
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "type: gcp" in text]
    changes = yaml.safe_load(block)
    return {**config, **changes, "docker": {**config["docker"], **changes["docker"]}}


def workers(prepared):
    return {name: node for name, node in prepared["available_node_types"].items() if name != prepared["head_node_type"]}


def starts(prepared, role):
    """The words of the `ray start` command of the head or of a worker, with the variables set before it."""
    commands = [c for c in prepared[f"{role}_start_ray_commands"] if "ray start" in c]
    assert len(commands) == 1
    return shlex.split(commands[0].replace(";", " ; "))


def launched(prepared, demands, failed=()):
    """What Ray's autoscaler would launch: node type -> count. `demands`: (resources, labels); `failed`: types that could not be had."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    operator = LabelSelectorOperator.LABEL_OPERATOR_IN
    requests = [
        ResourceRequestUtil.make(
            resources, label_selectors=[[(key, operator, [value]) for key, value in labels.items()]]
        )
        for resources, labels in demands
    ]
    configs = AutoscalingConfig(deepcopy(prepared), skip_content_hash=True)
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=configs.get_node_type_configs(),
            max_num_nodes=configs.get_max_num_worker_nodes(),  # no head among the nodes here
            resource_requests=ResourceRequestUtil.group_by_count(requests),
            recoverable_resource_availabilities=dict.fromkeys(failed, 0.0),
        )
    )
    return {request.instance_type: request.count for request in reply.to_launch}


def worker_on(**labels):
    return {"CPU": 1.0, "GPU": 1.0}, {f"ray.io/{key.replace('_', '-')}": value for key, value in labels.items()}


# --- Ray's own code ------------------------------------------------------------------------------------------------


def test_ray_accepts_it(prepared):
    from ray.autoscaler._private.util import validate_config

    assert validate_config(prepared) is None  # raises on what the schema does not allow
    with pytest.raises(ValidationError):
        validate_config({**prepared, "max_worker": 1})


def test_ray_accepts_what_the_guide_gives_for_gcp(gcp):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(deepcopy(gcp))
    assert validate_config(prepared) is None
    for name, node in workers(prepared).items():
        family, _, size = node["node_config"]["machineType"].rpartition("-")
        assert node["labels"][ACCELERATOR] == ACCELERATORS[family]
        assert node["resources"]["CPU"] <= VCPUS[size]
        is_spot = any(block.get("provisioningModel") == "SPOT" for block in node["node_config"]["scheduling"])
        assert node["labels"][MARKET] == ("spot" if is_spot else "on-demand"), name


def test_ray_knows_every_flag(prepared):
    from ray.scripts.scripts import start

    known = {name for parameter in start.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for role in ("head", "worker"):
        words = starts(prepared, role)
        flags = {word.partition("=")[0] for word in words[words.index("start") :] if word.startswith("--")}
        assert flags <= known


def test_the_shell_can_read_every_command(prepared):
    for key in ("setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        for command in prepared[key]:
            assert subprocess.run(["bash", "-n", "-c", f"( {command} )"]).returncode == 0, command


# --- what is launched ----------------------------------------------------------------------------------------------


def test_labels_are_what_refit_and_ray_call_these_things():
    from ray.util.accelerators import accelerators as names

    assert {"A10G", "L4"} <= {value for name, value in vars(names).items() if name.startswith("NVIDIA")}
    assert (MARKET, ACCELERATOR) == (placement.MARKET, placement.ACCELERATOR)


def test_labels_say_what_the_machines_are(prepared):
    for name, node in workers(prepared).items():
        family, _, size = node["node_config"]["InstanceType"].partition(".")
        assert node["labels"][ACCELERATOR] == ACCELERATORS[family]
        assert node["resources"]["CPU"] <= VCPUS[size]
        is_spot = node["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}
        assert node["labels"][MARKET] == ("spot" if is_spot else "on-demand")
        assert name == f"{node['node_config']['InstanceType']}-{node['labels'][MARKET]}"


def test_every_accelerator_has_several_spot_types_and_one_on_demand(prepared):
    kinds = [(node["labels"][ACCELERATOR], node["labels"][MARKET]) for node in workers(prepared).values()]
    for accelerator in {accelerator for accelerator, _ in kinds}:
        assert kinds.count((accelerator, "spot")) >= 2
        assert kinds.count((accelerator, "on-demand")) == 1


@pytest.mark.parametrize("accelerator", ["A10G", "L4"])
@pytest.mark.parametrize("market", ["spot", "on-demand"])
def test_a_campaign_gets_the_accelerator_and_the_market_it_asks_for(prepared, accelerator, market):
    counts = launched(prepared, [worker_on(accelerator_type=accelerator, market_type=market)] * 3)
    assert sum(counts.values()) == 3
    for name in counts:
        assert prepared["available_node_types"][name]["labels"] == {ACCELERATOR: accelerator, MARKET: market}


def test_a_size_that_cannot_be_had_is_replaced_by_another_of_the_same_accelerator(prepared):
    demand = [worker_on(accelerator_type="A10G", market_type="spot")] * 2
    assert launched(prepared, demand, failed=["g5.xlarge-spot"]) == {"g5.2xlarge-spot": 2}
    assert launched(prepared, demand, failed=["g5.2xlarge-spot"]) == {"g5.xlarge-spot": 2}


def test_spot_comes_before_on_demand_where_a_campaign_says_neither(prepared):
    [name] = launched(prepared, [worker_on(accelerator_type="L4")])
    assert prepared["available_node_types"][name]["labels"][MARKET] == "spot"


def test_four_workers_of_a_quarter_gpu_share_a_machine(prepared):
    quarter = {"CPU": 1.0, "GPU": 0.25}, worker_on(accelerator_type="A10G")[1]
    assert sum(launched(prepared, [quarter] * 8).values()) == 2


def test_the_bill_is_bounded_whatever_is_asked_for(prepared):
    counts = launched(prepared, [worker_on(accelerator_type="A10G")] * 500 + [worker_on(accelerator_type="L4")] * 500)
    assert sum(counts.values()) == prepared["max_workers"] <= 16


def test_what_no_machine_offers_launches_nothing(prepared):
    assert launched(prepared, [worker_on(accelerator_type="H100"), ({"GPU": 2.0}, {})]) == {}


def test_nodes_go_when_idle_and_none_is_kept(prepared):
    assert 0 < prepared["idle_timeout_minutes"] <= 10
    for node in workers(prepared).values():
        assert node["min_workers"] == 0
        assert 0 < node["max_workers"] <= prepared["max_workers"]
        assert (
            60 < node["idle_timeout_s"] <= 300
        )  # above compute.idle_s, or a node would go while a worker waits for work
    assert sum(node["max_workers"] for node in workers(prepared).values()) >= prepared["max_workers"]
    assert prepared["provider"]["cache_stopped_nodes"] is False


def test_the_head_is_on_demand_and_schedules_nothing(prepared):
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert {"--num-cpus=0", "--num-gpus=0"} <= set(starts(prepared, "head"))


# --- who gets in ---------------------------------------------------------------------------------------------------


def test_every_command_that_starts_something_asks_for_the_token(prepared):
    commands = prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"]
    starting = [command for command in commands if command != "ray stop"]
    assert len(starting) == 3
    for command in starting:
        words = shlex.split(command.replace(";", " ; "))
        assert words[0] == "export"
        assert "RAY_AUTH_MODE=token" in words[: words.index(";")]
    assert "-e RAY_AUTH_MODE=token" in prepared["docker"]["run_options"]


def test_the_token_is_a_file_of_its_own_that_only_its_owner_reads(prepared):
    [(remote, local)] = [item for item in prepared["file_mounts"].items() if "token" in item[0]]
    assert f"{remote.replace('~', '/home/ray')}/auth_token" == TOKEN
    assert f"-e RAY_AUTH_TOKEN_PATH={TOKEN}" in prepared["docker"]["run_options"]
    assert local.startswith("~/")  # outside the repository
    assert f"test -s {remote}/auth_token && chmod 600 {remote}/auth_token" in prepared["setup_commands"]


def test_only_folders_are_mounted(prepared):
    """A file mounted into a container stays the old one when it is replaced."""
    mounts = prepared["file_mounts"]
    assert {remote: local for remote, local in mounts.items() if not local.startswith("~")} == {"~/refit": "."}
    assert all(not Path(local).suffix and not local.endswith("auth_token") for local in mounts.values())
    assert {".git", ".venv", "runs", ".env*", "*.pem", "*.key"} <= set(prepared["rsync_exclude"])
    assert (ROOT / ".gitignore").is_file()
    assert prepared["rsync_filter"] == [".gitignore"]


def test_the_dashboard_is_on_loopback_and_nothing_asks_for_every_interface(prepared):
    words = starts(prepared, "head")
    assert "--dashboard-host=127.0.0.1" in words
    commands = prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"]
    assert not any("0.0.0.0" in command for command in commands)


def test_no_rule_lets_strangers_in(prepared, gcp):
    assert prepared["provider"]["security_group"] == {
        "GroupName": "refit-cluster"
    }  # its rules are made by hand: docs/cluster.md
    for node in prepared["available_node_types"].values():
        assert not {"SecurityGroupIds", "NetworkInterfaces"} & node["node_config"].keys()
    assert not re.search(r"0\.0\.0\.0/0|::/0", PATH.read_text() + yaml.safe_dump(gcp))


def test_machines_have_roles_of_their_own_encrypted_disks_and_credentials_that_need_a_session(prepared):
    for name, node in prepared["available_node_types"].items():
        role = "refit-head" if name == prepared["head_node_type"] else "refit-worker"
        assert node["node_config"]["IamInstanceProfile"] == {"Name": role}
        assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        assert all(disk["Ebs"]["Encrypted"] for disk in node["node_config"]["BlockDeviceMappings"])


def test_the_image_has_the_ray_that_is_installed_and_a_python_we_support(prepared):
    import ray

    assert prepared["docker"]["image"].startswith(f"rayproject/ray:{ray.__version__}-py311")


def test_every_worker_watches_for_the_notice(prepared):
    [watch] = [command for command in prepared["worker_start_ray_commands"] if "spot_watch" in command]
    [script] = [word for word in shlex.split(watch) if word.endswith("spot_watch.py")]
    assert (ROOT / script.removeprefix("~/refit/")).is_file()
    assert watch.rstrip().endswith("&")


def test_no_secret_is_in_it():
    assert not SECRET.search(PATH.read_text().replace("RAY_AUTH_TOKEN_PATH", ""))


# --- the campaign of docs/cluster.md -----------------------------------------------------------------------------------


def test_the_campaign_of_the_guide_is_the_config_it_names_and_its_commands_are_accepted(prepared):
    text = GUIDE.read_text()
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "prices:" in text]
    shown, written = yaml.safe_load(block), yaml.safe_load(SPOT.read_text())
    assert {key: written[key] for key in shown} == shown
    command = re.search(r"refit run (\S+) (--address.*)", text)
    assert command is not None
    assert command[1] == f"/home/ray/refit/{SPOT.relative_to(ROOT)}"
    options = cli._parser().parse_args(["run", str(SPOT), *shlex.split(command[2])])
    config = api.load_config(options.config, options.overrides)
    limits, prices = api.limits_of(config, options.max_gpu_hours, options.max_cost, options.deadline)
    assert (limits.max_cost, prices is not None) == (40.0, True)


def test_the_campaign_of_the_guide_finds_machines_and_their_prices(prepared):
    config = api.load_config(SPOT).settings
    assert config.compute.workers <= prepared["max_workers"]
    assert config.prices is not None
    assert config.prices.per_hour.keys() - {"default"} <= prepared["available_node_types"].keys()
    for market in {*config.compute.market.model_dump().values()}:
        labels = {ACCELERATOR: config.compute.accelerator, MARKET: market}
        [launch] = launched(prepared, [({"CPU": 1, "GPU": 1}, labels)]).items()
        assert launch[0] in config.prices.per_hour
