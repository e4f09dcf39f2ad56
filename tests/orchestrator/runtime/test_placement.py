from __future__ import annotations

import pytest

from orchestrator.runtime.placement import ACCELERATOR, MARKET, Placement, accelerator_type
from tasks.base import Numerics

MODELS = {
    "NVIDIA A10G": "A10G",
    "Tesla V100-SXM2-16GB": "V100",
    "Tesla T4": "T4",
    "NVIDIA L40S": "L40S",
    "NVIDIA A100-SXM4-40GB": "A100",
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA GeForce RTX 4090": "GeForce-RTX-4090",
    "NVIDIA RTX PRO 6000 Blackwell": "RTX-PRO-6000",
}


@pytest.mark.parametrize("model", MODELS)
def test_accelerators_are_called_what_ray_calls_them(model):
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager

    assert accelerator_type(model) == MODELS[model]
    assert NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(model) == MODELS[model]


def test_the_accelerator_of_pinned_numerics_is_asked_for_unless_the_user_names_another():
    pinned = Numerics(device="cuda", device_model="NVIDIA A10G")
    assert Placement.of(pinned, None, {}).labels("retrains") == {ACCELERATOR: "A10G"}
    assert Placement.of(pinned, "L4", {}).labels("retrains") == {ACCELERATOR: "L4"}
    assert Placement.of(Numerics(device="cuda"), None, {}).labels("retrains") == {}
    assert Placement.of(Numerics(device="cpu", device_model="Xeon 8488C"), None, {}).labels("retrains") == {}


def test_each_role_has_its_market_and_the_tail_follows_the_retrains_unless_it_has_one():
    placement = Placement(None, {"gradients": "on-demand", "retrains": "spot", "tail": None})
    assert placement.labels("gradients") == {MARKET: "on-demand"}
    assert placement.labels("tail") == placement.labels("retrains") == {MARKET: "spot"}
    assert Placement(None, {"retrains": "spot", "tail": "on-demand"}).labels("tail") == {MARKET: "on-demand"}
