import json

import pytest

from tasks.data.word_lists import (
    CALISKAN_TESTS,
    DEFINITIONAL_PAIRS,
    E_RACE,
    R_RACE,
    WEATS,
    WeatLists,
    read_pairs,
    read_word_lists,
    read_words,
)
from tasks.errors import InputError

LISTS = {"male_names": ["John", "Paul"], "female_names": ["Amy", "Joan"], "career": ["office"], "family": ["home"]}


def written(tmp_path, content):
    path = tmp_path / "lists.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def problem_of(read, path):
    """What an InputError that names the file says besides."""
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize("name", sorted(WEATS))
def test_every_built_in_test_is_sound_and_its_targets_are_equally_many(name):
    lists = WEATS[name]
    assert lists.problem() is None
    assert len(lists.x) == len(lists.y)
    assert all(word == word.lower() for words in lists.named().values() for word in words)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("career", [8, 8, 8, 8]),
        ("math", [8, 8, 8, 8]),
        ("science", [8, 8, 8, 8]),
        ("race", [10, 10, 22, 22]),
        ("scifi", [5, 5, 5, 5]),
        ("religion", [10, 10, 6]),
    ],
)
def test_sizes_are_those_of_the_released_code(name, sizes):
    assert [len(words) for words in WEATS[name].named().values()] == sizes


def test_art_is_science_with_the_attributes_exchanged():
    science, art = WEATS["science"], WEATS["art"]
    assert (art.x, art.y, art.a, art.b) == (science.x, science.y, science.b, science.a)


def test_religion_compares_the_names_of_race_with_one_list_and_puts_african_american_names_first():
    religion, race = WEATS["religion"], WEATS["race"]
    assert (religion.x, religion.y, religion.b) == (race.y, race.x, None)


def test_pairs_are_complete():
    assert len(DEFINITIONAL_PAIRS) == 10
    assert len({word for pair in DEFINITIONAL_PAIRS for word in pair}) == 20
    assert (len(E_RACE), len(R_RACE)) == (5, 4)


@pytest.mark.parametrize(
    ("lists", "part"),
    [
        (WeatLists(("he",), (), ("math",)), "y is empty"),
        (WeatLists(("he", "he"), ("she",), ("math",)), "'he' occurs twice in x"),
        (WeatLists(("he",), ("she",), ("math",), ("he",)), "'he' occurs in x and in b"),
    ],
)
def test_lists_that_make_no_test_say_why(lists, part):
    assert part in (lists.problem() or "")


def test_a_file_of_lists_makes_the_numbered_tests_whose_lists_it_has(tmp_path):
    found = read_word_lists(written(tmp_path, LISTS))
    expected = WeatLists(("John", "Paul"), ("Amy", "Joan"), ("office",), ("home",))
    assert found.test("weat_6", "config") == expected
    assert found.words("career", "config") == ("office",)
    with pytest.raises(InputError, match=r"config: .* has no list 'math'; allowed: male_names, "):
        found.test("weat_7", "config")
    with pytest.raises(InputError, match=r"config: .* has no test 'gender'; allowed: weat_6$"):
        found.test("gender", "config")


def test_a_name_in_a_file_may_stand_for_a_whole_test(tmp_path):
    test = {"x": ["he"], "y": ["she"], "a": ["math", "logic"]}
    found = read_word_lists(written(tmp_path, {"mine": test, **LISTS}))
    assert found.test("mine", "config") == WeatLists(("he",), ("she",), ("math", "logic"))


def test_numbered_tests_are_ten_with_four_lists_each():
    assert list(CALISKAN_TESTS) == [f"weat_{number}" for number in range(1, 11)]
    assert all(len(set(parts)) == 4 for parts in CALISKAN_TESTS.values())


def test_pairs_and_words_are_read_in_their_order(tmp_path):
    assert read_pairs(written(tmp_path, [["he", "she"], ["Dad", "Mom"]])) == (("he", "she"), ("Dad", "Mom"))
    assert read_words(written(tmp_path, ["queen", "naïve"])) == ("queen", "naïve")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["a", "b"]', "not an object"),
        ('{"a": "word"}', ": a: 'word' is not a list of words"),
        ('{"a": []}', ": a: [] is not a list of words"),
        ('{"a": ["word", 3]}', ": a.1: 3 is not a word"),
        ('{"a": ["word", " "]}', ": a.1: ' ' is not a word"),
        ('{"a": ["x"], "a": ["y"]}', "'a' is given twice"),
        ('{"mine": {"x": ["he"], "y": ["she"]}}', ": mine: has the keys x, y; a test has x, y, a"),
        ('{"mine": {"x": ["he"], "y": ["she"], "a": ["m"], "c": ["n"]}}', "has the keys x, y, a, c"),
        ('{"mine": {"x": ["he"], "y": ["she"], "a": [null]}}', ": mine.a.0: None is not a word"),
    ],
)
def test_malformed_lists_are_refused_with_their_place(tmp_path, content, part):
    assert part in problem_of(read_word_lists, written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{}", "not a list of pairs"),
        ("[]", "not a list of pairs"),
        ('[["he", "she"], ["he"]]', ": 1: ['he'] is not a pair"),
        ('[["he", "he"]]', ": 0: ['he', 'he'] is not a pair"),
        ('["he", "she"]', ": 0: 'he' is not a list of words"),
        ('[["he", 1]]', ": 0.1: 1 is not a word"),
    ],
)
def test_malformed_pairs_are_refused_with_their_place(tmp_path, content, part):
    assert part in problem_of(read_pairs, written(tmp_path, content))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    assert "cannot be read" in problem_of(read_words, tmp_path / "absent.json")
    assert "cannot be read" in problem_of(read_words, tmp_path)
    path = tmp_path / "latin.json"
    path.write_bytes('["naïve"]'.encode("latin-1"))
    assert "not JSON in UTF-8" in problem_of(read_words, path)
