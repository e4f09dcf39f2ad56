"""Environment variables that change bits of a result on the same machine; found without importing torch.

docs/decisions/0034-environment-in-numerics.md lists them with the measured differences.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

# These choose the CPU instructions that torch uses, and thereby the order of summation.
CPU_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
)
# These choose how many threads share a sum, so they do not matter to a worker with one thread.
THREAD_VARIABLES = ("KMP_DETERMINISTIC_REDUCTION", "MKL_DYNAMIC", "OMP_DYNAMIC", "OMP_THREAD_LIMIT")
CUDA_VARIABLES = (
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATION_STRATEGY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DISABLE_ADDMM_CUDA_LT",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_BLAS_PREFER_CUBLASLT",
)
# Only numpy and scipy read these. No measured training depends on them, so they are not part of a spec; a run still
# refuses to resume when their values have changed.
NUMPY_VARIABLES = ("NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "OPENBLAS_CORETYPE")
USUAL = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # the value that every worker sets by default

Settings = tuple[tuple[str, str], ...]


def settings(device: str, threads: int, environment: Mapping[str, str] | None = None) -> Settings:
    """Return (name, value) of the set variables that change bits of a training, sorted; usually there are none."""
    names = [*CPU_VARIABLES]
    names += THREAD_VARIABLES if threads > 1 else ()
    names += CUDA_VARIABLES if device.startswith("cuda") else ()
    return _set(names, environment)


def numpy_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return (name, value) of the set variables that only numpy and scipy read, sorted."""
    return _set(NUMPY_VARIABLES, environment)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Describe every variable that differs, as in `NAME was 'a' and is not set, ...`; empty if none differs."""
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return ", ".join(f"{name} was {_shown(before.get(name))} and is {_shown(now.get(name))}" for name in names)


def _shown(value: str | None) -> str:
    return "not set" if value is None else repr(value)


def _set(names: Iterable[str], environment: Mapping[str, str] | None) -> Settings:
    found = {name: (os.environ if environment is None else environment).get(name, "").strip() for name in names}
    return tuple(sorted((name, value) for name, value in found.items() if value and value != USUAL.get(name)))
