"""A small Transformer encoder on words, trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from tasks.data.tokens import PAD
from tasks.models.encoder import Encoder
from tasks.models.freezing import freeze_parameters, frozen_names
from tasks.models.pretrained import quiet_transformers
from tasks.models.words import WordModel
from tasks.seeds import purpose_seed

if TYPE_CHECKING:
    from torch import nn

_EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_LAYER = (
    *(f"attention.self.{part}" for part in ("query", "key", "value")),
    *(f"attention.output.{part}" for part in ("dense", "LayerNorm")),
    *("intermediate.dense", "output.dense", "output.LayerNorm"),
)


class Transformer(WordModel):
    """BERT's architecture at any size, with weights drawn at random: N(0, 0.02), biases zero, normalisations one.

    `hidden` is split over `heads`; `feed_forward` is the width of the feed-forward layers, by default 4 hidden. The
    logits come from the first token, which is the start token of every text: tanh(linear), dropout, linear. `dropout`
    sets the probability of every dropout layer. The vocabulary is that of text_cnn: words of the train set. `freeze`
    lists patterns of parameter or module names that are not trained. Attention is computed by plain matrix products
    (`eager`), which are deterministic on every device and twice differentiable. Vaswani et al. 2017, section 3; Devlin
    et al. 2019, section 3.
    """

    name: ClassVar[str] = "transformer"
    version: ClassVar[int] = 1

    layers: int = Field(2, ge=1, le=48)
    hidden: int = Field(128, ge=1, le=8192)
    heads: int = Field(4, ge=1, le=512)
    feed_forward: int | None = Field(None, ge=1, le=65536)
    max_length: int = Field(64, ge=3, le=65536)
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _options_fit_together(self) -> Transformer:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        frozen_names(self.parameter_names(), self.freeze)
        return self

    def parameter_names(self, base_dir: Path = Path()) -> list[str]:
        """Return the names of the network's parameters, in its order, without torch."""
        layers = [f"encoder.layer.{number}.{part}" for number in range(self.layers) for part in _LAYER]
        modules = ["embeddings.LayerNorm", *layers, "pooler.dense"]
        both = [*(f"bert.{module}" for module in modules), "classifier"]
        embeddings = [f"bert.embeddings.{table}.weight" for table in _EMBEDDINGS]
        return [*embeddings, *(f"{module}.{kind}" for module in both for kind in ("weight", "bias"))]

    def build(
        self,
        n_outputs: int,
        vocabulary_size: int,
        generator_seed: int,
        base_state: Mapping[str, np.ndarray] | None = None,
    ) -> nn.Module:
        """Return a fresh classifier onto `n_outputs` logits, drawn by (generator_seed, 'init')."""
        import torch
        from transformers import BertForSequenceClassification

        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(purpose_seed(generator_seed, "init"))
            network = BertForSequenceClassification(self._config(n_outputs, vocabulary_size))
        freeze_parameters(network, self.freeze)
        return network

    # a network of transformers is run and read in the same way, wherever its weights come from
    forward = Encoder.forward
    embedding_module = Encoder.embedding_module
    last_module = Encoder.last_module
    layer_modules = Encoder.layer_modules

    def _config(self, n_outputs: int, vocabulary_size: int) -> Any:
        from transformers import BertConfig

        others: dict[str, Any] = {"num_labels": n_outputs, "attn_implementation": "eager"}
        return BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.feed_forward or 4 * self.hidden,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            max_position_embeddings=self.max_length,
            type_vocab_size=1,
            pad_token_id=PAD,
            **others,
        )
