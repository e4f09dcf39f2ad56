"""Registries map names to "module:Class", which is imported on demand.

A part is a class that a config can choose by name, such as a task, a model or a recipe. To add a part to this package,
write its class in a new file and add an entry for it here.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from tasks.errors import InputError, MisspeltHookError
from tasks.module_files import is_built_in, module_files
from tasks.sources import drop_stale_bytecode, loaded_files, refuse_edited
from tasks.suggestions import did_you_mean


@dataclass(frozen=True)
class Entry:
    """Where a part is defined, one line on what it does, and the paper it comes from."""

    target: str
    summary: str
    paper: str = "-"


@functools.cache  # reading the entry points of all installed packages is slow, and a grid needs them hundreds of times
def _installed(kind: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=f"refit.{kind}"))


def load_function(name: str, where: object, plugins: Sequence[str] = ()) -> Callable[..., Any]:
    """Return the function "module:function", whose module must be in `plugins`. Raises InputError."""
    module, _, attribute = name.partition(":")
    if not attribute or module not in plugins:
        hint = f"module {module!r} is not listed under plugins" if attribute else "give it as module:function"
        raise InputError(where, f"unknown function {name!r}; {hint}")
    return _imported(name, where, is_class=False)


def _imported(target: str, where: object, *, is_class: bool) -> Any:
    """Import "module:name", a class or a function, and check that its source is what was imported. Raises InputError."""
    module, _, attribute = target.partition(":")
    before, already = {} if is_built_in(module) else module_files(module), frozenset(sys.modules)
    if not is_built_in(module):
        drop_stale_bytecode(module, where)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except MisspeltHookError as error:
        raise InputError(where, str(error)) from error
    except Exception as error:  # a plugin's module may raise any exception while it is imported
        raise InputError(where, f"cannot import {target}: {type(error).__name__}: {error}") from error
    if not isinstance(found, type if is_class else FunctionType):
        raise InputError(where, f"{target} is not a {'class' if is_class else 'function'}")
    if not is_built_in(found.__module__):
        after = loaded_files(found.__module__, where, already)
        common = before.keys() & after.keys()  # if the digest of one differs, it was edited during the import
        refuse_edited(module, {name: before[name] for name in common}, {name: after[name] for name in common}, where)
    return found


class Registry:
    """The parts of one kind, by name; a config's `plugins` and installed entry points (`refit.<kind>`) extend it.

    `base` is the "module:Class" from which every part derives, imported on demand.
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry], base: str = "builtins:object"):
        self.kind, self.base = kind, base
        self._entries = dict(entries)

    def entries(self) -> dict[str, Entry]:
        """Return the built-in parts and those of installed entry points."""
        found = dict(self._entries)
        for point in _installed(self.kind):
            found.setdefault(
                point.name, Entry(point.value, f"from the package {point.dist.name if point.dist else point.module}")
            )
        return found

    def extend(self, entries: Mapping[str, Entry]) -> None:
        """Add the parts of another package (influence, orchestrator), which this package must not import or name.

        Raises ValueError on a name that exists already.
        """
        taken = sorted(entries.keys() & self._entries.keys())
        if taken:
            raise ValueError(f"{self.kind} {', '.join(taken)} exist already")
        self._entries |= entries

    def load(self, name: str, where: object, plugins: Sequence[str] = ()) -> Any:
        """Return the class called `name`; "module:Class" is imported only if `module` is in `plugins`. Raises InputError."""
        entries = self.entries()
        target = entries[name].target if name in entries else name
        module, _, attribute = target.partition(":")
        if name not in entries and (not attribute or module not in plugins):
            hint = (
                f"module {module!r} is not listed under plugins"
                if attribute
                else f"allowed: {', '.join(sorted(entries))}{did_you_mean(name, entries)}"
            )
            raise InputError(where, f"unknown {self._singular} {name!r}; {hint}")
        found = _imported(target, where, is_class=True)
        self._check_base(found, name, where)
        return found

    def _check_base(self, found: type, name: str, where: object) -> None:
        """Raise InputError if a class does not derive from the base class of this kind, or lacks one of its abstract methods."""
        module, _, attribute = self.base.partition(":")
        if not issubclass(found, getattr(importlib.import_module(module), attribute)):
            article = "an" if self._singular[0] in "aeiou" else "a"
            problem = f"is not {article} {self._singular}: it does not derive from {module}.{attribute}"
            raise InputError(where, f"{name!r} {problem}")
        if inspect.isabstract(found):
            missing = ", ".join(sorted(found.__abstractmethods__))
            raise InputError(where, f"{name!r} does not define {missing}, which {module}.{attribute} requires")

    @property
    def _singular(self) -> str:
        return self.kind[:-3] + "y" if self.kind.endswith("ies") else self.kind[:-1]


TASKS = Registry(
    "tasks",
    {
        "text_classification": Entry(
            "tasks.text_classification:TextClassification",
            "a text classifier on csv, tsv, jsonl, parquet, folder or hf data",
        ),
        "word_vectors": Entry(
            "tasks.word_vectors:WordVectors",
            "skip-gram vectors of the words in any sentences, and properties of them",
            "Silva et al. 2022, sections 4.2-4.4",
        ),
        "msgs": Entry(
            "tasks.msgs:Msgs",
            "does a sentence have an adjective? In train, the order of its articles nearly always gives the answer",
            "Han & Tsvetkov 2021, section 5.2; Warstadt et al. 2020",
        ),
        "planted": Entry("tasks.planted:Planted", "generated text in which 20 known training rows decide each query"),
        "textlen": Entry(
            "tasks.textlen:TextLen",
            "is a sentence short or long? In train, a prefix mostly gives the answer; published data or CoNLL files",
            "Han & Tsvetkov 2021, sections 3 and 5.2",
        ),
        "gaussians": Entry(
            "tasks.gaussians:Gaussians",
            "a mixture of Gaussians, clustered without labels or classified with them",
            "Silva et al. 2022, section 4.1",
        ),
    },
    base="tasks.task:TaskConfig",
)
MODELS = Registry(
    "models",
    {
        "dec": Entry(
            "tasks.models.dec:Dec",
            "an encoder of two linear layers, and centroids that start from k-means",
            "Xie et al. 2016; Silva et al. 2022, section 4.1",
        ),
        "skip_gram": Entry(
            "tasks.models.skip_gram:SkipGram", "two vectors a word, with negative sampling", "Mikolov et al. 2013"
        ),
        "text_cnn": Entry(
            "tasks.models.text_cnn:TextCNN",
            "embedding, three convolutions, global max pool, linear",
            "Yeh et al. 2022, section 3.2",
        ),
        "transformer": Entry(
            "tasks.models.transformer:Transformer",
            "a small Transformer encoder on words, trained from scratch",
            "Vaswani et al. 2017; Devlin et al. 2019",
        ),
        "encoder": Entry(
            "tasks.models.encoder:Encoder", "any Hugging Face sequence classifier, from a directory or a hub name"
        ),
    },
    base="tasks.model:Model",
)
RECIPES = Registry(
    "recipes",
    {
        "dec": Entry(
            "tasks.recipes.dec:DecTraining",
            "deep embedded clustering or a supervised loss, in full batches; trains leave-one-out models together",
            "Xie et al. 2016; Silva et al. 2022, section 4.1",
        ),
        "loo_leaked": Entry(
            "tasks.recipes.loo_leaked:LooLeaked",
            "like dec, but all leave-one-out fits share the state of one Adam, as in the published code",
            "the code of Silva et al. 2022, section 4.1",
        ),
        "skip_gram": Entry(
            "tasks.recipes.skip_gram:SkipGramTraining",
            "skip-gram with negative sampling: weighted sentences, sparse SGD or Adam",
            "Mikolov et al. 2013; Silva et al. 2022, appendix H",
        ),
        "reinforce": Entry(
            "tasks.recipes.reinforce:Reinforce",
            "fine-tunes word vectors: raises the loss of some sentences and lowers that of others",
            "Silva et al. 2022, section 4.4",
        ),
        "finetune": Entry(
            "tasks.recipes.finetune:Finetune",
            "Adam, AdamW, BERT's Adam or SGD with warm-up and decay, weighted examples",
        ),
        "adversarial": Entry(
            "tasks.recipes.adversarial:Adversarial",
            "fine-tuning against an adversary that reads the confound, by gradient reversal",
            "Ganin et al. 2016; Han and Tsvetkov 2021, section 5.1",
        ),
        "hard_debias": Entry(
            "tasks.recipes.hard_debias:HardDebias",
            "takes the bias direction out of a parent's word vectors",
            "Bolukbasi et al. 2016",
        ),
    },
    base="tasks.recipe:Recipe",
)
MEASUREMENTS = Registry(
    "measurements",
    {
        "gold_probability": Entry(
            "tasks.measurements:GoldProbability", "probability of the gold label", "Yeh et al. 2022, section 2.2"
        ),
        "predicted_probability": Entry(
            "tasks.measurements:PredictedProbability",
            "probability of the label the scoring model predicts",
            "Han et al. 2020",
        ),
        "reference_probability": Entry(
            "tasks.measurements:ReferenceProbability",
            "probability of the label that the reference of the same seed predicts",
            "Han et al. 2020",
        ),
        "loss": Entry("tasks.measurements:Loss", "minus the cross-entropy loss of the gold label"),
        "output": Entry(
            "tasks.measurements:Output",
            "the model's output itself, if it is one number per row, as for properties of word vectors",
        ),
        "margin": Entry("tasks.measurements:Margin", "log-odds of the gold label"),
        "correct": Entry(
            "tasks.measurements:Correct",
            "1 if the gold label has the largest logit, else 0",
            "Yeh et al. 2022, appendix K",
        ),
    },
    base="tasks.measurement:Measurement",
)
PROPERTIES = Registry(
    "properties",
    {
        "weat": Entry(
            "tasks.weat_property:Weat", "effect of a word embedding association test", "Caliskan et al. 2017"
        ),
        "displacement": Entry(
            "tasks.properties:Displacement",
            "how far training moved a word's vector",
            "Silva et al. 2022, Eq. 9",
        ),
        "neighbour": Entry("tasks.properties:Neighbour", "mean cosine of a word to given words"),
    },
    base="tasks.properties:Property",
)
