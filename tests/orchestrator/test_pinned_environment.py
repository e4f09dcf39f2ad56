"""A campaign goes on only under the environment it was begun under; one that recorded none goes on as before."""

import json

import pytest
from tiny_campaign import run_here, small_config

from orchestrator import cli
from orchestrator.runtime.environment import CPU_VARIABLES, NUMPY_VARIABLES


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run directory and its config, begun with nothing set."""
    for name in (*CPU_VARIABLES, *NUMPY_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    config = small_config(tmp_path, repeats__count=1, deletion__k=[2])
    return config, run_here(config).run_dir


@pytest.mark.parametrize("name", ["MKL_CBWR", "ATEN_CPU_CAPABILITY", "OPENBLAS_CORETYPE"])
def test_a_run_is_not_resumed_under_another_environment(begun, name, monkeypatch, capsys):
    config, run_dir = begun
    monkeypatch.setenv(name, "AVX2")
    capsys.readouterr()
    for command in (["run", str(config.path), "--address", "local", "--yes"], ["plan", str(config.path)]):
        assert cli.main(command) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert f"{name} was not set and is 'AVX2'" in told
        assert str(run_dir / "provenance.json") in told
    assert cli.main(["report", str(run_dir)]) == 0, "to read a run, the numerics of this machine do not matter"
    monkeypatch.delenv(name)
    assert run_here(config).report.retrained == 0


def test_a_run_of_before_goes_on_and_is_recorded_from_then_on(begun, monkeypatch):
    """Its provenance says nothing of numpy's environment, so nothing can be said to differ."""
    config, run_dir = begun
    path = run_dir / "provenance.json"
    provenance = json.loads(path.read_text())
    assert provenance.pop("numpy_environment") == {}
    assert "environment" not in provenance["numerics"]
    path.write_text(json.dumps(provenance))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert run_here(config).report.retrained == 0
    assert json.loads(path.read_text())["numpy_environment"] == {"OPENBLAS_CORETYPE": "Haswell"}
