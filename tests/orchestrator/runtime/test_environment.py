"""Environment variables that change bits are part of the numerics: recorded where set, refused where they differ."""

from dataclasses import replace

import pytest
import torch

from orchestrator.runtime import worker
from orchestrator.runtime.environment import (
    CPU_VARIABLES,
    CUDA_VARIABLES,
    NUMPY_VARIABLES,
    THREAD_VARIABLES,
    differences,
    numpy_settings,
    settings,
)
from orchestrator.runtime.machine import cpu_numerics
from tasks.base import Numerics
from tasks.digests import digest
from tasks.errors import RefitError
from tasks.training import deterministic

EVERYTHING = (*CPU_VARIABLES, *THREAD_VARIABLES, *CUDA_VARIABLES, *NUMPY_VARIABLES)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in EVERYTHING:
        monkeypatch.delenv(name, raising=False)


def test_identities_are_what_they_were_where_nothing_is_set():
    """The digest is the one of the version that knew no environment: existing stores go on."""
    numerics = Numerics(device_model="AMD EPYC", torch="2.8.0")
    assert numerics.identity() == {
        **{"device": "cpu", "device_model": "AMD EPYC", "dtype": "float32", "threads": 1, "stack": 1},
        **{"micro_batch": 0, "compile": False, "torch": "2.8.0"},
    }
    assert digest(numerics.identity()) == "a3378af6b96244a70f0a568a19ca3e5f"
    assert cpu_numerics(1).environment == ()


@pytest.mark.parametrize("name", CPU_VARIABLES)
def test_a_variable_that_is_set_is_another_identity(name, monkeypatch):
    before = cpu_numerics(1)
    monkeypatch.setenv(name, "AVX2")
    now = cpu_numerics(1)
    assert now.identity() == {**before.identity(), "environment": {name: "AVX2"}}
    assert Numerics(**now.identity()) == now, "what provenance.json holds reads back as the same"
    assert hash(now) != hash(before)
    monkeypatch.setenv(name, " ")
    assert cpu_numerics(1) == before


def test_variables_count_only_where_they_can_matter():
    found = dict.fromkeys(EVERYTHING, "1")
    assert {name for name, _ in settings("cpu", 1, found)} == set(CPU_VARIABLES)
    assert {name for name, _ in settings("cpu", 2, found)} == {*CPU_VARIABLES, *THREAD_VARIABLES}
    assert {name for name, _ in settings("cuda", 1, found)} == {*CPU_VARIABLES, *CUDA_VARIABLES}
    assert {name for name, _ in numpy_settings(found)} == set(NUMPY_VARIABLES)
    assert settings("cuda", 1, {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}) == (), "what every worker sets itself"
    assert settings("cuda", 1, {"CUBLAS_WORKSPACE_CONFIG": ":16:8"}) == (("CUBLAS_WORKSPACE_CONFIG", ":16:8"),)


def test_differences_are_named_with_both_values():
    before, now = {"MKL_CBWR": "AVX2", "A": "1"}, {"A": "1", "OMP_DYNAMIC": "true"}
    assert differences(before, now) == "MKL_CBWR was 'AVX2' and is not set, OMP_DYNAMIC was not set and is 'true'"
    assert differences(before, dict(before)) == ""


def test_a_worker_in_another_environment_is_refused_and_a_probe_says_what_is_here(monkeypatch):
    pinned = worker.resolve_numerics(Numerics())
    worker.check_numerics(pinned)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    with pytest.raises(RefitError, match="of this worker are not those of the run: MKL_CBWR was not set and is 'COMPA"):
        worker.check_numerics(pinned)
    here = worker.resolve_numerics(pinned)
    assert here == replace(pinned, environment=(("MKL_CBWR", "COMPATIBLE"),))
    worker.check_numerics(here)
    worker.check_numerics(Numerics())  # nothing is pinned before the probe


def test_what_code_may_have_switched_off_is_switched_on_before_a_training():
    torch.backends.mkldnn.enabled = False
    try:
        deterministic(Numerics())
        assert torch.backends.mkldnn.enabled
    finally:
        torch.backends.mkldnn.enabled = True
