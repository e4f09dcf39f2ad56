"""The sentences that influence a property most, the contributions of words to each score, and the words' nearest neighbours."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from influence.matrix import positions_of
from influence.methods.influence_function import InfluenceFunction
from influence.scoring import row_contributions
from orchestrator.campaigns.debias.block import DebiasBlock
from orchestrator.campaigns.debias.page_view import Sentence
from orchestrator.campaigns.debias.plan import property_labels
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.report.numbers import significant
from orchestrator.storage.checkpoints import CheckpointError
from tasks.hooks import overrides
from tasks.task import Task

if TYPE_CHECKING:
    from influence.base import Method
    from influence.checkpoint import Checkpoint

NAMED, NEIGHBOURS, WORDS_NAMED = 3, 10, 4
LEAST_SHARE = 0.02  # contributions below this share of a sentence's largest one are shown without their number
REPEAT = 0  # every repeat has its own base model, scores and sets; the page shows those of the first
LISTS = {"x": "target X", "y": "target Y", "a": "attribute A", "b": "attribute B"}
SETS = {
    "A": ("Amplify the bias (A)", "Adds to the bias"),
    "M": ("Mitigate the bias (M)", "Takes from the bias"),
}

Parts = Mapping[tuple[int, int], Sequence[tuple[int, float]]]


def base_checkpoints(finished: FinishedRun) -> list[Checkpoint]:
    """Return the weights of the first repeat's base model; empty if the store no longer has them, since most of the report does not need them."""
    try:
        return finished.checkpoints(finished.scored.groups[REPEAT].key)
    except CheckpointError:
        return []


def influential_sentences(
    campaign: DebiasBlock, finished: FinishedRun, checkpoints: Sequence[Checkpoint]
) -> list[Sentence]:
    """Return the `campaign.sentences` strongest of A and of M, for every corrected property, by the first scored method.

    Scores and contributions are signed so that > 0 adds to the bias. A word of the property that is in the sentence but has no
    part in its score contributes 0; if the method's score cannot be decomposed over words, all contributions are NaN.
    """
    experiment, scored = finished.experiment, finished.scored
    method, ids = next(iter(experiment.scored)), property_labels(experiment.task) or {}
    sets = {
        label: [found[: campaign.sentences].tolist() for found in campaign.sets(scored, REPEAT, label, method)]
        for label in campaign.correct
    }
    pairs = [(ids[label], train_id) for label, chosen in sets.items() for found in chosen for train_id in found]
    parts = _parts(finished, experiment.scored[method], checkpoints, pairs)
    matrix, sentences = scored.matrix(scored.groups[REPEAT].key, method), []
    for label, chosen in sets.items():
        sign, row = campaign.sign(scored, REPEAT, label), matrix.row(ids[label])
        for name, found in zip("AM", chosen, strict=True):
            scores = sign * row[positions_of(found, matrix.train_ids, "train")].astype(np.float64)
            for rank, (train_id, score) in enumerate(zip(found, scores.tolist(), strict=True), start=1):
                text = _text(experiment.train, train_id)
                shares = None if parts is None else {n: sign * part for n, part in parts[ids[label], train_id]}
                words = _words(experiment.task, label, text, shares)
                sentences.append(Sentence(label, name, rank, train_id, text, score, words))
    return sentences


def _parts(
    finished: FinishedRun, method: Method, checkpoints: Sequence[Checkpoint], pairs: Sequence[tuple[int, int]]
) -> Parts | None:
    """Return (property id, train id) -> (vocabulary number, part of the score); None if scores cannot be decomposed over words."""
    group = finished.scored.groups[REPEAT]
    task: Any = finished.experiment.arms[group.arm].task
    if not checkpoints or not isinstance(method, InfluenceFunction):
        return None
    if method.parameters != "all" or not task.independent_rows:
        return None
    task.prepare()
    return row_contributions(task, method, checkpoints, finished.scored.queries(group.key), pairs)


def _words(task: Any, label: str, text: str, shares: Mapping[int, float] | None) -> list[tuple[str, str, float]]:
    """Return (word, list, contribution) of the words of a property that are in the text, largest magnitude first."""
    [tested] = [found for found in task.properties if found.label == label]
    letters = {word: letter for letter, words in tested.lists.items() for word in words}
    known = {} if shares is None else {word: shares.get(task.vocabulary[word], 0.0) for word in tested.words}
    held = [word for word in tested.words if known.get(word) or places(text, word)]
    found = [(word, letters.get(word, ""), known.get(word, math.nan)) for word in held]
    return found if shares is None else sorted(found, key=lambda one: -abs(one[2]))


def cause(sentence: Sentence) -> str:
    """Return a sentence on why a training sentence changes a bias test: the target and attribute words it acts on, with their contributions.

    Words that contribute in the direction of the sentence's set come first, then those that contribute against it. Other words of
    the test in the sentence come last; if contributions are unknown (NaN), only these are listed.
    """
    sign = -1.0 if sentence.set == "M" else 1.0
    ranked = sorted(sentence.words, key=lambda word: (-abs(word[2]), word[0]))
    known = [abs(word[2]) for word in ranked if math.isfinite(word[2])]
    counting = [word for word in ranked if word[2] and abs(word[2]) >= LEAST_SHARE * max(known, default=0.0)]
    along = [word for word in counting if sign * word[2] > 0][:WORDS_NAMED]
    against = [word for word in counting if sign * word[2] < 0][:WORDS_NAMED]
    others = [(word[0], word[1], math.nan) for word in ranked if word not in along + against]
    does = SETS.get(sentence.set, ("", "Moves the bias"))[1]
    parts = [f"{does} through {_listed(along)}"] if along else []
    parts += [f"{does} as a whole"] if against and not along else []
    parts += [f"against it: {_listed(against)}"] if against else []
    parts += [f"{'also holds' if parts else 'Holds'} {_listed(others)}"] if others else []
    return "; ".join(parts or ["Holds no word of the test"]) + "."


def _listed(words: Sequence[tuple[str, str, float]]) -> str:
    shown = []
    for word, which, contribution in words:
        place = LISTS.get(which, which)
        details = [place] if place else []
        details += [] if math.isnan(contribution) else [significant(contribution, 2)]
        shown.append(f"{word} ({', '.join(details)})" if details else word)
    return ", ".join(shown[:-1]) + " and " + shown[-1] if len(shown) > 1 else shown[0]


def spans(text: str, words: Sequence[tuple[str, str, float]]) -> list[tuple[int, int, float]]:
    """Return the positions of a test's words in `text`, as whole words in any case: (start, end, contribution)."""
    return [(*place, contribution) for word, _, contribution in words for place in places(text, word)]


def places(text: str, word: str) -> list[tuple[int, int]]:
    """Return the positions (start, end) of a vocabulary word in `text`, by the word rule of tasks.data.corpus (he's is not he)."""
    written = re.escape(word).replace("'", "['’]")
    found = re.finditer(rf"(?<![^\W_])(?<![^\W_]['’]){written}(?!['’]?[^\W_])", text, re.IGNORECASE)
    return [match.span() for match in found]


def list_names(properties: Sequence[Any]) -> dict[str, dict[str, str]]:
    """Return test -> list -> its first words and their number; a one-sided test has no list b."""
    return {
        tested.label: {letter: _named(words) for letter, words in tested.lists.items()}
        for tested in properties
        if tested.lists
    }


def _named(words: Sequence[str]) -> str:
    shown = ", ".join(words[:NAMED])
    return f"{shown} … ({len(words)} words)" if len(words) > NAMED else shown


def nearest_neighbours(
    campaign: DebiasBlock, finished: FinishedRun, checkpoints: Sequence[Checkpoint]
) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return (word, [(neighbour, cosine)]) in the base model, for the words in `watch` and the first word of each corrected property's lists."""
    experiment = finished.experiment
    task: Any = experiment.task
    if not checkpoints or not overrides(task, Task.neighbours):
        return []
    words = list(experiment.settings.task.get("watch", ()))
    for tested in task.properties:
        if tested.label in campaign.correct:
            words += [listed[0] for listed in (tested.lists or {"": tested.words}).values()]
    found = task.neighbours(checkpoints[-1].state, list(dict.fromkeys(words)), n=NEIGHBOURS)
    return list(found.items())


def _text(split: Any, train_id: int) -> str:
    return split.texts[split.rows_of([train_id])[0]]
