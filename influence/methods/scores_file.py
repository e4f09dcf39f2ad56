"""A score matrix made elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence.base import Method
from influence.checkpoint import QueryBlock
from influence.foreign import read_scores
from influence.given_ids import GivenIds
from influence.matrix import Axes, Orientation, ScoreMatrix, from_foreign, positions_of
from tasks.digests import digest_file
from tasks.errors import InputError
from tasks.task import Task

if TYPE_CHECKING:
    from influence.gradients import GradientShard

PLANTED = "planted:"


class ScoresFile(Method):
    """Scores made elsewhere, in a file (npz, parquet or csv) or under a name that the task knows (`planted:<name>`).

    npz: arrays scores, query_ids, train_ids; `axes` says whether a row of scores is a query (query_train) or a training
    example (train_query). parquet and csv: one row per pair with columns query_id, train_id, score. `orientation` says
    what a positive score means; scores are converted to positive = helpful here and nowhere else. If the ids of a split
    are text, the file has them as text. A path is relative to the config file.
    """

    name: ClassVar[str] = "scores_file"
    uses_checkpoints: ClassVar[bool] = False
    follows_query_loss: ClassVar[bool] = False  # the file belongs to one loss, whatever the measurement of the campaign

    path: str
    axes: Axes
    orientation: Orientation

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Read the whole file: shapes, ids, repeats, NaN, and that its train ids are those of the task.

        Raises InputError.
        """
        is_planted = self.path.startswith(PLANTED)
        if not is_planted and not (base_dir / self.path).is_file():
            raise InputError(where, f"path {self.path!r} is not a file (looked for {base_dir / self.path})")
        # queries are drawn from one of the measured splits; planted scores have the ids of the task itself
        self._matrix(task, base_dir, where, () if is_planted else task.measured)

    def options_identity(self, base_dir: Path) -> dict[str, Any]:
        """Return name, version and options, with the digest of the file's content in the place of its path.

        Raises InputError.
        """
        if self.path.startswith(PLANTED):
            return self.identity()
        try:
            content = digest_file(base_dir / self.path)
        except OSError as error:
            raise InputError(base_dir / self.path, f"cannot be read: {error.strerror}") from error
        return {**{k: v for k, v in self.identity().items() if k != "path"}, "content": content}

    def prepare(self, task: Task, base_dir: Path, queries: QueryBlock) -> ScoreMatrix:
        """Return the scores of these queries, with columns in the order of the train split.

        Raises InputError if a query has none.
        """
        where = self._where(base_dir)
        try:
            found = self._matrix(task, base_dir, where, (queries.split,))
            return found.reordered(queries.ids, task.splits["train"].ids)
        except KeyError as error:
            problem = GivenIds.of(task.splits, (queries.split,)).in_text(str(error.args[0]))
            raise InputError(where, f"{problem}; the file must hold every query") from error

    def score(self, queries: GradientShard, train: GradientShard, prepared: ScoreMatrix) -> np.ndarray:
        """Return scores float32 [n_queries, n_train]."""
        rows = positions_of(queries.ids, prepared.query_ids, "query")
        return prepared.scores[np.ix_(rows, positions_of(train.ids, prepared.train_ids, "train"))]

    def _where(self, base_dir: Path) -> str:
        return self.path if self.path.startswith(PLANTED) else str(base_dir / self.path)

    def _matrix(self, task: Task, base_dir: Path, where: str, query_splits: Iterable[str]) -> ScoreMatrix:
        given = GivenIds.of(task.splits, query_splits)
        try:
            return self._read(task, base_dir, where, given)
        except InputError as error:
            raise InputError(error.where, given.in_text(error.problem)) from error

    def _read(self, task: Task, base_dir: Path, where: str, given: GivenIds) -> ScoreMatrix:
        if self.path.startswith(PLANTED):
            scores, query_ids, train_ids = self._named(task, where)
            axes: Axes = self.axes
        else:
            where = self._where(base_dir)
            expected = task.splits["train"].ids
            scores, query_ids, train_ids, is_matrix = read_scores(
                base_dir / self.path, self.axes, lambda found: _check_train_ids(found, expected, where), given=given
            )
            axes = self.axes if is_matrix else "query_train"
        try:
            matrix = ScoreMatrix(query_ids, train_ids, from_foreign(scores, axes, self.orientation))
        except ValueError as error:
            raise InputError(where, f"{error} (axes: {self.axes})") from error
        _check_train_ids(matrix.train_ids, task.splits["train"].ids, where)
        return matrix

    def _named(self, task: Task, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        name = self.path.removeprefix(PLANTED)
        try:
            found = task.named_scores(name)
        except (InputError, KeyError, ValueError) as error:
            raise InputError(where, f"path {self.path!r}: the task has no scores {name!r}: {error}") from error
        if found is None:
            raise InputError(where, f"path {self.path!r}: this task ({type(task).__name__}) has no scores of its own")
        return found


def _check_train_ids(found: np.ndarray, expected: np.ndarray, where: str) -> None:
    missing, unknown = np.setdiff1d(expected, found), np.setdiff1d(found, expected)
    if len(missing):
        raise InputError(
            where, f"{len(missing)} of {len(expected)} train ids have no scores; the first is {missing[0]}"
        )
    if len(unknown):
        raise InputError(where, f"{len(unknown)} train ids are not in the train set; the first is {unknown[0]}")
