"""Arms: variants of one task, each with its own identities, queries and specs."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.config.yaml_files import ConfigError
from orchestrator.experiment.arm import Arm
from orchestrator.experiment.checks import checked_experiment
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import InputError
from tests.orchestrator.small_campaigns import small_debias, small_loo
from tests.orchestrator.tiny_campaign import small_config

CPU = Numerics(device_model="test", torch="2")


def arms_of(config) -> dict[str, Arm]:
    return checked_experiment(config, None).arms


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory) -> dict[str, Arm]:
    return arms_of(small_loo(tmp_path_factory.mktemp("mixtures")))


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> dict[str, Arm]:
    return arms_of(small_debias(tmp_path_factory.mktemp("words"), debias__passes=[1, 2]))


def test_a_campaign_without_variants_has_one_arm_with_no_name(tmp_path):
    assert list(arms_of(small_config(tmp_path))) == [""]


def test_arms_are_every_variant_under_every_value_of_over(mixtures):
    assert list(mixtures) == ["nll.0", "twin.0", "dec.0", "nll.1", "twin.1", "dec.1"]
    assert [arm.label for arm in mixtures.values()] == list(mixtures)
    assert [arm.task.recipe.objective for arm in mixtures.values()] == ["nll", "nll", "dec"] * 2


def test_debias_has_a_base_a_hard_debiased_and_an_arm_for_each_number_of_passes(words):
    recipes = {label: arm.task.recipe.name for label, arm in words.items()}
    assert recipes == {
        "base": "skip_gram",
        "hard_debias": "hard_debias",
        "passes-1": "reinforce",
        "passes-2": "reinforce",
    }
    assert [words[f"passes-{n}"].task.recipe.passes for n in (1, 2)] == [1, 2]


def test_arms_that_differ_in_the_recipe_alone_share_the_data(mixtures, words):
    assert mixtures["nll.0"].train is mixtures["dec.0"].train
    assert mixtures["nll.0"].train is not mixtures["nll.1"].train
    assert len({id(arm.task.corpus) for arm in words.values()}) == 1


def test_identities_say_what_differs(mixtures):
    one, twin, dec, other = (mixtures[label] for label in ("nll.0", "twin.0", "dec.0", "nll.1"))
    assert (one.train_digest, one.model_identity, one.task_id) == (dec.train_digest, dec.model_identity, dec.task_id)
    assert one.recipe_identity != dec.recipe_identity
    assert one.train_digest != other.train_digest
    assert one.task_id != other.task_id, "other points are recorded"
    spec_ids = {arm.label: arm.work(CPU, Edit(), 7).spec_id for arm in (one, twin, dec, other)}
    assert spec_ids["nll.0"] == spec_ids["twin.0"]
    assert len(set(spec_ids.values())) == 3


def test_a_work_names_its_arm_and_its_parent(words):
    parent = {"spec_id": "a" * 32, "step": 30}
    arm = words["passes-1"]
    edit = Edit.selection({0: -1.0, 1: 1.0})
    work = arm.work(CPU, edit, 3, keep_steps=(1,), parent=parent)
    assert (work.arm, work.keep_steps, work.edit, work.spec.parent) == ("passes-1", (1,), edit, parent)
    others = [
        arm.work(CPU, edit, 3),
        arm.work(CPU, edit, 3, parent={**parent, "step": 31}),
        arm.work(CPU, Edit.selection({0: 1.0, 1: -1.0}), 3, parent=parent),
        words["passes-2"].work(CPU, edit, 3, parent=parent),
    ]
    assert len({work.spec_id, *(other.spec_id for other in others)}) == 5


# --- queries -------------------------------------------------------------------------------------------------------


def test_all_takes_every_measured_point_in_its_order(words):
    queries = words["base"].queries(None)
    assert queries.split == "properties"
    assert queries.ids.tolist() == list(range(4)), "the refused property is none"


def test_labels_that_a_model_decides_wait_for_its_outputs(mixtures):
    """The cluster of a component is the one its mean falls in, whatever it is called."""
    arm = mixtures["nll.1"]
    assert arm.needs_outputs
    with pytest.raises(ValueError, match=r"depend on a model.s recorded outputs"):
        arm.queries(None)
    means = np.log(np.array([[0.1, 0.1, 0.8], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], np.float32))
    queries = arm.queries({"train": np.zeros((12, 3), np.float32), "means": means})
    assert queries.labels.tolist() == [2] * 4 + [0] * 4 + [1] * 4
    assert queries.ids.tolist() == arm.train.ids.tolist()


def test_arms_of_one_experiment_ask_about_the_same_points(tmp_path):
    arms = arms_of(small_loo(tmp_path, queries={"split": "train", "count": 5, "seed": 3}))
    outputs = {"train": np.zeros((12, 3), np.float32), "means": np.eye(3, dtype=np.float32)}
    asked = [arm.queries(outputs).ids.tolist() for arm in arms.values()]
    assert len(asked[0]) == 5
    assert all(ids == asked[0] for ids in asked)


def test_properties_need_no_model_to_be_asked_about(words):
    assert not words["base"].needs_outputs


def test_queries_are_checked_in_every_arm(tmp_path):
    """Three points a component in the first arm would do; the second has two."""
    queries = {"split": "train", "per_class": 3}
    arms = {"nll": {}, "small": {"data.per_class": 2}}
    with pytest.raises(InputError, match=r"queries\.per_class"):
        arms_of(small_loo(tmp_path, queries=queries, leave_one_out={"arms": arms}))


def test_a_split_that_is_not_measured_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"queries\.split: split 'train' is not measured"):
        arms_of(small_loo(tmp_path, task__measure=[{"split": "means"}]))
