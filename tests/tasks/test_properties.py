import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from tasks.components import parse_named
from tasks.data.word_lists import WEATS
from tasks.digests import canonical_json
from tasks.errors import InputError
from tasks.registry import PROPERTIES
from tasks.weat import associations, halves, permutation_test, weat

WORDS = sorted({word for lists in WEATS.values() for words in lists.named().values() for word in words})
INDEX = {word: row for row, word in enumerate(WORDS)}
COUNTS = {word: 20 + row for row, word in enumerate(WORDS)}
DIM = 6
WHERE = "c.yaml: measure.0"
EVERY = [
    {"name": "weat", "test": "career"},
    {"name": "weat", "test": "race", "ddof": 0, "absolute": True},
    {"name": "weat", "test": "art", "statistic": "mean_difference"},
    {"name": "weat", "test": "religion"},
    {"name": "weat", "test": "math", "half": "second"},
    {"name": "displacement", "word": "doctor"},
    {"name": "neighbour", "word": "john", "near": ["office", "he"]},
]


def ask(options):
    return parse_named(PROPERTIES, options, "c.yaml", "measure.0")


def resolve(options, counts=None, base_dir="unused"):
    return ask(options).resolve({"doctor": 9, **COUNTS} if counts is None else counts, base_dir, WHERE)


@pytest.fixture(scope="module")
def vectors():
    random = np.random.default_rng(0)
    return random.normal(size=(len(WORDS) + 1, DIM)), random.normal(size=(len(WORDS) + 1, DIM))


INDEX["doctor"] = len(WORDS)


def rows(vectors, words):
    return vectors[[INDEX[word] for word in words]]


def expected_weat(vectors, lists, **options):
    b = None if lists.b is None else rows(vectors, lists.b)
    return weat(rows(vectors, lists.x + lists.y), len(lists.x), rows(vectors, lists.a), b, **options)


@pytest.mark.parametrize("options", EVERY, ids=lambda o: "_".join(map(str, o.values())))
def test_the_torch_twin_equals_the_value_and_has_the_gradient_of_finite_differences(options, vectors):
    found = pickle.loads(pickle.dumps(resolve(options)))
    index = {word: row for row, word in enumerate(found.words)}
    final, initial = (rows(array, found.words) for array in vectors)
    value = found.value(final, initial, index)
    tensor = torch.tensor(final, requires_grad=True)
    start = torch.tensor(initial)
    assert found.tensor(tensor, start, index).item() == pytest.approx(value, rel=1e-12)
    assert torch.autograd.gradcheck(lambda moved: found.tensor(moved, start, index), [tensor])
    assert found.value(*vectors, INDEX) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("options", EVERY, ids=lambda o: "_".join(map(str, o.values())))
def test_only_the_words_of_a_property_decide_it(options, vectors):
    found = resolve(options)
    others = [row for word, row in INDEX.items() if word not in found.words]
    changed = vectors[0].copy()
    changed[others] = np.random.default_rng(1).normal(size=(len(others), DIM))
    assert found.value(changed, vectors[1], INDEX) == found.value(*vectors, INDEX)
    moved = changed.copy()
    moved[INDEX[found.words[0]]] += 1
    assert found.value(moved, vectors[1], INDEX) != found.value(*vectors, INDEX)


def test_values_are_the_definitions(vectors):
    final, initial = vectors
    assert resolve(EVERY[0]).value(*vectors, INDEX) == expected_weat(final, WEATS["career"])
    absolute = expected_weat(final, WEATS["race"], ddof=0, absolute=True)
    assert resolve(EVERY[1]).value(*vectors, INDEX) == absolute >= 0
    science = resolve({"name": "weat", "test": "science"}).value(*vectors, INDEX)
    assert resolve({"name": "weat", "test": "art"}).value(*vectors, INDEX) == -science
    assert resolve(EVERY[3]).value(*vectors, INDEX) == expected_weat(final, WEATS["religion"])
    moved = sum((p - q) ** 2 for p, q in zip(final[-1], initial[-1], strict=True)) / DIM
    assert resolve(EVERY[5]).value(*vectors, INDEX) == pytest.approx(moved, rel=1e-14)
    john, near = rows(final, ["john"])[0], rows(final, ["office", "he"])
    cosines = [john @ n / np.sqrt((john @ john) * (n @ n)) for n in near]
    assert resolve(EVERY[6]).value(*vectors, INDEX) == pytest.approx(np.mean(cosines), rel=1e-14)


def test_float32_vectors_are_measured_in_float64(vectors):
    final = vectors[0].astype(np.float32)
    exact = expected_weat(final.astype(np.float64), WEATS["career"])
    assert resolve(EVERY[0]).value(final, final, INDEX) == exact


def test_a_zero_vector_has_no_effect_size_and_says_so_without_a_warning(vectors):
    final = vectors[0].copy()
    final[INDEX["john"]] = 0
    assert np.isnan(resolve(EVERY[0]).value(final, vectors[1], INDEX))


def test_rare_words_are_left_out():
    counts = {**COUNTS, "john": 19, "amy": 20, "office": 0}
    del counts["home"]
    found = resolve(EVERY[0], counts)
    assert found.refused is None
    assert found.lists["x"] == WEATS["career"].x[1:]
    assert found.lists["y"] == WEATS["career"].y
    assert (len(found.lists["a"]), len(found.lists["b"])) == (7, 7)
    assert not {"john", "office", "home"} & set(found.words)
    everything = resolve({**EVERY[0], "min_uses": 19}, counts)
    assert "john" in everything.words


def test_too_few_words_are_refused_with_what_each_list_kept_and_lost():
    counts = {**COUNTS, "john": 4, "mike": 11, "amy": 1}
    del counts["paul"]
    with pytest.raises(InputError) as caught:
        resolve(EVERY[0], counts)
    text = str(caught.value)
    assert text.startswith("c.yaml: measure.0: the test 'career' keeps too few words (each list needs 6 with 20 uses")
    assert "x 5 of 8 (without john 4, paul unknown, mike 11); y 7 of 8 (without amy 1); a 8 of 8; b 8 of 8" in text
    assert resolve({**EVERY[0], "min_words": 5}, counts).refused is None


def test_a_skipped_test_carries_why_and_cannot_be_measured(vectors):
    found = resolve({**EVERY[0], "if_too_few": "skip"}, {"john": 50})
    assert found.refused is not None
    assert "x 1 of 8" in found.refused
    assert found.refused in found.describe()
    assert found.words == ()
    for measure in (found.value, found.tensor):
        with pytest.raises(ValueError, match="weat_career cannot be measured"):
            measure(*vectors, INDEX)


def test_the_listing_of_lost_words_is_short():
    with pytest.raises(InputError, match=r"a 0 of 22 \(without freedom unknown, [^;)]*, \.\.\.\)") as caught:
        resolve({"name": "weat", "test": "race"}, {})
    assert str(caught.value).count("\n") == 0


def test_halves_are_of_the_words_kept_and_complete_each_other():
    counts = {**COUNTS, "freedom": 1, "murder": 1}
    first, second = (resolve({"name": "weat", "test": "race", "half": half}, counts) for half in ("first", "second"))
    whole = resolve({"name": "weat", "test": "race"}, counts)
    assert not set(first.words) & set(second.words)
    assert set(first.words) | set(second.words) == set(whole.words)
    assert (first.weat_lists, second.weat_lists) == halves(whole.weat_lists, 0)
    assert (first.label, second.label) == ("weat_race_first", "weat_race_second")
    other = resolve({"name": "weat", "test": "race", "half": "first", "half_seed": 1}, counts)
    assert set(other.words) != set(first.words)


def test_a_half_that_would_be_too_small_is_refused():
    counts = {**COUNTS, "john": 0}
    with pytest.raises(InputError, match=r"each half needs 4 words of every list\); kept: x 7, y 8, a 8, b 8"):
        resolve({**EVERY[0], "half": "first"}, counts)
    assert "cannot be halved" in (resolve({**EVERY[0], "half": "first", "if_too_few": "skip"}, counts).refused or "")
    assert resolve({**EVERY[0], "half": "second", "min_words_half": 3}, counts).refused is None


def test_explicit_lists_files_and_names_of_lists_give_the_same_property(tmp_path):
    career = WEATS["career"]
    content = {letter: [word.title() for word in words] for letter, words in career.named().items()}
    (tmp_path / "tests.json").write_text(json.dumps({"mine": content}))
    names = {"x": "male_names", "y": "female_names", "a": "career", "b": "family"}
    (tmp_path / "lists.json").write_text(json.dumps({names[letter]: words for letter, words in content.items()}))
    asked = [
        EVERY[0],
        {"name": "weat", **{letter: list(words) for letter, words in career.named().items()}},
        {"name": "weat", "file": "tests.json", "test": "mine"},
        {"name": "weat", "file": "lists.json", "test": "weat_6"},
        {"name": "weat", "file": "lists.json", **names},
        {"name": "weat", "file": "lists.json", **names, "a": list(career.a)},
    ]
    found = [resolve(options, base_dir=tmp_path) for options in asked]
    assert len({canonical_json(each.identity()) for each in found}) == 1
    assert [each.label for each in found] == ["weat_career", "weat", "weat_mine", "weat_weat_6", "weat", "weat"]
    cased = {**asked[2], "lowercase": False, "if_too_few": "skip"}
    assert "x 0 of 8" in (resolve(cased, base_dir=tmp_path).refused or "")


def test_identity_follows_the_numbers_and_not_the_label():
    found = [resolve(options) for options in [*EVERY, {**EVERY[0], "half": "first"}, {**EVERY[0], "ddof": 0}]]
    assert len({canonical_json(each.identity()) for each in found}) == len(found)
    renamed = {**EVERY[0], "as": "gender"}
    assert resolve(renamed).identity() == resolve(EVERY[0]).identity()
    assert ask(renamed).identity() == ask(EVERY[0]).identity()
    assert resolve(renamed).label == "gender"


def test_the_permutation_test_is_on_the_words_kept(vectors):
    lists, found = WEATS["career"], resolve(EVERY[0])
    final = vectors[0]
    s = associations(*(rows(final, words) for words in (lists.x + lists.y, lists.a, lists.b)))
    assert found.permutation_test(final, INDEX, two_sided=True) == permutation_test(s, 8, two_sided=True)


def test_descriptions_name_the_words():
    assert "effect size (ddof 1); X: john paul" in resolve(EVERY[0]).describe()
    assert "difference of mean associations; X: brother" in resolve(EVERY[2]).describe()
    assert "B:" not in resolve(EVERY[3]).describe()
    assert "'doctor'" in resolve(EVERY[5]).describe()
    assert resolve(EVERY[6]).describe() == "mean cosine of 'john' to office he"


def test_default_labels_have_the_characters_of_labels():
    assert resolve({"name": "displacement", "word": "<NUM>"}, {"<NUM>": 3}).label == "displacement__NUM_"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"name": "weat", "test": "gender"}, "measure.0.test: unknown test 'gender'; allowed: career, math"),
        ({"name": "weat"}, "give either `test`, or the lists"),
        ({"name": "weat", "test": "career", "x": ["he"]}, "give either `test`, or the lists"),
        ({"name": "weat", "x": ["he"], "a": ["math"]}, "only x, a given; a test needs x, y and a"),
        ({"name": "weat", "x": "men", "y": ["she"], "a": ["math"]}, "x is the name of a list; give the `file`"),
        ({"name": "weat", "x": ["he"], "y": ["He"], "a": ["math"]}, "'he' occurs in x and in y"),
        ({"name": "weat", "test": "career", "file": "absent.json"}, "measure.0.file: 'absent.json' does not exist"),
        ({"name": "weat", "test": "career", "ddof": 2}, "measure.0.ddof: 2"),
        ({"name": "weat", "test": "career", "as": "a b"}, "measure.0.as: 'a b'"),
        ({"name": "weat", "test": "career", "min_use": 3}, "unknown key 'min_use'; allowed: a, absolute, as"),
        ({"name": "bias"}, "unknown property 'bias'; allowed: displacement, neighbour, weat"),
        (
            {"name": "displacement", "word": "kirk"},
            "measure.0.word: the word 'kirk' is not in the vocabulary",
        ),
        (
            {"name": "displacement", "word": "doctor", "min_uses": 10},
            "'doctor' is used 9 times, fewer than min_uses 10",
        ),
        ({"name": "neighbour", "word": "john", "near": ["kirk"]}, "measure.0.near: the word 'kirk' is not in"),
        ({"name": "neighbour", "word": "john", "near": []}, "measure.0.near: []"),
        ({"name": "neighbour", "word": "john", "near": ["john"]}, "'john' is given twice"),
    ],
)
def test_bad_requests_are_refused_in_one_line(options, part, tmp_path):
    with pytest.raises(InputError) as caught:
        resolve(options, base_dir=tmp_path)
    assert part in str(caught.value)
    assert str(caught.value).startswith("c.yaml: measure.0")


def test_properties_are_chosen_and_resolved_without_torch():
    code = (
        "import sys\nfrom pathlib import Path\nfrom tasks.components import parse_named\n"
        "from tasks.registry import PROPERTIES, RECIPES\n"
        "asked = [{'name': 'weat', 'test': 'scifi', 'if_too_few': 'skip'}, {'name': 'displacement', 'word': 'a'}]\n"
        "[parse_named(PROPERTIES, o, 'c', 'k').resolve({'a': 3}, Path(), 'c: k').describe() for o in asked]\n"
        "parse_named(RECIPES, {'name': 'hard_debias'}, 'c', 'k').with_files(Path(), 'c: k').identity()\n"
        "sys.exit('imported torch' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
