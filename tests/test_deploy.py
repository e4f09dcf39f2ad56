"""deploy/: the image is pinned, without root and without secrets; the policies allow what the cluster needs and no more."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from pathlib import Path

import pytest
import ray
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())

# --- the image -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments)."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def copied(instructions) -> list[str]:
    """What is copied out of the build context."""
    words = [[w for w in shlex.split(rest) if not w.startswith("--")] for name, rest in instructions if name == "COPY"]
    return [source for copy in words for source in copy[:-1]]


def test_the_base_is_pinned_to_the_ray_that_is_installed_and_the_image_of_cluster_yaml(instructions):
    [base] = [rest for name, rest in instructions if name == "FROM"]
    assert base == f"rayproject/ray:{ray.__version__}-py311-cpu"
    assert base == CLUSTER["docker"]["image"]


def test_the_image_runs_as_a_user_and_never_as_root(instructions):
    users = [rest for name, rest in instructions if name == "USER"]
    assert users == ["ray"]
    assert [name for name, _ in instructions].index("USER") < [name for name, _ in instructions].index("RUN")
    assert not any("sudo" in rest for _, rest in instructions)


def test_nothing_secret_and_nothing_from_elsewhere_gets_into_the_image(instructions):
    assert {name for name, _ in instructions} == {"FROM", "ENV", "USER", "RUN", "WORKDIR", "COPY"}  # no ADD, no ARG
    for name, rest in instructions:
        if name == "ENV":
            settings = dict(word.split("=", 1) for word in shlex.split(rest))
            assert not [key for key in settings if re.search("TOKEN|SECRET|PASSWORD|KEY|CREDENTIAL", key)]
            assert settings["RAY_AUTH_MODE"] == "token"
            assert settings["PIP_NO_CACHE_DIR"] == "1"
        assert not re.search(r"\.ssh|\.aws|auth_token|https?://", rest)


def test_what_is_copied_exists_and_is_let_into_the_build(instructions):
    allowed = {
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    sources = copied(instructions)
    assert set(sources) == allowed
    assert all((ROOT / source).exists() for source in sources)
    assert "*" in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()


def test_every_installation_keeps_to_the_constraints_and_the_command_is_tried(instructions):
    installs = [rest for name, rest in instructions if name == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in rest for rest in installs)
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert f'torch=={pins["torch"]} "ray[default]=={pins["ray"]}"' in installs[0]
    assert "refit --help" in installs[1]


# --- the policies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["head-policy.json", "store-policy.json"])
def test_policies_allow_named_actions_only(name):
    policy = json.loads((DEPLOY / "aws" / name).read_text())
    for statement in policy["Statement"]:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        assert not [action for action in actions if "*" in action]
        if statement["Resource"] == "*":  # what cannot be narrowed: reading
            assert all(action.startswith("ec2:Describe") for action in actions)


def test_the_head_may_start_the_types_of_cluster_yaml_and_give_them_the_role_of_workers():
    statements = {s["Sid"]: s for s in json.loads((DEPLOY / "aws" / "head-policy.json").read_text())["Statement"]}
    patterns = statements["StartWorkersOfTheseTypes"]["Condition"]["StringLike"]["ec2:InstanceType"]
    for name, node in CLUSTER["available_node_types"].items():
        if name != CLUSTER["head_node_type"]:
            assert any(fnmatch.fnmatch(node["node_config"]["InstanceType"], pattern) for pattern in patterns)
            assert statements["GiveWorkersTheirRole"]["Resource"].endswith(
                f"role/{node['node_config']['IamInstanceProfile']['Name']}"
            )
    owned = statements["TagAndStopItsOwn"]["Condition"]["StringEquals"]
    assert owned == {"aws:ResourceTag/ray-cluster-name": CLUSTER["cluster_name"]}
