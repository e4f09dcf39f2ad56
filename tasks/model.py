"""The base class of models: how a network is built and run, and the names of its layers. Imports no torch."""

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

    A subclass must define `build`, and `encoding` if it is for texts. The other methods are hooks with defaults; a
    misspelt hook is refused when the class is defined. Influence methods find layers through `embedding_module`,
    `last_module` and `layer_modules`, and refuse a model that lacks a layer that they need.

    `fits` is the kind of task that the model is for (`text`, `word_vectors`, `gaussians`).
    """

    fits: ClassVar[str] = "text"

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, Model, cls.model_fields)

    def encoding(self, base_dir: Path) -> Any:
        """Return how texts become tokens, a tasks.data.tokens.Encoding, without torch.

        Raises InputError if the files of a pretrained model have no tokeniser vocabulary, or do not fit each other or the options.
        """
        raise NotImplementedError

    def base_state(self, base_dir: Path) -> Mapping[str, np.ndarray] | None:
        """Return the pretrained weights for `build`, name -> array, or None if every weight starts at random. Raises InputError."""
        return None

    def identity_of_weights(self, base_dir: Path) -> dict[str, Any]:
        """Return what determines a fresh network: options, version and digests of the files of pretrained weights. Uses no torch."""
        return self.identity()

    @abstractmethod
    def build(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Return a fresh network, drawn from generators keyed (seed, 'init', ...).

        The arguments depend on the kind of task. For texts: build(n_outputs, vocabulary_size, generator_seed,
        base_state=None); see tasks/models/ for the other kinds.
        """

    def forward(self, network: Any, batch: Batch) -> Tensor:
        """Return the outputs [n, n_outputs] of a batch; these are class logits for classifiers."""
        raise NotImplementedError

    def frozen_trunk(self, base_dir: Path) -> Any:
        """Return the frozen first modules of the network, a tasks.models.frozen_trunk.FrozenTrunk. Uses no torch.

        Their outputs are the same in every retrain, so that they can be computed once. `forward` of a model that overrides
        this hook takes them from the entry `trunk` of a batch, if there is one. Raises ValueError saying why there are no
        such modules.
        """
        raise ValueError(f"the model {self.name!r} has no pretrained layers; the model 'encoder' has some")

    def parameter_names(self, base_dir: Path) -> list[str] | None:
        """Return the names of the network's parameters without torch, or None if they are unknown before the network is built."""
        return None

    def frozen(self, base_dir: Path) -> set[str]:
        """Return the names of the parameters that are not trained."""
        return set()

    def require_names(self, base_dir: Path, built: Sequence[str]) -> None:
        """Raise RefitError unless `built`, the parameter names of a real network, equal the result of `parameter_names`.

        The default accepts any names. A network is built for this check only if the model overrides this method.
        """

    def embedding_module(self, network: nn.Module) -> str | None:
        """Return the name of the word embedding, or None if there is none."""
        return None

    def last_module(self, network: nn.Module) -> str | None:
        """Return the name of the linear layer onto the logits, or None if there is none."""
        return None

    def layer_modules(self, network: Any) -> list[str]:
        """Return the names of the modules with weights, in forward order."""
        return []

    def pooled_convolutions(self) -> Sequence[str]:
        """Return the layers, in forward order, of a network of the following kind; () for any other network. Uses no torch.

        h = embedding(input_ids) attention_mask; then h = relu(conv(h)) attention_mask for every convolution, an
        nn.Conv1d of odd width that keeps the length; logits = linear(max of h over positions). All its layers have
        biases but the embedding. Hessian-vector products of such a network are computed in about half the time.
        """
        return ()

    def last_layer_problem(self, base_dir: Path) -> str:
        """Return why methods that use the layer onto the logits do not fit, or "" if they do. Uses no torch."""
        return ""

    def hidden_token_problem(self, base_dir: Path) -> str:
        """Return why a token within a text cannot be hidden without an effect on others, or "" if it can. Uses no torch."""
        return ""
