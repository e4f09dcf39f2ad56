"""Draws sentences like those of MSGS from a grammar.

The core attribute is whether a sentence has an adjective; the spurious attribute is whether "the" precedes "a".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tasks.base import Split
from tasks.seeds import generator

Item = TypeVar("Item")
CLASSES = ("absent", "present")  # whether the sentence has an adjective
CONFOUNDS = ("a first", "the first")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# every noun, modifier and adjective starts with a consonant, so that "a" fits before it
ADJECTIVES = _words("""
    tall short big small large tiny giant little thin slim fat skinny young nice kind mean clever smart stupid dumb
    careful careless great good bad normal strange beautiful healthy sick hot cold warm cool wet dry damp dull famous
    friendly gentle cheerful calm brave proud polite rude silly funny lovely pretty handsome perfect modern charming
    helpful lazy noisy quiet dirty dusty filthy rich poor cheap bright dark pale heavy weak strong boring peaceful
    pleasant mysterious nervous serious curious cruel wonderful terrible horrible splendid simple complex rare common
    popular powerful fancy shabby remarkable suspicious miserable fierce
""")
PEOPLE = _words("""
    teacher student doctor dentist lawyer waiter waitress dancer driver mentor tutor guest customer senator partner
    cousin nephew niece sister brother daughter son mother father grandmother grandfather husband wife boyfriend
    girlfriend colleague classmate contractor hairdresser podiatrist pedestrian teenager boy girl woman man lady guy
    child person baker farmer painter singer writer reporter librarian neighbor plumber carpenter gardener fisherman
    policeman soldier sailor pilot nurse therapist judge tailor butcher chef barber banker scientist chemist biologist
    historian translator violinist pianist drummer wrestler runner swimmer
""")
THINGS = _words("""
    book painting picture photograph sketch drawing newspaper magazine report story song melody ballad tune play
    documentary movie computer lamp mirror vase candle window door gate chair table couch rug carpet curtain jacket
    sweater shirt skirt scarf glove hat shoe sock coat blouse dress car truck bicycle boat canoe raft ship plane cart
    carriage banana tomato cucumber mushroom pepper cake pie sandwich pizza soup fork spoon plate cup glass bottle
    bowl coin check donation dog cat horse rabbit turtle hamster bird snake fish goat sheep pig
""")
PLACES = _words("""
    school hospital bank museum library restaurant cafe mall store theater river lake mountain hill glacier valley
    beach forest park garden kitchen closet bathroom basement castle palace temple church cathedral harbor station
    market factory farm bakery bookstore supermarket stadium zoo campus courthouse mansion cottage cabin barn
    warehouse laboratory
""")
MODIFIERS = _words("""
    city town village county state district province college school hospital family company government community
    church palace castle museum theater railway harbor farm forest mountain river lake valley market sports tennis
    football history music piano guitar chemistry biology physics mathematics language computer newspaper science
    research bakery factory fashion travel weekend winter summer midnight morning holiday wedding birthday business
    finance tax police prison navy cavalry
""")
ROLES = _words("""
    director mayor spokesperson governor president producer chairman king queen captain treasurer secretary manager
    chancellor commander minister deputy referee goalkeeper champion bishop pope leader supervisor moderator host
    valedictorian sheriff quarterback chairwoman spokeswoman viceroy regent boss
""")
NAMES = _words("""
    John Mary Samuel Benjamin Anna Derek Gina Thomas Vanessa Travis Helen Marcus Rachel Amanda Joel Kristen Douglas
    Naomi Carol Diane Noah Jennifer Karen Rebecca Joseph Donna Wayne Paula Martha Tiffany Martin Emily Holly Sarah
    Vincent Grace Roger Bruce Nancy Timothy Barbara Julie Liam Scott Julia Daniel Rodney Valerie Cindy Theresa Jerry
    Wendy Patricia Brian Sally Nina Sharon Janet Michael Heather Laura Stephen Monica Charles Peter Danielle
""")
VERBS = _words("""
    admire praise criticize remember discover question follow describe like love observe repair respect reveal
    resemble explore notice insult paint film collect protect defend destroy ignore avoid enjoy consider recommend
    mention trust join damage lift move return record investigate appreciate adore welcome measure inspect inspire
    disturb bother annoy help visit examine
""")
MOTIONS = _words("work wait walk talk jump listen remain stay play rest shout whisper dance smile linger")
PREPOSITIONS = _words("in at near behind outside beside")
OTHER_DETERMINERS = _words("some every each no this that")
WORDS = {
    "person": PEOPLE,
    "object": THINGS + PEOPLE,
    "place": PLACES,
    "name": NAMES,
    "in": PREPOSITIONS,
    "modifier": MODIFIERS,
    "predicate": ROLES,
}
_OPEN = ("modifier", "predicate")  # parts that an adjective can replace; every second clause has two of them
_FIRST = ("det person verb det object", "det person motion in det place")
_SECOND = (
    "det modifier person is predicate",
    "det modifier person in det place is predicate",
    "det modifier person is in det modifier place",
    "det modifier person in det modifier place is name",
    "name is det modifier person in det modifier place",
)
FRAMES = tuple(f"{first} and {second}".split() for first in _FIRST for second in _SECOND)
_AUXILIARIES = (
    *(("", ending) for ending in ("s", "ed")),
    *((word, "ed") for word in ("has", "had", "hasn't", "hadn't")),
    *((word, "") for word in ("will", "can", "might", "should", "won't", "didn't")),
    *((word, "ing") for word in ("is", "was", "isn't", "wasn't")),
)
N_DRAWS = 24  # at most: frame, articles, adjective, two per verb, one per other part of the frame


class MsgsGrammar(BaseModel):
    """How many sentences are drawn, and how often the spurious attribute agrees with the core one.

    In train the attributes differ in round(inoculation n_train) sentences, the counter-examples, half of each kind. In
    dev and test they agree in round(test_agreement n) sentences. `held_out_adjectives` is the fraction of the
    adjectives that occur in no train sentence; dev and test use all of them. The defaults are the proportions of Han &
    Tsvetkov 2021, section 5.2, except that MSGS holds out 20 of 42 adjectives: with none held out, a bag of words
    learns the core attribute.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    n_train: int = Field(default=5000, ge=4, le=1_000_000)
    n_dev: int = Field(default=1000, ge=4, le=1_000_000)
    n_test: int = Field(default=1000, ge=4, le=1_000_000)
    inoculation: float = Field(default=0.003, ge=0, le=0.5)
    test_agreement: float = Field(default=2 / 3, ge=0, le=1)
    n_adjectives: int = Field(default=40, ge=2, le=len(ADJECTIVES))
    held_out_adjectives: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)

    def splits(self) -> dict[str, Split]:
        """Draw the splits train, dev and test; no sentence occurs twice in them. The same options give the same sentences."""
        seen: set[str] = set()
        held_out = min(round(self.held_out_adjectives * self.n_adjectives), self.n_adjectives - 1)
        order = generator(self.seed, "msgs-grammar", 0).permutation(len(ADJECTIVES))[: self.n_adjectives]
        adjectives = [ADJECTIVES[number] for number in order]
        sizes = {"train": self.n_train, "dev": self.n_dev, "test": self.n_test}
        found = {}
        for number, (name, size) in enumerate(sizes.items(), 1):
            n_counter = size - round(self.test_agreement * size)
            if name == "train":
                n_counter = round(self.inoculation * size)
            known = adjectives[held_out:] if name == "train" else adjectives
            found[name] = _drawn(size, n_counter, known, generator(self.seed, "msgs-grammar", number), seen)
        return found


def msgs_split(
    texts: Sequence[str], linguistic: Sequence[int] | np.ndarray, surface: Sequence[int] | np.ndarray
) -> Split:
    """Return a split whose label is the linguistic attribute and whose confound is the surface one; ids are row numbers."""
    labels, confounds = np.asarray(linguistic, np.int64), np.asarray(surface, np.int64)
    return Split(
        np.arange(len(texts), dtype=np.int64),
        labels,
        CLASSES,
        tuple(texts),
        confounds=confounds,
        confound_names=CONFOUNDS,
    )


def cells(n: int, n_counter: int) -> np.ndarray:
    """Return (core, surface) of `n` sentences of which `n_counter` are counter-examples: int64 [n, 2], not shuffled.

    The agreeing sentences are half (0, 0) and half (1, 1), the counter-examples half (1, 0) and half (0, 1). If both
    numbers are odd, the two extra sentences have different labels.
    """
    n_agree = n - n_counter
    counts = [n_agree // 2, n_agree - n_agree // 2, n_counter // 2, n_counter - n_counter // 2]
    return np.repeat(np.asarray([(0, 0), (1, 1), (1, 0), (0, 1)], np.int64), counts, axis=0)


def _drawn(n: int, n_counter: int, adjectives: Sequence[str], rng: np.random.Generator, seen: set[str]) -> Split:
    attributes = rng.permutation(cells(n, n_counter))
    texts = [_unseen(rng, core, surface, adjectives, seen) for core, surface in attributes.tolist()]
    return msgs_split(texts, attributes[:, 0], attributes[:, 1])


def _unseen(rng: np.random.Generator, core: int, surface: int, adjectives: Sequence[str], seen: set[str]) -> str:
    while True:
        text = sentence(rng.random(N_DRAWS).tolist(), core, surface, adjectives)
        if text not in seen:
            seen.add(text)
            return text


def sentence(draws: Sequence[float], core: int, surface: int, adjectives: Sequence[str]) -> str:
    """Return the sentence that `draws` [24], uniform in [0, 1), determine with these attributes.

    The draws alone determine the frame, the words and the two places of the articles. `surface` decides which article
    comes first; `core` decides whether an adjective replaces the noun at one place. The same draws therefore give
    sentences of the same length for all four (core, surface), so that everything else is exactly independent of the
    attributes.
    """
    draw = _Draw(iter(draws))
    frame = draw.one_of(FRAMES)
    the, a = _articles(frame, draw, surface)
    adjective_at = draw.one_of([place for place, part in enumerate(frame) if part in _OPEN])
    words = []
    for place, part in enumerate(frame):
        if part == "det":
            other = draw.one_of(OTHER_DETERMINERS)
            words.append("the" if place == the else "a" if place == a else other)
        elif part in ("verb", "motion"):
            words.append(draw.verb(VERBS if part == "verb" else MOTIONS))
        else:
            is_adjective = core == 1 and place == adjective_at
            words.append(draw.one_of(adjectives if is_adjective else WORDS.get(part, (part,))))
    text = " ".join(words)
    return f"{text[0].upper()}{text[1:]}."


def _articles(frame: Sequence[str], draw: _Draw, surface: int) -> tuple[int, int]:
    """Return the places of "the" and "a", which are any two of the frame's determiners."""
    first, second = draw.one_of(list(combinations([at for at, part in enumerate(frame) if part == "det"], 2)))
    return (first, second) if surface == 1 else (second, first)


@dataclass(frozen=True)
class _Draw:
    """Choices that each use one uniform number."""

    numbers: Iterator[float]

    def one_of(self, items: Sequence[Item]) -> Item:
        return items[int(next(self.numbers) * len(items))]

    def verb(self, verbs: Sequence[str]) -> str:
        base, (auxiliary, ending) = self.one_of(verbs), self.one_of(_AUXILIARIES)
        stem = base[:-1] if base.endswith("e") and ending in ("ed", "ing") else base
        return f"{auxiliary} {stem}{ending}".strip()
