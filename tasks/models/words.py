"""What models on words of the train set share: the encoding, and that nothing is pretrained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.base import Component
from tasks.data.tokens import WordEncoding


class WordModel(Component):
    """A model whose vocabulary is the words of the train set and whose weights all start at random.

    `freeze` lists patterns of parameter or module names that are not trained.
    """

    max_length: int = Field(128, ge=2, le=65536)
    max_vocabulary: int | None = Field(None, ge=1)
    min_count: int = Field(1, ge=1)
    lowercase: bool = True
    freeze: tuple[str, ...] = ()

    def encoding(self, base_dir: Path) -> WordEncoding:
        """Words of the train set between a start and an end token."""
        return WordEncoding(
            max_length=self.max_length,
            lowercase=self.lowercase,
            max_vocabulary=self.max_vocabulary,
            min_count=self.min_count,
        )

    def base_state(self, base_dir: Path) -> None:
        """None: every weight starts at random."""

    def identity_of_weights(self, base_dir: Path) -> dict[str, Any]:
        """Options and version: nothing is pretrained."""
        return self.identity()
