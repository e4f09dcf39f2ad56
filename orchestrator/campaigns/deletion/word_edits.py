"""Edits that replace one key word in training examples instead of removing them (Yeh et al. 2022, appendix K and Figure 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from influence.base import Method
from influence.methods.key_words import NO_WORD, KeyWords
from influence.methods.requirements import require_model, require_task
from influence.methods.tracin_we import TracInWE
from orchestrator.campaigns.scored import Scored
from orchestrator.experiment.experiment import Experiment
from tasks.data.edits import Edit, ReplaceBy
from tasks.errors import InputError
from tasks.model import Model
from tasks.seeds import generator
from tasks.task import Task

SIDES = {"proponent_words": "proponents", "opponent_words": "opponents"}  # group -> the group whose examples are edited


def side_of(group: str) -> str:
    """Return the group whose examples are edited: that of a group of words, else the group itself."""
    return SIDES.get(group, group)


def key_words_of(groups: Iterable[str], methods: Mapping[str, Method]) -> dict[str, Method]:
    """Return label -> the key words that these groups need.

    They are those of the first method that decomposes its scores by word and does not use special tokens only, by default `tracin_we`.
    """
    decomposing = (m for m in methods.values() if isinstance(m, TracInWE) and m.tokens != "special")
    of = next(decomposing, TracInWE())
    return {_label(group): KeyWords(side=SIDES[group], of=of) for group in groups if group in SIDES}  # type: ignore[arg-type]


def _label(group: str) -> str:
    return f"key words of {SIDES[group]}"


def check_words(experiment: Experiment, groups: Iterable[str], by: ReplaceBy) -> None:
    """Raise InputError if a group replaces words, and the task has none to replace or its tokeniser has no token `by`."""
    where = experiment.config.where
    asked = [group for group in groups if group in SIDES]
    if not asked:
        return
    task = experiment.task
    require_task(task, Task.with_replaced, f"{where}: deletion.groups", f"{asked[0]} replaces words of a text")
    require_model(task, Model.embedding_module, f"{where}: deletion.groups", f"{asked[0]} needs a word embedding")
    if by == "pad":  # every tokeniser has padding; for other tokens the tokeniser must be loaded
        if problem := task.model.hidden_token_problem(experiment.config.base_dir):
            moved = f"'pad' hides the word, which moves all words behind it, since {problem}"
            raise InputError(f"{where}: deletion.replace_by", f"{moved}; allowed: mask, unknown")
        return
    task.prepare()
    try:
        task.with_replaced(Edit.replacement({int(experiment.train.ids[0]): [0]}, by))
    except ValueError as error:
        raise InputError(f"{where}: deletion.replace_by", str(error)) from error


@dataclass(frozen=True)
class WordEdits:
    """The edits of groups that replace words. `by` names the special token that replaces a word.

    A method's key word of a query and a training example is that of influence.methods.key_words; all its occurrences in the example are
    replaced. An example without a key word keeps its text. A control replaces a random word of each example.
    """

    scored: Scored
    by: ReplaceBy

    def ranked(self, group: str, query: int, ids: Sequence[int], ks: Sequence[int]) -> list[Edit]:
        """Return the edits that replace the key words of the first k of `ids` for the query at a position, for every k."""
        matrix = self.scored.matrix("", _label(group))
        row = matrix.scores[query]
        words = {i: int(row[self._column[i]]) for i in ids}
        return self._edits({i: word for i, word in words.items() if word != NO_WORD}, ids, ks)

    def drawn(self, seed: int, ids: Sequence[int], ks: Sequence[int]) -> list[Edit]:
        """Return the edits that replace a random word of the first k of `ids`, for every k; an example's word depends on the seed only."""
        words = {}
        for i in ids:
            present = sorted(set(self._tokens(i)) - self.scored.experiment.task.special_ids)
            if present:
                words[i] = present[int(generator(seed, "random word", i).integers(len(present)))]
        return self._edits(words, ids, ks)

    def _edits(self, words: Mapping[int, int], ids: Sequence[int], ks: Sequence[int]) -> list[Edit]:
        at = {i: [p for p, token in enumerate(self._tokens(i)) if token == word] for i, word in words.items()}
        return [Edit.replacement({i: at[i] for i in ids[:k] if i in at}, self.by) for k in ks]

    def _tokens(self, train_id: int) -> list[int]:
        """Return the tokens of a training example in the order of their positions."""
        return [token for _, _, token in self.scored.experiment.task.token_spans("train", self._column[train_id])]

    @cached_property
    def _column(self) -> dict[int, int]:
        """TrainId -> row of the train split, which is the column of score matrices."""
        self.scored.experiment.task.prepare()
        return {int(i): row for row, i in enumerate(self.scored.experiment.train.ids)}
