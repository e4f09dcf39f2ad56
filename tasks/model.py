"""What a model is: how a network is built and run, and the names of its layers. No torch at import."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.base import Batch, Component
from tasks.hooks import refuse_misspelt

if TYPE_CHECKING:
    from torch import Tensor, nn


class Model(Component):
    """How a network is built and run.

    A subclass must define `build`, and `encoding` if it is for texts. The others are hooks with defaults, and a misspelt one is
    refused when the class is made. Influence methods find layers through `embedding_module`, `last_module` and `layer_modules`,
    and refuse a model without those that they need.

    `fits`: the kind of task that the model is for (`text`, `word_vectors`, `gaussians`).
    """

    fits: ClassVar[str] = "text"

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, Model, cls.model_fields)

    def encoding(self, base_dir: Path) -> Any:
        """How texts become tokens: a tasks.data.tokens.Encoding. No torch. Raises InputError for files that do not fit."""
        raise NotImplementedError

    def base_state(self, base_dir: Path) -> Mapping[str, np.ndarray] | None:
        """Pretrained weights, name -> array, which `build` gets; None: every weight starts at random. Raises InputError."""
        return None

    def identity_of_weights(self, base_dir: Path) -> dict[str, Any]:
        """What decides a fresh network: options and version, and digests of the files of pretrained weights. No torch."""
        return self.identity()

    @abstractmethod
    def build(self, *args: Any, **kwargs: Any) -> nn.Module:
        """A fresh network, drawn from generators keyed (seed, 'init', ...). The task's kind decides the arguments.

        For texts: build(n_outputs, vocabulary_size, generator_seed, base_state=None). See tasks/models/ for the other kinds.
        """

    def forward(self, network: Any, batch: Batch) -> Tensor:
        """Outputs [n, n_outputs] of a batch; class logits for classifiers."""
        raise NotImplementedError

    def parameter_names(self, base_dir: Path) -> list[str] | None:
        """Names of the network's parameters, without torch; None: they are not known before the network is built."""
        return None

    def frozen(self, base_dir: Path) -> set[str]:
        """Names of the parameters that are not trained."""
        return set()

    def require_names(self, base_dir: Path, built: Sequence[str]) -> None:
        """Raise RefitError unless the parameters `built` of a network are those of `parameter_names`.

        Only a model that overrides it is checked, which takes a network.
        """

    def embedding_module(self, network: nn.Module) -> str | None:
        """Name of the word embedding; None: there is none."""
        return None

    def last_module(self, network: nn.Module) -> str | None:
        """Name of the linear layer onto the logits; None: there is none."""
        return None

    def layer_modules(self, network: Any) -> list[str]:
        """Names of the modules with weights, in forward order."""
        return []

    def last_layer_problem(self, base_dir: Path) -> str:
        """Why methods that look at the layer onto the logits do not fit, "" where they do. No torch."""
        return ""
