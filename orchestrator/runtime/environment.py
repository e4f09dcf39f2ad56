"""Environment variables that change bits of a result on the same machine. No torch: known before anything starts.

Which do, and by how much they were measured: docs/decisions/0034-environment-in-numerics.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

# They choose the instructions, and with them the order of sums, of what torch computes on a CPU.
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
# They choose how many threads share a sum: nothing to a worker with one.
THREAD_VARIABLES = ("KMP_DETERMINISTIC_REDUCTION", "MKL_DYNAMIC", "OMP_DYNAMIC", "OMP_THREAD_LIMIT")
CUDA_VARIABLES = (
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATION_STRATEGY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DISABLE_ADDMM_CUDA_LT",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_BLAS_PREFER_CUBLASLT",
)
# Only numpy and scipy read these. No training was seen to change by them, so they are no part of a spec; a run still
# refuses to go on under others.
NUMPY_VARIABLES = ("NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "OPENBLAS_CORETYPE")
USUAL = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # what every worker sets where nothing is set

Settings = tuple[tuple[str, str], ...]


def settings(device: str, threads: int, environment: Mapping[str, str] | None = None) -> Settings:
    """(name, value) of the variables that are set and change bits of a training, sorted; nothing in the usual case."""
    names = [*CPU_VARIABLES]
    names += THREAD_VARIABLES if threads > 1 else ()
    names += CUDA_VARIABLES if device.startswith("cuda") else ()
    return _set(names, environment)


def numpy_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """(name, value) of the variables that are set and that only numpy and scipy read, sorted."""
    return _set(NUMPY_VARIABLES, environment)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`NAME was 'a' and is not set, ...`: every variable that differs; empty if none does."""
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return ", ".join(f"{name} was {_shown(before.get(name))} and is {_shown(now.get(name))}" for name in names)


def _shown(value: str | None) -> str:
    return "not set" if value is None else repr(value)


def _set(names: Iterable[str], environment: Mapping[str, str] | None) -> Settings:
    found = {name: (os.environ if environment is None else environment).get(name, "").strip() for name in names}
    return tuple(sorted((name, value) for name, value in found.items() if value and value != USUAL.get(name)))
