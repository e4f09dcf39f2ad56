"""Does the model use an artifact of the data: a number of every train example against the influence of the example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from influence.base import Method
from influence.diagnostic import (
    Diagnostic,
    QueryMeans,
    Scatter,
    ScoredModels,
    Table,
    columns_of,
    function_named,
    require_labels,
)
from influence.diagnostics.artifacts import NEGATIONS, artifact_of, values_of, words_of
from influence.diagnostics.rankings import z_scored
from influence.matrix import ScoreMatrix
from tasks.errors import InputError
from tasks.seeds import generator
from tasks.suggestions import did_you_mean
from tasks.task import Task

BUILT_IN = ("lexical_overlap", "negation")
CURVED = 1e-3  # at this share the variance of the quadratic coefficient is 1000 times that for symmetric z


class Artifact(Diagnostic):
    """Quadratic fit of an artifact of the train examples on their z-scored influence, for every query.

    artifact_i = quadratic z_i^2 + linear z_i + constant by least squares over all train examples, z_i the influence of i
    on the query, z-scored over the train set. A positive quadratic coefficient says that the most influential examples,
    helpful and harmful, have more of the artifact than the others. `of`: lexical_overlap, the share of the words of the
    hypothesis that are in the premise; negation, 1 if a word of the hypothesis is in `negations`, else 0 (if the examples
    are single texts, the words of the text are looked up); or "module:function", a function of the text, or of the two texts of a pair, that returns a number.
    `group_by`: the same for the queries: queries with equal values form a group. `scatter_queries` queries are shown in
    the figure, with `scatter_examples` train examples each: those with the largest |z|, and as many random ones. Han et
    al. 2020, section 5.1 (Figures 4 and 5, Table 6). A query has no fit if its influence falls into two narrow groups,
    since these determine no curve.
    """

    name: ClassVar[str] = "artifact"
    uses_queries: ClassVar[bool] = True
    labels: ClassVar[tuple[str, ...]] = ("method", "group", "predicted")
    explained: ClassVar[str] = (
        "A quadratic polynomial of the z-scored influence is fitted to the artifact of all train examples, for every query. "
        "A positive quadratic coefficient says that the most influential examples, helpful and harmful, have more of the "
        "artifact than the others have. Queries whose influence falls into two narrow groups of values have no fit, and "
        "do not count. The table shows means over queries with 95% intervals over queries, for these "
        "scoring models; group is the value of group_by for the queries, and predicted the class that is predicted for them."
    )
    figure: ClassVar[Scatter] = Scatter("points", ("method", "query"), "influence", "artifact", "fitted")
    query_means: ClassVar[Mapping[str, QueryMeans]] = MappingProxyType(
        {"": QueryMeans("queries", labels, ("quadratic", "linear", "constant"), totals=("group", "predicted"))}
    )

    of: str
    methods: tuple[str, ...] | None = None
    group_by: str | None = None
    negations: tuple[str, ...] = Field(NEGATIONS, min_length=1)
    scatter_queries: int = Field(4, ge=0, le=24)
    scatter_examples: int = Field(1000, ge=2, le=20_000)
    seed: int = Field(0, ge=0, lt=2**32)

    @field_validator("of", "group_by")
    @classmethod
    def _known(cls, of: str | None) -> str | None:
        if of is not None and of not in BUILT_IN and ":" not in of:
            raise ValueError(
                f"{of!r} is no artifact; allowed: {', '.join(BUILT_IN)}, module:function{did_you_mean(of, BUILT_IN)}"
            )
        return of

    @field_validator("negations")
    @classmethod
    def _lower(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        for word in words:
            if words_of(word) != [word]:
                raise ValueError(
                    f"{word!r} can equal no word of a text: give single words in lower case without punctuation marks but '"
                )
        return words

    def functions(self) -> Mapping[str, str]:
        """Return the user's functions in `of` and `group_by`."""
        given = {"of": self.of, "group_by": self.group_by}
        return {option: name for option, name in given.items() if name is not None and ":" in name}

    def check(self, task: Task, base_dir: Path, methods: Mapping[str, Method], n_checkpoints: int, where: str) -> None:
        """Raise InputError if the examples have no text, lexical overlap is asked of single texts, or a label has no scores."""
        require_labels(self.methods, methods, where)
        train = task.splits["train"]
        for option, name in (("of", self.of), ("group_by", self.group_by)):
            if name is not None and train.texts is None:
                raise InputError(f"{where}.{option}", f"{name!r} is a number of a text, and these examples have none")
            if name == "lexical_overlap" and train.pair_starts is None:
                problem = "'lexical_overlap' needs pairs of texts (text_pair), and these examples are single texts"
                raise InputError(f"{where}.{option}", problem)

    def reads_scores_of(self, methods: Mapping[str, Method]) -> list[str]:
        """Return the labels of the methods to diagnose."""
        return [label for label in methods if self.methods is None or label in self.methods]

    def compute(self, models: ScoredModels) -> Mapping[str, Table]:
        """Return the tables `queries`, with the fit of every method and query, and `points`, the dots of the figure if it has any."""
        from influence.saliency import class_probabilities

        task, queries = models.task, models.queries
        split = task.splits[queries.split]
        predicted = class_probabilities(task, models.last, queries.split, queries.rows, models.device).argmax(axis=1)
        about = {
            "group": self._groups(models),
            "predicted": [split.classes[int(label)] for label in predicted],
            "label": [split.classes[int(label)] for label in split.labels[queries.rows]],
            "query_artifact": values_of(self._function(self.of), self.of, split, queries.rows).tolist(),
        }
        of_train = values_of(self._function(self.of), self.of, task.splits["train"])
        rows, points = [], []
        for label, matrix in models.scores.items():
            fits = [fitted(z_scored(scores), of_train) for scores in matrix.scores]
            for place, (query_id, fit) in enumerate(zip(matrix.query_ids.tolist(), fits, strict=True)):
                named = {
                    "method": label,
                    "query_id": query_id,
                    **{name: values[place] for name, values in about.items()},
                }
                rows.append({**named, **_coefficients(fit)})
            for place in shown_first([*zip(about["group"], about["predicted"], strict=True)])[: self.scatter_queries]:
                title = _title(
                    split.shown_id(matrix.query_ids[place]), about["group"][place], about["predicted"][place]
                )
                points += self._points(label, title, matrix, place, of_train, fits[place])
        return {"queries": columns_of(rows), **({"points": columns_of(points)} if points else {})}

    def _function(self, of: str) -> Callable[[Any], float]:
        return artifact_of(of, self.negations, function_named(of) if ":" in of else None)

    def _groups(self, models: ScoredModels) -> list[str]:
        """Return the group of every query: its value of `group_by`, or "all"."""
        queries = models.queries
        if self.group_by is None:
            return ["all"] * len(queries.ids)
        split = models.task.splits[queries.split]
        name = self.group_by.rpartition(":")[2]
        found = values_of(self._function(self.group_by), self.group_by, split, queries.rows)
        return [f"{name} {value:g}" for value in found]

    def _points(
        self, label: str, title: str, matrix: ScoreMatrix, place: int, of_train: np.ndarray, fit: np.ndarray | None
    ) -> list[dict[str, Any]]:
        """Return the dots of one panel of the figure: all train examples, or the sample that the options describe."""
        z = z_scored(matrix.scores[place])
        if z is None:
            return []
        query_id = int(matrix.query_ids[place])
        chosen = sampled(z, self.scatter_examples, generator(self.seed, "scattered examples", query_id))
        heights = [None] * len(chosen) if fit is None else np.polyval(fit, z[chosen]).tolist()
        return [
            {
                "method": label,
                "query_id": query_id,
                "query": title,
                "train_id": int(matrix.train_ids[at]),
                "influence": float(z[at]),
                "artifact": float(of_train[at]),
                "fitted": height,
            }
            for at, height in zip(chosen.tolist(), heights, strict=True)
        ]


def fitted(z: np.ndarray | None, values: np.ndarray) -> np.ndarray | None:
    """Return the coefficients (quadratic, linear, constant) of the least-squares fit of `values` on z.

    None if z does not determine a curve: if z^2 is a linear function of z but for a share of less than CURVED of its
    variance. That is so if z has two values, or two narrow groups of values, such as one for each label.
    """
    if z is None:
        return None
    squares = z**2 - np.mean(z**2)
    left = squares - np.mean(squares * z) * z  # z has mean 0 and variance 1
    return np.polyfit(z, values, 2) if np.mean(left**2) > CURVED * np.mean(squares**2) else None


def sampled(z: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """Return the positions of `n` examples in increasing order, or of all: half of them have the largest |z|, the others are random."""
    order = np.argsort(-np.abs(z), kind="stable")
    if len(z) <= n:
        return np.arange(len(z))
    extreme, rest = order[: n // 2], order[n // 2 :]
    return np.sort(np.concatenate([extreme, random.permutation(rest)[: n - len(extreme)]]))


def shown_first(kinds: list[tuple[str, str]]) -> list[int]:
    """Return all positions: first the first query of each kind, then the second of each, and so on."""
    seen: dict[tuple[str, str], int] = {}
    turns = []
    for kind in kinds:
        turns.append(seen.get(kind, 0))
        seen[kind] = turns[-1] + 1
    return sorted(range(len(kinds)), key=lambda place: (turns[place], place))


def _coefficients(fit: np.ndarray | None) -> dict[str, float | None]:
    names = ("quadratic", "linear", "constant")
    return dict.fromkeys(names) if fit is None else dict(zip(names, map(float, fit), strict=True))


def _title(shown_id: str, group: str, predicted: str) -> str:
    parts = [f"query {shown_id}", *([group] if group != "all" else []), f"predicted {predicted}"]
    return ", ".join(parts)
