"""compute.frozen_trunk: what it is refused for, what it changes in identities, and a campaign with it."""

from dataclasses import replace

import numpy as np
import pytest

from orchestrator import api
from orchestrator.config.load import load_config
from orchestrator.experiment.checks import checked_experiment
from orchestrator.experiment.run_dir import NumericsMismatchError, require_same_numerics
from orchestrator.runtime.machine import cpu_numerics
from tasks.base import Numerics
from tasks.errors import InputError
from tests.fakes import tiny_bert
from tests.orchestrator.tiny_campaign import run_here, small_config, write_config


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("pretrained") / "bert")


def encoder(bert, **options):
    lower = ["bert.embeddings", "bert.encoder.layer.0"]
    return {"name": "encoder", "pretrained": str(bert), "max_length": 16, "dropout": 0.0, "freeze": lower, **options}


def test_identities_of_the_default_stay_and_the_others_differ():
    assert "frozen_trunk" not in Numerics().identity()
    assert Numerics(frozen_trunk="cached").identity() == {**Numerics().identity(), "frozen_trunk": "cached"}
    assert Numerics(**Numerics(frozen_trunk="cached_half").identity()).frozen_trunk == "cached_half"


def test_a_run_is_not_resumed_under_another_value():
    pinned = cpu_numerics(1)
    require_same_numerics(pinned, replace(pinned), "here")
    with pytest.raises(NumericsMismatchError, match="frozen_trunk was 'computed' and is 'cached'"):
        require_same_numerics(pinned, replace(pinned, frozen_trunk="cached"), "here")
    with pytest.raises(NumericsMismatchError, match="frozen_trunk was 'cached' and is 'computed'"):
        require_same_numerics(replace(pinned, frozen_trunk="cached"), pinned, "here")


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ({"freeze": ["bert.encoder"]}, r"bert\.embeddings\.\S+ is trained"),
        ({"freeze": []}, "task.model.freeze is empty"),
        ({"dropout": 0.1}, "the frozen layers have dropout 0.1; set task.model.dropout to 0.0"),
        (None, "the model 'text_cnn' has no pretrained layers; the model 'encoder' has some"),
    ],
)
def test_a_task_without_a_frozen_trunk_is_refused_before_anything_starts(bert, tmp_path, model, complaint):
    changes = {} if model is None else {"task.model": encoder(bert, **model)}
    path = write_config(tmp_path, {**changes, "compute.frozen_trunk": "cached"})
    with pytest.raises(
        InputError, match=rf"compute.frozen_trunk: 'cached' is not allowed: .*{complaint}.*; allowed: comp"
    ):
        checked_experiment(load_config(path), None)


def test_another_value_is_refused_by_the_schema(tmp_path):
    with pytest.raises(InputError, match=r"compute\.frozen_trunk"):
        load_config(write_config(tmp_path, {"compute.frozen_trunk": "stored"}))


def test_a_campaign_has_the_results_of_one_without_the_cache(bert, tmp_path):
    changes = {"task__model": encoder(bert), "methods": [{"name": "tracin_last"}, {"name": "tracin_we"}]}
    curves = {}
    for value in ("computed", "cached"):
        folder = tmp_path / value
        folder.mkdir()
        config = small_config(folder, **changes, compute__frozen_trunk=value, repeats__count=1, deletion__k=[2])
        result = run_here(config)
        curves[value] = api.open_run(result.run_dir).curves()
        stored = list((folder / "runs" / "cache" / "trunk").rglob("*.npy"))
        assert bool(stored) == (value == "cached")
    keys = ["method", "group", "k"]
    assert curves["cached"][keys].equals(curves["computed"][keys])
    np.testing.assert_allclose(curves["cached"]["delta"], curves["computed"]["delta"], atol=1e-5)
    assert np.abs(curves["computed"]["delta"]).max() > 0
