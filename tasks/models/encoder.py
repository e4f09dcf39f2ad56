"""Any Hugging Face sequence classifier, with a head that starts at random."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from tasks.base import Batch
from tasks.data.tokens import PretrainedEncoding, PretrainedTokeniser, tokeniser_digest
from tasks.errors import InputError, RefitError
from tasks.model import Model
from tasks.models.architectures import counts_attention, has_pooled_head
from tasks.models.classifier_inputs import classifier_inputs
from tasks.models.freezing import freeze_parameters, frozen_names
from tasks.models.frozen_trunk import FrozenTrunk, dropout_problem, find_trunk
from tasks.models.parameter_names import classifier_parameter_names
from tasks.models.pretrained import (
    WHERE,
    content_identity,
    pretrained_directory,
    quiet_transformers,
    read_config,
    weight_files,
)
from tasks.models.pretrained_checks import check_model_type, check_tokeniser
from tasks.module_files import is_built_in
from tasks.seeds import purpose_seed

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG_KEY = "config.json"  # in the base state: the config's UTF-8 bytes, so that a worker needs no file
_DEPTH_KEYS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
_LENGTH_KEYS = ("max_position_embeddings", "n_positions")


class Encoder(Model):
    """A sequence classifier on a pretrained encoder from a directory, `package:<module>/<dir>` or a hub name.

    `num_layers` keeps the first layers; `freeze` lists patterns of parameter or module names that are not trained;
    `dropout` replaces every dropout probability of the config; `revision` is a commit, tag or branch on the hub.
    Attention is computed by plain matrix products (`eager`), which are deterministic on every device and twice
    differentiable.
    """

    name: ClassVar[str] = "encoder"
    version: ClassVar[int] = 1

    pretrained: str = Field(min_length=1)
    revision: str | None = None
    num_layers: int | None = Field(None, ge=1)
    max_length: int = Field(128, ge=3, le=65536)
    dropout: float | None = Field(None, ge=0, lt=1)
    freeze: tuple[str, ...] = ()

    def encoding(self, base_dir: Path) -> PretrainedEncoding:
        """Return the tokeniser that belongs to the weights."""
        directory = self._directory(base_dir)
        check_tokeniser(directory, self.max_length, read_config(directory))
        self.frozen(base_dir)  # refuses a pattern that matches nothing before anything starts
        return PretrainedEncoding(directory=directory, max_length=self.max_length, digest=tokeniser_digest(directory))

    def identity_of_weights(self, base_dir: Path) -> dict[str, Any]:
        """Return options, the names that `freeze` selects, and digests of weights, config and tokeniser files.

        Names, paths and revisions are never part of it.
        """
        options = {key: value for key, value in self.identity().items() if key not in ("pretrained", "revision")}
        if is_built_in(type(self).__module__):  # the network of a user's subclass may have other names
            options["freeze"] = sorted(self.frozen(base_dir))
        return {**options, **content_identity(self._directory(base_dir))}

    def parameter_names(self, base_dir: Path) -> list[str]:
        """Return the sorted names of the classifier's parameters, without torch if the architecture is known."""
        directory = self._directory(base_dir)
        return classifier_parameter_names(weight_files(directory), read_config(directory), self.num_layers)

    def frozen(self, base_dir: Path) -> set[str]:
        """Return the names of the parameters that are not trained. Raises InputError for a pattern that matches none."""
        if not self.freeze:
            return set()
        try:
            return frozen_names(self.parameter_names(base_dir), self.freeze)
        except ValueError as error:
            raise InputError("task.model.freeze", str(error)) from error

    def frozen_trunk(self, base_dir: Path) -> FrozenTrunk:
        """Return the frozen first modules of the classifier. Raises ValueError saying why there are none."""
        if not is_built_in(type(self).__module__):
            raise ValueError(f"the network of {type(self).__name__} may differ from that of the model 'encoder'")
        if not self.freeze:
            raise ValueError("task.model.freeze is empty, so that no layer is frozen")
        config = read_config(self._directory(base_dir))
        problem = dropout_problem(config, self.dropout)  # raises if only torch could list the parameters
        trunk = find_trunk(config["model_type"], self.parameter_names(base_dir), self.frozen(base_dir))
        if problem:
            raise ValueError(problem)
        return trunk

    def base_state(self, base_dir: Path) -> dict[str, np.ndarray]:
        """Return the config and the pretrained float32 weights of the kept layers, by their name in the encoder.

        The head is left out even if the file has one. Raises InputError if no model can be built from the files.
        """
        import torch
        from transformers import AutoModelForSequenceClassification

        directory = self._directory(base_dir)
        with quiet_transformers():
            try:
                config = self._config(directory)
                network, report = AutoModelForSequenceClassification.from_pretrained(
                    directory,
                    config=config,
                    attn_implementation="eager",
                    dtype=torch.float32,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                    output_loading_info=True,
                )
            except Exception as error:  # transformers reports broken files by any of a dozen exception types
                raise InputError(
                    WHERE, f"no sequence classifier can be built from {self.pretrained!r}: {error}"
                ) from error
        if self.freeze:
            self.require_names(base_dir, [name for name, _ in network.named_parameters()])
        prefix = network.base_model_prefix + "."
        absent = {name.removeprefix(prefix) for name in report["missing_keys"] if name.startswith(prefix)}
        _refuse_absent(absent, self.pretrained)
        encoder = network.base_model.state_dict()
        state = {name: tensor.numpy() for name, tensor in encoder.items() if name not in absent}
        return {CONFIG_KEY: np.frombuffer(config.to_json_string(use_diff=False).encode(), np.uint8), **state}

    def build(
        self,
        n_outputs: int,
        vocabulary_size: int,
        generator_seed: int,
        base_state: Mapping[str, np.ndarray] | None = None,
    ) -> nn.Module:
        """Return a fresh classifier onto `n_outputs` logits: pretrained weights, and the rest drawn by (seed, 'init').

        Raises InputError if the tokeniser has more ids than the embedding, or if a `freeze` pattern does not fit.
        """
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        if base_state is None:
            raise ValueError("an encoder is built from its base state")
        config = AutoConfig.for_model(**json.loads(base_state[CONFIG_KEY].tobytes()))
        if vocabulary_size > config.vocab_size:
            raise InputError(WHERE, f"the tokeniser has {vocabulary_size} ids, the embedding only {config.vocab_size}")
        config.num_labels = n_outputs
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(purpose_seed(generator_seed, "init"))
            network = AutoModelForSequenceClassification.from_config(
                config, attn_implementation="eager", dtype=torch.float32
            )
        weights = {name: torch.tensor(array) for name, array in base_state.items() if name != CONFIG_KEY}
        _refuse_absent(set(network.base_model.load_state_dict(weights, strict=False).missing_keys), self.pretrained)
        try:
            freeze_parameters(network, self.freeze)
        except ValueError as error:
            raise InputError("task.model.freeze", str(error)) from error
        parameters = dict(network.named_parameters())
        frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
        with contextlib.suppress(ValueError):  # it has no frozen trunk
            network.frozen_trunk = find_trunk(config.model_type, list(parameters), frozen)
        return network

    def require_names(self, base_dir: Path, built: Sequence[str]) -> None:
        """Raise RefitError unless the network has the parameters that its identity was computed from."""
        other = sorted(set(built) ^ set(self.parameter_names(base_dir)))
        if other:
            problem = f"parameter {other[0]!r} is not in both the network and the files"
            raise RefitError(
                f"{WHERE}: {self.pretrained!r}: {problem}, so it is not known which parameters a pattern selects"
            )

    def forward(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the class logits [n, n_outputs].

        Tokens that are hidden within a text do not move those behind them, unless `hidden_token_problem` says that they do.

        `token_type_ids` of the batch are passed on if the network has embeddings of two or more types: BERT and MiniLM
        have, RoBERTa and DistilBERT have not, and see the two segments of a pair by their separator only. The entry
        `trunk` of a batch holds the outputs of the frozen trunk (tasks.models.frozen_trunk), which is then not computed.
        """
        inputs = classifier_inputs(network, batch)
        if "trunk" not in batch:
            return network(**inputs).logits
        trunk: Any = network.frozen_trunk
        outputs = batch["trunk"].to(next(network.parameters()).dtype)
        with trunk.serving(network, outputs):
            return network(**{name: values[:, : outputs.shape[1]] for name, values in inputs.items()}).logits

    def embedding_module(self, network: nn.Module) -> str:
        """Return the name of the word embedding."""
        embedding = network.get_input_embeddings()  # type: ignore[operator]
        return next(name for name, module in network.named_modules() if module is embedding)

    def last_module(self, network: nn.Module) -> str:
        """Return the name of the linear layer onto the logits."""
        from torch import nn

        return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]

    def last_layer_problem(self, base_dir: Path) -> str:
        """Return why methods that use the layer onto the logits do not fit, or "" if they do; read from config.json."""
        model_type = read_config(self._directory(base_dir))["model_type"]
        return "" if has_pooled_head(model_type) else f"that of {model_type!r} gets one vector per token"

    def hidden_token_problem(self, base_dir: Path) -> str:
        """Return why hiding a token moves those behind it, or "" if it does not; read from config.json."""
        model_type = read_config(self._directory(base_dir))["model_type"]
        return f"{model_type!r} counts positions by the visible tokens" if counts_attention(model_type) else ""

    def layer_modules(self, network: nn.Module) -> list[str]:
        """Return the names of the modules that own weights (embeddings, linear layers, normalisations), in the network's order."""
        return [
            name for name, module in network.named_modules() if next(module.parameters(recurse=False), None) is not None
        ]

    def _directory(self, base_dir: Path) -> Path:
        """Return the checked directory. Raises InputError if the options do not fit its config."""
        directory = pretrained_directory(self.pretrained, self.revision, base_dir)
        config = read_config(directory)
        check_model_type(config, directory)
        depth = next((config[key] for key in _DEPTH_KEYS if isinstance(config.get(key), int)), None)
        if self.num_layers is not None and depth is not None and self.num_layers > depth:
            problem = f"{self.num_layers} is more than the {depth} layers of {self.pretrained!r}"
            raise InputError("task.model.num_layers", problem)
        longest = next((config[key] for key in _LENGTH_KEYS if isinstance(config.get(key), int)), None)
        if longest is not None and self.max_length > longest:
            problem = f"{self.max_length} is more than the {longest} positions of {self.pretrained!r}"
            raise InputError("task.model.max_length", problem)
        return directory

    def _config(self, directory: Path) -> Any:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        if self.num_layers is not None:
            config.num_hidden_layers = self.num_layers
            if getattr(config, "layer_types", None):
                config.layer_types = config.layer_types[: self.num_layers]
        if self.dropout is not None:
            for key, value in config.to_dict().items():
                if ("dropout" in key or key.endswith("pdrop")) and type(value) in (float, int, type(None)):
                    setattr(config, key, self.dropout)
        if config.pad_token_id is None:  # decoders find the last real token by the padding id
            config.pad_token_id = PretrainedTokeniser(directory, self.max_length).pad_id
        return config


def _refuse_absent(names: set[str], pretrained: str) -> None:
    """Refuse missing weights of the encoder; only a pooler and the head may start at random."""
    absent = sorted(name for name in names if "pooler" not in name)
    if absent:
        shown = ", ".join(absent[:3]) + (" ..." if len(absent) > 3 else "")
        raise InputError(WHERE, f"{pretrained!r} lacks the weights {shown}")
