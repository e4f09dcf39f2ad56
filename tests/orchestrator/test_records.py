"""Identity is what is trained, not why."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.records import RetrainSpec
from tasks.data.edits import Edit
from tasks.digests import canonical_json, digest, digest_arrays, digest_texts
from tasks.seeds import generator, purpose_seed, repeat_seed
from tests.edits import reweighting

SPEC = RetrainSpec(
    "t", {"name": "m"}, {"name": "r", "epochs": 2}, Edit.removal([3, 1]).identity(), 7, {"device": "cpu"}
)


def test_spec_id_is_the_sha256_of_the_canonical_json():
    import hashlib

    assert SPEC.spec_id == hashlib.sha256(SPEC.json.encode()).hexdigest()[:32]
    assert json.loads(SPEC.json).keys() == {"train", "model", "recipe", "edit", "seed", "numerics", "parent"}


@pytest.mark.parametrize(
    "change",
    [
        {"train": "u"},
        {"model": {"name": "n"}},
        {"recipe": {"name": "r", "epochs": 3}},
        {"edit": Edit.removal([3]).identity()},
        {"seed": 8},
        {"numerics": {"device": "cuda"}},
        {"parent": {"spec_id": "x", "step": 1}},
    ],
)
def test_every_field_is_identity(change):
    assert dataclasses.replace(SPEC, **change).spec_id != SPEC.spec_id


def test_equal_sets_are_equal_edits_whatever_their_order():
    assert Edit.removal([5, 1, 5, 3]) == Edit.removal(np.array([3, 1, 5]))
    assert Edit.removal([1, 2]).edit_id == reweighting({2: 0.0, 1: 0.0}).edit_id
    assert Edit.removal([1, 2]).edit_id != reweighting({2: 0.0, 1: 0.5}).edit_id


def test_the_empty_edit_is_the_same_in_both_modes():
    assert Edit.removal([], "drop").identity() == Edit.removal([], "mask").identity() == Edit().identity()
    assert Edit.removal([1], "drop").identity() != Edit.removal([1], "mask").identity()


def test_weights_follow_ids_not_positions():
    ids = np.array([30, 10, 20])
    assert reweighting({10: 0.0, 20: 2.0}).weights_of(ids).tolist() == [1.0, 0.0, 2.0]
    with pytest.raises(KeyError, match="11"):
        Edit.removal([11]).weights_of(ids)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, {1: 2}, {1, 2}, b"x", np.float32(1), np.int64(1), Path("x"), object(), {"a": [math.nan]}],
)
def test_the_hasher_raises_on_unstable_values(value):
    with pytest.raises(TypeError):
        canonical_json(value)


@given(
    st.dictionaries(
        st.text(max_size=4),
        st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4) | st.none(),
    )
)
def test_canonical_json_ignores_key_order_and_round_trips(value):
    backwards = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(backwards)
    assert json.loads(canonical_json(value)) == value
    assert len(digest(value)) == 32


def test_array_digests_see_shape_dtype_and_name():
    a = np.arange(6, dtype=np.int32)
    seen = {
        digest_arrays(x=a),
        digest_arrays(y=a),
        digest_arrays(x=a.reshape(2, 3)),
        digest_arrays(x=a.astype(np.int64)),
    }
    assert len(seen) == 4
    assert digest_arrays(x=a) == digest_arrays(x=a.astype(">i4"))


def test_text_digests_see_boundaries():
    assert digest_texts(["ab", "c"]) != digest_texts(["a", "bc"])


def test_repeat_seeds_follow_the_formula():
    expected = int(np.random.SeedSequence(2021, spawn_key=(3,)).generate_state(1)[0])
    assert repeat_seed(2021, 3) == expected


def test_generators_are_one_per_purpose_and_key():
    draws = [
        generator(1, "order", 0),
        generator(1, "order", 1),
        generator(1, "init", 0),
        generator(2, "order", 0),
        generator(1, "order"),
    ]
    assert len({g.integers(2**62) for g in draws}) == len(draws)
    assert purpose_seed(1, "order", 0) == purpose_seed(1, "order", 0) < 2**63
