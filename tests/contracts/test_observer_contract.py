"""What every observer promises, run over the registry under every recipe of text tasks: a new line there is covered here."""

import inspect
import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from influence.registry import OBSERVERS
from tasks.base import Component, Numerics
from tasks.components import parse_component
from tasks.data.edits import Edit
from tasks.models.text_cnn import TextCNN
from tasks.recipe import Training
from tasks.registry import RECIPES
from tests.fakes import token_task

OPTIONS = {"confound_influence_difference": {"probes": 5, "every": 4}}
SMALL = {"epochs": 2, "batch_size": 6, "learning_rate": 0.01}
ROUNDS = {"interval": 3, "probes": 4, "group_size": 2, "round_epochs": 1}
N_STEPS, N_TRAIN = 8, 24
NAMES = sorted(OBSERVERS.entries())
CLASSES = {name: RECIPES.load(name, "test") for name in sorted(RECIPES.entries())}
TEXT_RECIPES = [name for name, cls in CLASSES.items() if cls.fits == "text"]


def make(name) -> Any:
    return parse_component(OBSERVERS.load(name, "test"), OPTIONS.get(name, {}), "test", "observe.0")


def task_of(recipe):
    options = {key: value for key, value in (SMALL | ROUNDS).items() if key in CLASSES[recipe].model_fields}
    return token_task(TextCNN(embedding_dim=6, filters=3), CLASSES[recipe](**options), n_train=N_TRAIN)


def train(task, observers=()):
    trained = task.recipe.train(task, Training(edit=Edit(), seed=7, numerics=Numerics(), observers=observers))
    outputs = task.outputs(trained.network, "test", task.measured["test"])
    return outputs.tobytes() + b"".join(w.numpy().tobytes() for w in trained.network.state_dict().values()), trained


@pytest.mark.parametrize("name", NAMES)
def test_an_observer_says_what_it_is(name):
    observer = make(name)
    assert isinstance(observer, Component)
    assert observer.name == name
    assert (inspect.getdoc(type(observer)) or "").splitlines()[0].endswith(".")
    assert OBSERVERS.entries()[name].summary
    identity = json.loads(json.dumps(observer.identity()))
    assert identity == make(name).identity() == {"name": name, "version": observer.version} | observer.model_dump()
    assert pickle.loads(pickle.dumps(observer)) == observer


@pytest.mark.parametrize("name", NAMES)
def test_what_one_training_is_asked_about_is_not_what_another_saw(name):
    task = task_of("finetune")
    first, second = make(name).start(task), make(name).start(task)
    assert first is not second
    assert first.name == second.name == name


@pytest.mark.parametrize("recipe", TEXT_RECIPES)
@pytest.mark.parametrize("name", NAMES)
def test_it_changes_no_bit_and_sees_the_same_in_every_training(name, recipe):
    task, observer = task_of(recipe), make(name)
    observer.check_task(task, "observe.0")
    plain, _ = train(task)
    (bits, trained), (_, again) = (train(task, [observer.start(task)]) for _ in range(2))
    assert bits == plain
    assert trained.metrics == train(task)[1].metrics
    assert trained.observed, "it must record something of a training"
    assert {key: array.tobytes() for key, array in trained.observed.items()} == {
        key: array.tobytes() for key, array in again.observed.items()
    }


@pytest.mark.parametrize("recipe", TEXT_RECIPES)
@pytest.mark.parametrize("name", NAMES)
def test_it_records_float32_under_its_name_and_the_step(name, recipe):
    task = task_of(recipe)
    observed = train(task, [make(name).start(task)])[1].observed
    for key, array in observed.items():
        observer, _, rest = key.partition("/")
        what, _, at = rest.partition("@")
        step, _, stage = at.partition("+")
        assert observer == name
        assert what
        assert 0 <= int(step) <= N_STEPS
        assert stage in ("", "round")
        assert array.dtype == np.float32, "what the ledger keeps"
        assert not np.isinf(array).any()


@pytest.mark.parametrize("name", NAMES)
def test_choosing_one_imports_no_torch(name):
    code = (
        "import sys, json; from influence.registry import OBSERVERS; from tasks.components import parse_component\n"
        f"parse_component(OBSERVERS.load({name!r}, 't'), json.loads({json.dumps(OPTIONS.get(name, {}))!r}), 't').identity()\n"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
