"""Published word lists (the association tests of Silva et al. 2022, the pairs of Bolukbasi et al. 2016), and files of word lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.suggestions import did_you_mean

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class WeatLists:
    """Targets `x` and `y`, attributes `a` and `b`; `b` is None in a one-sided test."""

    x: tuple[str, ...]
    y: tuple[str, ...]
    a: tuple[str, ...]
    b: tuple[str, ...] | None = None

    def named(self) -> dict[str, tuple[str, ...]]:
        """Return the non-empty lists by letter."""
        return {letter: words for letter in "xyab" if (words := getattr(self, letter)) is not None}

    def problem(self) -> str | None:
        """Return why these lists are no valid test (a list is empty, or a word occurs twice), or None."""
        seen: dict[str, str] = {}
        for letter, words in self.named().items():
            if not words:
                return f"list {letter} is empty"
            for word in words:
                if word in seen:
                    places = f"twice in {letter}" if seen[word] == letter else f"in {seen[word]} and in {letter}"
                    return f"the word {word!r} occurs {places}; a word may occur in one list only"
                seen[word] = letter
        return None


def _test(x: str, y: str, a: str, b: str | None = None) -> WeatLists:
    return WeatLists(*(tuple(words.split()) for words in (x, y, a)), b=tuple(b.split()) if b is not None else None)


RELIGION = ("jew", "jewish", "islam", "religion", "islamic", "muslim")

_SCIENCE = _test(
    "brother father uncle grandfather son he his him",
    "sister mother aunt grandmother daughter she hers her",
    "science technology physics chemistry einstein nasa experiment astronomy",
    "poetry art shakespeare dance literature novel symphony drama",
)
_RACE = _test(
    "josh alan ryan andrew jack greg amanda katie nancy ellen",
    "theo jerome leroy lamar lionel malik tyrone ebony jasmine tia",
    "freedom health love peace cheer friend heaven loyal pleasure diamond gentle honest lucky diploma gift honor "
    "miracle sunrise family happy laughter vacation",
    "crash murder sickness accident death grief poison stink assault disaster hatred tragedy bomb divorce jail "
    "poverty ugly cancer evil kill rotten vomit",
)

# Silva et al. 2022, appendix C, complete as in their released code. `art` is `science` with the attributes exchanged:
# its effect is minus that of `science`. `religion` is the one-sided test of section 4.3.1.
WEATS: Mapping[str, WeatLists] = {
    "career": _test(
        "john paul mike kevin steve greg jeff bill",
        "amy joan lisa sarah diana kate ann donna",
        "executive management professional corporation salary office business career",
        "home parents children family cousins marriage wedding relatives",
    ),
    "math": _test(
        "male man boy brother he him his son",
        "female woman girl sister she her hers daughter",
        "math algebra geometry calculus equations computation numbers addition",
        "poetry art dance literature novel symphony drama sculpture",
    ),
    "science": _SCIENCE,
    "art": WeatLists(_SCIENCE.x, _SCIENCE.y, _SCIENCE.b or (), _SCIENCE.a),
    "race": _RACE,
    "religion": WeatLists(_RACE.y, _RACE.x, RELIGION),
    "scifi": _test(
        "anakin yoda kanan ezra ahsoka",
        "vader sidious dooku maul inquisitor",
        "sith evil anger hate fear",
        "jedi good defense knowledge peace",
    ),
}

# the pairs of Bolukbasi et al. 2016 whose differences span the gender direction
DEFINITIONAL_PAIRS: Pairs = (
    ("woman", "man"),
    ("girl", "boy"),
    ("she", "he"),
    ("mother", "father"),
    ("daughter", "son"),
    ("gal", "guy"),
    ("female", "male"),
    ("her", "his"),
    ("herself", "himself"),
    ("mary", "john"),
)

# from the released code of Silva et al. 2022, for a race direction: pairs to equalise, and words that name a race
E_RACE: Pairs = (
    ("slave", "manager"),
    ("musician", "executive"),
    ("runner", "redneck"),
    ("criminal", "hillbilly"),
    ("homeless", "leader"),
)
R_RACE = ("black", "white", "african-american", "caucasian")

# Caliskan et al. 2017, table 1: the lists (x, y, a, b), by name in a file of lists, that make tests 1 to 10
CALISKAN_TESTS: Mapping[str, tuple[str, str, str, str]] = {
    "weat_1": ("flowers", "insects", "pleasant_5", "unpleasant_5a"),
    "weat_2": ("instruments", "weapons", "pleasant_5", "unpleasant_5a"),
    "weat_3": ("european_american_names_5", "african_american_names_5", "pleasant_5", "unpleasant_5b"),
    "weat_4": ("european_american_names_7", "african_american_names_7", "pleasant_5", "unpleasant_5b"),
    "weat_5": ("european_american_names_7", "african_american_names_7", "pleasant_9", "unpleasant_9"),
    "weat_6": ("male_names", "female_names", "career", "family"),
    "weat_7": ("math", "arts", "male_terms", "female_terms"),
    "weat_8": ("science", "arts_2", "male_terms_2", "female_terms_2"),
    "weat_9": ("mental_disease", "physical_disease", "temporary", "permanent"),
    "weat_10": ("young_people_names", "old_people_names", "pleasant_9", "unpleasant_9"),
}


@dataclass(frozen=True)
class WordListFile:
    """A JSON file of word lists by name; a name may also hold a whole test, `{"x": [...], "y": [...], "a": [...]}`."""

    path: Path
    lists: Mapping[str, tuple[str, ...]]
    tests: Mapping[str, WeatLists]

    def test(self, name: str, where: object) -> WeatLists:
        """Return the test called `name` in the file, or one of `CALISKAN_TESTS` from its lists. Raises InputError."""
        if name in self.tests:
            return self.tests[name]
        if name in CALISKAN_TESTS:
            return WeatLists(*(self.words(part, where) for part in CALISKAN_TESTS[name]))
        allowed = [*self.tests, *(n for n, parts in CALISKAN_TESTS.items() if set(parts) <= self.lists.keys())]
        raise InputError(
            where,
            f"{self.path} has no test {name!r}; allowed: {', '.join(allowed) or 'none'}{did_you_mean(name, allowed)}",
        )

    def words(self, name: str, where: object) -> tuple[str, ...]:
        """Return the list called `name`. Raises InputError."""
        if name not in self.lists:
            allowed = ", ".join(self.lists) or "none"
            problem = f"{self.path} has no list {name!r}; allowed: {allowed}{did_you_mean(name, self.lists)}"
            raise InputError(where, problem)
        return self.lists[name]


def read_word_lists(path: Path) -> WordListFile:
    """Read lists (and tests) by name from a JSON file. Raises InputError naming the file and the key."""
    content = _json(path)
    if not isinstance(content, dict):
        raise InputError(path, f"{_shown(content)} is not an object of word lists by name")
    lists, tests = {}, {}
    for name, value in content.items():
        if isinstance(value, dict):
            tests[name] = _weat_lists(value, path, name)
        else:
            lists[name] = _words(value, f"{path}: {name}")
    return WordListFile(path, lists, tests)


def read_words(path: Path) -> tuple[str, ...]:
    """Read one list of words from a JSON file. Raises InputError."""
    return _words(_json(path), str(path))


def read_pairs(path: Path) -> Pairs:
    """Read a list of pairs of words from a JSON file. Raises InputError naming the file and the pair's position (from 0)."""
    content = _json(path)
    if not isinstance(content, list) or not content:
        raise InputError(path, f"{_shown(content)} is not a list of pairs of words")
    return tuple(_pair(value, f"{path}: {position}") for position, value in enumerate(content))


def _weat_lists(value: Mapping[str, Any], path: Path, name: str) -> WeatLists:
    if not {"x", "y", "a"} <= value.keys() or not value.keys() <= {"x", "y", "a", "b"}:
        raise InputError(f"{path}: {name}", f"has the keys {', '.join(value)}; a test has x, y, a and optionally b")
    return WeatLists(**{letter: _words(words, f"{path}: {name}.{letter}") for letter, words in value.items()})


def _pair(value: Any, where: str) -> tuple[str, str]:
    words = _words(value, where)
    if len(words) != 2 or words[0] == words[1]:
        raise InputError(where, f"{_shown(value)} is not a pair of two words")
    return words[0], words[1]


def _words(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(where, f"{_shown(value)} is not a list of words")
    for position, word in enumerate(value):
        if not isinstance(word, str) or not word.strip():
            raise InputError(f"{where}.{position}", f"{_shown(word)} is not a word")
    return tuple(value)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda items: _object(items, path))
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not JSON in UTF-8: {error}") from error


def _object(items: Sequence[tuple[str, Any]], path: Path) -> dict[str, Any]:
    """Build an object of the file; a repeated name is refused, because its first list would silently be lost."""
    found = dict(items)
    if len(found) < len(items):
        names = [name for name, _ in items]
        raise InputError(path, f"the name {next(n for n in names if names.count(n) > 1)!r} is given twice")
    return found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
