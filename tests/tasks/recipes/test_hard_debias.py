import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tasks.base import Numerics
from tasks.components import parse_component
from tasks.data.edits import Edit
from tasks.data.word_lists import DEFINITIONAL_PAIRS
from tasks.digests import canonical_json
from tasks.errors import InputError
from tasks.recipe import Training
from tasks.recipes.hard_debias import HardDebias, bias_subspace, debias, unit

DIM = 12
GENDERED = [word for pair in DEFINITIONAL_PAIRS for word in pair]
OTHERS = ["doctor", "nurse", "math", "king", "queen", "King", "Queen", "KING", "QUEEN", "actress", "table"]
WORDS = [*OTHERS[:5], *GENDERED, *OTHERS[5:]]
VOCABULARY = {word: row for row, word in enumerate(WORDS)}


class Vectors(nn.Module):
    """Input and output vectors of a skip-gram, and where the input vectors started."""

    def __init__(self, n_words):
        super().__init__()
        self.input, self.output = nn.Embedding(n_words, DIM), nn.Embedding(n_words, DIM)
        self.register_buffer("initial", torch.zeros(n_words, DIM))


TASK = SimpleNamespace(vocabulary=VOCABULARY, network=lambda seed: Vectors(len(WORDS)))


def parent(seed=0):
    """Random vectors in which the definitional pairs differ along one direction, more or less."""
    random = np.random.default_rng(seed)
    names = ("input.weight", "output.weight", "initial")
    state = {name: random.normal(size=(len(WORDS), DIM)).astype(np.float32) for name in names}
    direction = random.normal(size=DIM)
    for woman, man in DEFINITIONAL_PAIRS:
        state["input.weight"][VOCABULARY[woman]] += direction
        state["input.weight"][VOCABULARY[man]] -= direction
    return state


def recipe(tmp_path="unused", **options):
    return parse_component(HardDebias, options, "config", "recipe").with_files(tmp_path, "config: recipe")


def train(made=None, weights=None, edit=None, numerics=None, **watching):
    made, weights, numerics = made or recipe(), weights or parent(), numerics or Numerics(dtype="float64")
    return made.train(TASK, Training(edit=edit or Edit(), seed=1, numerics=numerics, parent=weights, **watching))


def input_vectors(trained):
    return trained.network.input.weight.detach().numpy().astype(np.float64)


def reference(weights, definitional, equalize, specific):
    """Bolukbasi et al. 2016, sections 5 and 6, word by word with the covariance written out; one component."""
    vectors = {word: row / np.sqrt(row @ row) for word, row in zip(WORDS, weights.astype(np.float64), strict=True)}
    covariance = np.zeros((DIM, DIM))
    for pair in definitional:
        mu = (vectors[pair[0]] + vectors[pair[1]]) / 2
        for word in pair:
            covariance += np.outer(vectors[word] - mu, vectors[word] - mu) / 2
    values, directions = np.linalg.eigh(covariance)
    g = directions[:, -1]
    for word in WORDS:
        if word not in specific and not any(word in pair for pair in equalize):
            neutral = vectors[word] - (vectors[word] @ g) * g
            vectors[word] = neutral / np.sqrt(neutral @ neutral)
    for one, other in equalize:
        y = (vectors[one] + vectors[other]) / 2
        y = y - (y @ g) * g
        z = np.sqrt(1 - y @ y) * np.sign((vectors[one] - vectors[other]) @ g)
        vectors[one], vectors[other] = z * g + y, -z * g + y
    return np.array([vectors[word] for word in WORDS]), g, values[-1] / values.sum()


@pytest.mark.parametrize("seed", range(4))
def test_vectors_equal_the_published_algorithm_word_by_word(seed):
    weights = parent(seed)
    trained = train(weights=weights)
    expected, _, share = reference(weights["input.weight"], DEFINITIONAL_PAIRS, DEFINITIONAL_PAIRS, GENDERED)
    np.testing.assert_allclose(input_vectors(trained), expected, atol=1e-10)
    assert trained.metrics["variance_share"] == pytest.approx(share, rel=1e-10)


def test_given_lists_are_followed():
    made = recipe(
        definitional=[["she", "he"], ["her", "his"]], equalize=[["king", "queen"]], specific=["she", "actress"]
    )
    weights = parent(5)
    equalised = [("king", "queen"), ("King", "Queen"), ("KING", "QUEEN")]
    expected, _, _ = reference(weights["input.weight"], [("she", "he"), ("her", "his")], equalised, ["she", "actress"])
    trained = train(made, weights)
    np.testing.assert_allclose(input_vectors(trained), expected, atol=1e-10)
    assert trained.metrics == {
        "n_steps": 1,
        "variance_share": trained.metrics["variance_share"],
        "n_definitional": 2,
        "n_neutralised": len(WORDS) - 8,
        "n_equalised": 3,
        "n_equalize_unknown": 0,
    }


def test_neutral_words_have_no_part_along_the_direction_and_keep_length_one():
    weights = parent(1)
    _, g, _ = reference(weights["input.weight"], DEFINITIONAL_PAIRS, (), ())
    after = input_vectors(train(weights=weights))
    rows = [VOCABULARY[word] for word in OTHERS]
    assert np.abs(unit(weights["input.weight"].astype(np.float64))[rows] @ g).max() > 0.1
    assert np.abs(after[rows] @ g).max() < 1e-10
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-12)


def test_every_neutral_word_is_as_far_from_one_word_of_an_equalised_pair_as_from_the_other():
    after = input_vectors(train())
    neutral = after[[VOCABULARY[word] for word in OTHERS]]
    for woman, man in DEFINITIONAL_PAIRS:
        one, other = after[VOCABULARY[woman]], after[VOCABULARY[man]]
        assert np.linalg.norm(one - other) > 0.1
        np.testing.assert_allclose(neutral @ one, neutral @ other, atol=1e-10)


def test_without_renormalising_neutral_words_are_shortened_by_their_bias_alone():
    weights = parent(2)
    before, after = (
        unit(weights["input.weight"].astype(np.float64)),
        input_vectors(train(recipe(renormalise=False), weights)),
    )
    _, g, _ = reference(weights["input.weight"], DEFINITIONAL_PAIRS, (), ())
    rows = [VOCABULARY[word] for word in OTHERS]
    np.testing.assert_allclose(after[rows], before[rows] - np.outer(before[rows] @ g, g), atol=1e-10)


def test_debiasing_what_is_debiased_changes_nothing():
    once = train(weights=parent(3))
    state = {name: array.numpy() for name, array in once.network.state_dict().items()}
    np.testing.assert_allclose(input_vectors(train(weights=state)), input_vectors(once), atol=1e-10)


def test_a_plane_is_taken_out_with_two_components():
    random = np.random.default_rng(4)
    vectors = unit(random.normal(size=(20, DIM)))
    basis, _ = bias_subspace(vectors[:6], vectors[6:12], 2)
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-12)
    after = debias(vectors, basis, np.arange(12, 20), np.array([[0, 6], [1, 7]]))
    assert np.abs(after[12:] @ basis.T).max() < 1e-12
    for one, other in ((0, 6), (1, 7)):
        np.testing.assert_allclose(after[12:] @ after[one], after[12:] @ after[other], atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(after[[one, other]], axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(after[2:6], vectors[2:6])


def test_the_direction_of_pairs_that_differ_along_one_axis_is_that_axis():
    first, second = np.eye(DIM)[:1] * [[3.0], [-2.0]], np.zeros((2, DIM))
    basis, share = bias_subspace(first, second, 1)
    assert np.abs(basis[0]) == pytest.approx(np.eye(DIM)[0])
    assert share == pytest.approx(1)


def test_output_and_initial_vectors_stay_and_the_dtype_is_that_of_the_numerics():
    weights = parent()
    state = train(weights=weights, numerics=Numerics()).network.state_dict()
    assert state["input.weight"].dtype == torch.float32
    for name in ("output.weight", "initial"):
        np.testing.assert_array_equal(state[name].numpy(), weights[name])


def test_equal_arguments_give_equal_bits_whatever_the_seed():
    networks = [
        recipe().train(TASK, Training(edit=Edit(), seed=s, numerics=Numerics(), parent=parent())).network
        for s in (1, 1, 2)
    ]
    assert len({network.input.weight.detach().numpy().tobytes() for network in networks}) == 1


def test_pairs_outside_the_vocabulary_are_left_out_and_counted():
    made = recipe(definitional=[["she", "he"], ["abbess", "abbot"]], equalize=[["abbess", "abbot"], ["she", "he"]])
    metrics = train(made).metrics
    assert (metrics["n_definitional"], metrics["n_equalised"], metrics["n_equalize_unknown"]) == (1, 1, 1)


def test_the_step_is_kept_and_observed():
    class Norms:
        name = "norms"

        def begin(self, n_steps):
            pass

        def at(self, step, network):
            return {"input": network.input.weight.detach().norm(dim=1).numpy()}

    kept = {}
    trained = train(
        keep_steps=[1],
        keep=lambda step, network: kept.update({step: input_vectors(trained_like(network))}),
        observers=[Norms()],
    )
    np.testing.assert_array_equal(kept[1], input_vectors(trained))
    np.testing.assert_allclose(
        trained.observed["norms/input@0"], np.linalg.norm(parent()["input.weight"].astype(np.float64), axis=1)
    )
    np.testing.assert_allclose(trained.observed["norms/input@1"], 1)
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        train(keep_steps=[2], keep=lambda step, network: None)


def trained_like(network):
    return SimpleNamespace(network=network)


def test_a_parent_that_diverged_is_diverged():
    weights = parent()
    weights["input.weight"][0, 0] = np.nan
    assert train(weights=weights).diverged


def test_it_asks_for_a_parent_the_empty_edit_and_enough_pairs():
    with pytest.raises(ValueError, match="needs a parent and the empty edit"):
        recipe().train(TASK, Training(edit=Edit(), seed=1, numerics=Numerics()))
    with pytest.raises(ValueError, match="needs a parent and the empty edit"):
        train(edit=Edit.removal([1]))
    made = recipe(definitional=[["she", "he"], ["abbess", "abbot"]], n_components=2)
    with pytest.raises(ValueError, match="1 pairs have both words"):
        train(made)
    with pytest.raises(InputError, match=r"c\.yaml: recipe\.definitional: 1 pairs have both words .* n_components 2"):
        made.check(VOCABULARY, "c.yaml: recipe")
    recipe().check(VOCABULARY, "c.yaml: recipe")


def test_its_one_step_has_no_learning_rate():
    assert (recipe().checkpoint_step(100, 1), recipe().learning_rate_at(100, 1)) == (1, 0.0)
    with pytest.raises(ValueError, match="epoch 2"):
        recipe().checkpoint_step(100, 2)
    with pytest.raises(ValueError, match="step 2"):
        recipe().learning_rate_at(100, 2)


def test_identity_is_the_content_of_the_lists_and_not_where_they_come_from(tmp_path):
    for name in ("one.json", "two.json"):
        (tmp_path / name).write_text(json.dumps([list(pair) for pair in DEFINITIONAL_PAIRS]))
    (tmp_path / "three.json").write_text(json.dumps([["she", "he"]]))
    (tmp_path / "words.json").write_text(json.dumps(GENDERED[::-1]))
    same = [
        recipe(),
        recipe(tmp_path, definitional="one.json", equalize="two.json"),
        recipe(tmp_path, definitional="two.json", specific="words.json"),
        recipe(definitional=[list(pair) for pair in DEFINITIONAL_PAIRS]),
    ]
    others = [
        recipe(tmp_path, definitional="three.json"),
        recipe(tmp_path, equalize="three.json"),
        recipe(specific=["she"]),
        recipe(n_components=2),
        recipe(renormalise=False),
    ]
    assert len({canonical_json(made.identity()) for made in same}) == 1
    assert len({canonical_json(made.identity()) for made in same + others}) == 1 + len(others)
    with pytest.raises(ValueError, match="call with_files first"):
        HardDebias().identity()


def test_bad_lists_are_refused_with_their_place(tmp_path):
    with pytest.raises(InputError, match=r"config: recipe\.specific: 'absent\.json' does not exist"):
        recipe(tmp_path, specific="absent.json")
    (tmp_path / "pairs.json").write_text('[["she"]]')
    with pytest.raises(InputError, match=r"pairs\.json: 0: \['she'\] is not a pair"):
        recipe(tmp_path, equalize="pairs.json")
    for options, part in (
        ({"definitional": []}, "definitional is empty"),
        ({"equalize": [["she"]]}, "recipe.equalize.0"),
        ({"n_components": 0}, "recipe.n_components: 0"),
    ):
        with pytest.raises(InputError, match=part):
            recipe(**options)
