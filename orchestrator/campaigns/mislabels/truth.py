"""The true labels of the train set, if the config names them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, StringConstraints

from orchestrator.config.yaml_files import ConfigError
from orchestrator.experiment.arm import Arm
from tasks.errors import InputError
from tasks.text_classification import TextClassification

Text = Annotated[str, StringConstraints(min_length=1)]


class Truth(BaseModel):
    """The column with the true labels, in the train file or in a file at `path`.

    That file has the format and columns of the train file, and the same ids. The models never see these labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    column: Text
    path: Text | None = None

    def labels(self, arm: Arm, where: str) -> np.ndarray:
        """Return the true class of every train row: int64 [n_train]. Raises InputError."""
        part, key = arm.part, "mislabels.truth"
        if not isinstance(part, TextClassification):
            raise ConfigError(f"{where}: {key}", f"the task {part.name!r} reads no file; only text_classification does")
        changes = {"label": self.column, **({"path": self.path} if self.path else {})}
        split = part.relabelled_train(changes, arm.config.base_dir, where, key)
        try:
            rows = split.rows_of(arm.train.ids)
        except KeyError as error:
            raise InputError(f"{where}: {key}.path", f"lacks training examples: {error.args[0]}") from error
        return split.labels[rows]
