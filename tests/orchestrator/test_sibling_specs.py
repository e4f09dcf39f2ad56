"""Specs that share their text are the specs they would be alone."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.records import RetrainSpec, Work
from tasks.data.edits import Edit
from tasks.digests import canonical_json
from tests.edits import reweighting

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("train", "model", "recipe", "edit", "seed", "numerics", "parent")
SPEC = RetrainSpec("t", {"name": "m"}, {"name": "r", "epochs": 2}, Edit().identity(), 7, {"device": "cpu"})


@given(st.text(max_size=5), JSON, JSON, JSON, JSON, st.integers(), st.none() | JSON)
def test_the_text_of_a_sibling_is_the_canonical_json_of_its_fields(train, model, recipe, numerics, edit, seed, parent):
    first = RetrainSpec(train, model, recipe, Edit().identity(), 0, numerics, parent)
    for spec in (first.sibling(edit, seed), first.sibling(0, 0).sibling(edit, seed)):
        assert spec.json == canonical_json({name: getattr(spec, name) for name in NAMES})
        assert spec == RetrainSpec(train, model, recipe, edit, seed, numerics, parent)
        assert spec.spec_id == RetrainSpec(train, model, recipe, edit, seed, numerics, parent).spec_id


@pytest.mark.parametrize("change", [{"train": "u"}, {"recipe": {"name": "r"}}, {"parent": {"spec_id": "x", "step": 1}}])
def test_a_changed_sibling_does_not_keep_the_old_text(change):
    sibling = SPEC.sibling(Edit.removal([1]).identity(), 8)
    before = sibling.spec_id
    changed = dataclasses.replace(sibling, **change)
    assert changed.json == canonical_json({name: getattr(changed, name) for name in NAMES})
    assert changed.spec_id != before
    assert sibling.spec_id == before


def test_work_arrives_at_a_worker_as_it_was_sent():
    edit = Edit.removal([3, 1])
    work = Work(SPEC.sibling(edit.identity(), 8), edit)
    arrived = pickle.loads(pickle.dumps(work))
    assert arrived == work
    assert arrived.spec_id == work.spec_id


def test_identities_are_those_of_the_first_ledgers():
    edit = reweighting({3: 0.0, 10: 2.5})
    assert edit.edit_id == "9dc44b0df85bce37e631af6f699fbf8f"
    assert SPEC.spec_id == "53075793e8f1632b9a7c1ec7279b748c"
    assert SPEC.sibling(edit.identity(), 11).spec_id == "38fdb4a9a643884fe84aca27a3bc89b5"
