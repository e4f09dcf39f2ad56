"""The convolutional text classifier of Yeh et al. 2022, section 3.2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from tasks.base import Batch
from tasks.models.freezing import freeze_parameters, frozen_names
from tasks.models.words import WordModel
from tasks.seeds import torch_generator

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

LAYERS = ("embedding", "conv1", "conv2", "conv3", "linear")
PARAMETERS = ("embedding.weight", *(f"{layer}.{kind}" for layer in LAYERS[1:] for kind in ("weight", "bias")))


class TextCNN(WordModel):
    """Embedding, convolutions of width `kernel`, `kernel` and 1 with ReLU, global max pool over real positions, linear.

    Yeh et al. 2022, section 3.2: embedding_dim 128, kernel 5, 10 filters. Their first, second, third and last layers
    are embedding, conv1, conv2 and linear here; conv3 has width 1. Embeddings start uniform in +-0.05, other weights
    Glorot uniform, biases zero. `freeze` lists patterns of parameter or layer names that are not trained.
    """

    name: ClassVar[str] = "text_cnn"
    version: ClassVar[int] = 1

    embedding_dim: int = Field(128, ge=1, le=4096)
    filters: int = Field(10, ge=1, le=4096)
    kernel: int = Field(5, ge=1, le=99)

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(
                f"{kernel} is even; kernel must be odd, so that convolutions keep the length of their input"
            )
        return kernel

    @field_validator("freeze")
    @classmethod
    def _known_layers(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        frozen_names(PARAMETERS, patterns)
        return patterns

    def parameter_names(self, base_dir: Path = Path()) -> list[str]:
        """Return the names of the network's parameters, in its order, without torch."""
        return list(PARAMETERS)

    def build(
        self,
        n_outputs: int,
        vocabulary_size: int,
        generator_seed: int,
        base_state: Mapping[str, np.ndarray] | None = None,
    ) -> nn.ModuleDict:
        """Return a fresh network onto `n_outputs` logits, drawn layer by layer from the generator (generator_seed, 'init')."""
        import torch
        from torch import nn

        shapes = ((self.embedding_dim, self.kernel), (self.filters, self.kernel), (self.filters, 1))
        # torch.nn.utils.skip_init would import PyTorch's compiler, which takes a second, so the layers are drawn twice.
        with torch.random.fork_rng(devices=[]):
            embedding = nn.Embedding.from_pretrained(torch.empty(vocabulary_size, self.embedding_dim), freeze=False)
            layers: dict[str, nn.Module] = {"embedding": embedding}
            for layer, (channels, kernel) in zip(LAYERS[1:4], shapes, strict=True):
                layers[layer] = nn.Conv1d(channels, self.filters, kernel, padding=kernel // 2)
            layers["linear"] = nn.Linear(self.filters, n_outputs)
        network = nn.ModuleDict(layers)
        _initialise(network, torch_generator(generator_seed, "init"))
        freeze_parameters(network, self.freeze)
        return network

    def forward(self, network: nn.ModuleDict, batch: Batch) -> Tensor:
        """Return class logits [n, n_outputs], which do not depend on the amount of padding in the batch.

        Padding is set to zero before and after every convolution. Values are never negative after a ReLU, so the
        maximum over all positions is the maximum over the real ones.
        """
        from torch.nn.functional import relu

        embedded = network["embedding"](batch["input_ids"])
        real = batch["attention_mask"].to(embedded.dtype)
        hidden = (embedded * real.unsqueeze(2)).transpose(1, 2)
        for layer in LAYERS[1:4]:
            hidden = relu(network[layer](hidden)) * real.unsqueeze(1)
        return network["linear"](hidden.amax(2))

    def pooled_convolutions(self) -> tuple[str, ...]:
        """Return the names of all layers in forward order."""
        return LAYERS

    def embedding_module(self, network: nn.Module) -> str:
        """Return the name of the word embedding."""
        return LAYERS[0]

    def last_module(self, network: nn.Module) -> str:
        """Return the name of the linear layer onto the logits."""
        return LAYERS[-1]

    def layer_modules(self, network: nn.Module) -> list[str]:
        """Return the names of the modules with weights, in forward order."""
        return list(LAYERS)


def _initialise(network: nn.ModuleDict, generator: Generator) -> None:
    """Initialise as Keras does, the framework of the paper: embedding U(+-0.05), Glorot uniform weights, zero biases."""
    from torch import nn

    for layer in LAYERS:
        module: Any = network[layer]
        if layer == "embedding":
            nn.init.uniform_(module.weight, -0.05, 0.05, generator=generator)
        else:
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
