"""A campaign with length groups: pinned in its numerics, verified to the bit, refused for recipes that take their batches whole."""

import json

import pytest
import yaml
from small_campaigns import LOO
from tiny_campaign import run_here, small_config

from orchestrator import cli


def test_length_groups_are_pinned_and_a_rerun_gives_the_same_bytes(tmp_path, capsys):
    config = small_config(tmp_path, repeats__count=1, deletion__k=[2], compute__length_group_cost=8)
    run_dir = run_here(config).run_dir
    assert json.loads((run_dir / "provenance.json").read_text())["numerics"]["length_group_cost"] == 8
    assert cli.main(["verify", str(run_dir), "--rerun", "2"]) == 0
    for cost in (0, 16):
        capsys.readouterr()
        options = ["--set", f"compute.length_group_cost={cost}", "--address", "local", "--yes"]
        assert cli.main(["run", str(config.path), *options]) == 2
        assert f"length_group_cost was 8 and is {cost}" in capsys.readouterr().err.splitlines()[-1]
    assert run_here(config).report.retrained == 0


@pytest.mark.parametrize(
    ("cost", "problem"),
    [
        ("8", "8: recipe 'dec' cannot split its batches; allowed: 0"),
        ("-1", "greater than or equal to 0"),
        (str(10**9 + 1), "less than or equal to 1000000000"),
    ],
)
def test_plan_refuses_length_groups_for_whole_batches_and_a_cost_out_of_range(cost, problem, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**LOO, "output": str(tmp_path / "runs")}))
    assert cli.main(["plan", str(path), "--set", f"compute.length_group_cost={cost}"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"refit: {path}")
    assert "compute.length_group_cost: " in told
    assert problem in told
