"""The task `msgs`: is there an adjective? In train, the order of "the" and "a" tells it nearly as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from tasks.base import Component, Split
from tasks.components import parse_fitting
from tasks.data.msgs_files import MsgsPublished, MsgsSource
from tasks.data.msgs_grammar import MsgsGrammar
from tasks.registry import MODELS, RECIPES
from tasks.text_classification import MeasureConfig, measured_limits
from tasks.text_task import TextTask, first_rows

_KINDS = ("published", "source", "grammar")
SPLITS = ("train", "dev", "test")


class MsgsGenerated(BaseModel):
    """Sentences of the built-in grammar."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    grammar: MsgsGrammar

    def splits(self, base_dir: Path, where: object, key: str) -> dict[str, Split]:
        """The splits train, dev and test, from the options alone."""
        return self.grammar.splits()


def _kind(data: Any) -> str | None:
    """Which kind of data a block asks for: the one of its keys that no other kind has."""
    keys = data if isinstance(data, Mapping) else type(data).model_fields if isinstance(data, BaseModel) else ()
    named = [kind for kind in _KINDS if kind in keys]
    return f"data.{named[0]}" if len(named) == 1 else None  # a tag that is no key: it stays out of error messages


MsgsData = Annotated[
    Annotated[MsgsPublished, Tag("data.published")]
    | Annotated[MsgsSource, Tag("data.source")]
    | Annotated[MsgsGenerated, Tag("data.grammar")],
    Discriminator(
        _kind, custom_error_type="msgs_data", custom_error_message="exactly one of published, source, grammar is needed"
    ),
]


class Msgs(Component):
    """Is there an adjective in the sentence (label)? Does "the" precede "a" (confound)?

    In train the two agree but for a few counter-examples; in dev and test for two thirds (Han & Tsvetkov 2021, section
    5.2; Warstadt et al. 2020: syntactic category, relative position). `data`: `{published: DIR}`, the sets of that paper
    as parquet; `{source: DIR, ...}`, made again from the files of MSGS; or `{grammar: {...}}`, sentences of a grammar.
    """

    name: ClassVar[str] = "msgs"
    version: ClassVar[int] = 1

    data: MsgsData
    model: dict[str, Any]
    recipe: dict[str, Any]
    measure: list[MeasureConfig] = Field(default=[MeasureConfig(split=name) for name in SPLITS], min_length=1)

    def identity(self) -> dict[str, Any]:
        """Name and version: sentences, model and recipe are in the task's own identities, by content and never by path."""
        return {"name": self.name, "version": self.version}

    def open(
        self,
        base_dir: Path,
        cache_dir: Path | None = None,
        *,
        where: str = "config",
        key: str = "task",
        plugins: Sequence[str] = (),
    ) -> TextTask:
        """Read or make the sentences, choose model and recipe. Raises InputError naming file and dotted key."""
        model = parse_fitting(MODELS, self.model, "text", where, f"{key}.model", plugins)
        recipe = parse_fitting(RECIPES, self.recipe, "text", where, f"{key}.recipe", plugins)
        limits = measured_limits(self.measure, dict.fromkeys(SPLITS), where, f"{key}.measure")
        splits = self.data.splits(base_dir, where, f"{key}.data")
        return TextTask(splits, first_rows(splits, limits), model, recipe, base_dir, cache_dir)
