"""The training examples that may be removed for a query, where the config restricts them (Yeh et al. 2022, section 5, No Word Overlap)."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from influence.checkpoint import QueryBlock
from influence.methods.tfidf import word_similarity
from orchestrator.experiment.experiment import Experiment
from tasks.errors import InputError
from tasks.hooks import overrides
from tasks.task import Task


class Candidates(BaseModel):
    """Per query, only the `least_overlap` training examples that have the fewest words in common with it may be removed.

    They are those with the smallest cosine of TF-IDF vectors, the vectors of the method tfidf; ties go to the smaller TrainId.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    least_overlap: int = Field(ge=1)

    def check(self, experiment: Experiment, most: int, where: str) -> None:
        """Raise InputError if the task has no words, or if the number is below `most`, the largest k, or above the train size."""
        key = f"{where}: deletion.candidates.least_overlap"
        if not overrides(experiment.task, Task.token_counts):
            raise InputError(key, f"needs a task with text; this task ({type(experiment.task).__name__}) has none")
        n_train = len(experiment.train)
        if not most <= self.least_overlap <= n_train:
            raise InputError(
                key, f"{self.least_overlap}; allowed: {most} (the largest k) to {n_train} (all training examples)"
            )

    def rows(self, experiment: Experiment, queries: QueryBlock) -> np.ndarray:
        """Return the rows of the train split that may be removed for each query, by rising similarity: int64 [n_queries, least_overlap]."""
        task = experiment.task
        task.prepare()
        similarity = word_similarity(task, queries.split, queries.rows)
        ids = np.broadcast_to(experiment.train.ids, similarity.shape)
        return np.lexsort((ids, similarity), axis=-1)[:, : self.least_overlap]
