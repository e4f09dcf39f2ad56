"""The task `msgs`: whether a sentence has an adjective.

In train, the order of "the" and "a" predicts the label nearly as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Discriminator, Tag

from tasks.base import Split
from tasks.confounded import ConfoundedText
from tasks.data.msgs_files import MsgsPublished, MsgsSource
from tasks.data.msgs_grammar import MsgsGrammar

_KINDS = ("published", "source", "grammar")


class MsgsGenerated(BaseModel):
    """Sentences of the built-in grammar."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    grammar: MsgsGrammar

    def splits(self, base_dir: Path, where: object, key: str) -> dict[str, Split]:
        """Return the splits train, dev and test, which depend on the options alone."""
        return self.grammar.splits()


def _kind(data: Any) -> str | None:
    """Return the kind of data that a block describes, which is given by the one key that no other kind has."""
    keys = data if isinstance(data, Mapping) else type(data).model_fields if isinstance(data, BaseModel) else ()
    named = [kind for kind in _KINDS if kind in keys]
    return f"data.{named[0]}" if len(named) == 1 else None  # no key, so errors leave it out


MsgsData = Annotated[
    Annotated[MsgsPublished, Tag("data.published")]
    | Annotated[MsgsSource, Tag("data.source")]
    | Annotated[MsgsGenerated, Tag("data.grammar")],
    Discriminator(
        _kind, custom_error_type="msgs_data", custom_error_message="exactly one of published, source, grammar is needed"
    ),
]


class Msgs(ConfoundedText):
    """Whether a sentence has an adjective (label) and whether "the" precedes "a" (confound).

    In train the two agree except in a few counter-examples; in dev and test they agree in two thirds (Han & Tsvetkov
    2021, section 5.2; Warstadt et al. 2020: syntactic category, relative position). `data` is `{published: DIR}`, the
    sets of that paper as parquet; `{source: DIR, ...}`, the sets rebuilt from the files of MSGS; or `{grammar: {...}}`,
    sentences of a grammar.
    """

    name: ClassVar[str] = "msgs"
    version: ClassVar[int] = 1

    data: MsgsData

    def read_splits(self, base_dir: Path, where: str, key: str) -> dict[str, Split]:
        """Read or generate the splits. Raises InputError naming file and dotted key."""
        return self.data.splits(base_dir, where, key)
