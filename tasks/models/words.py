"""Shared by models on words of the train set: the encoding, and that nothing is pretrained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.data.tokens import WordEncoding
from tasks.model import Model
from tasks.models.freezing import frozen_names
from tasks.module_files import is_built_in


class WordModel(Model):
    """A model whose vocabulary is the words of the train set and whose weights all start at random.

    `freeze` lists patterns of parameter or module names that are not trained.
    """

    max_length: int = Field(128, ge=2, le=65536)
    max_vocabulary: int | None = Field(None, ge=1)
    min_count: int = Field(1, ge=1)
    lowercase: bool = True
    freeze: tuple[str, ...] = ()

    def encoding(self, base_dir: Path) -> WordEncoding:
        """Return the encoding by words of the train set between a start and an end token."""
        return WordEncoding(
            max_length=self.max_length,
            lowercase=self.lowercase,
            max_vocabulary=self.max_vocabulary,
            min_count=self.min_count,
        )

    def parameter_names(self, base_dir: Path = Path()) -> list[str]:
        """Return the names of the network's parameters, in its order, without torch."""
        raise NotImplementedError

    def frozen(self, base_dir: Path = Path()) -> set[str]:
        """Return the names of the parameters that are not trained. Raises ValueError for a pattern that matches none."""
        return frozen_names(self.parameter_names(base_dir), self.freeze) if self.freeze else set()

    def identity_of_weights(self, base_dir: Path) -> dict[str, Any]:
        """Return options, version and the names that `freeze` selects; nothing is pretrained."""
        if not is_built_in(
            type(self).__module__
        ):  # the network of a user's subclass may have other names, so its patterns stay as they are written
            return self.identity()
        return {**self.identity(), "freeze": sorted(self.frozen(base_dir))}
