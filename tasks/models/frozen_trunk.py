"""The frozen trunk of an encoder: its first modules, if none of their parameters is trained and they have no dropout."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class _Layout:
    """Where an architecture has its modules.

    `encoder` is the name of the encoder in the classifier. In the encoder, the modules `below` come first and the
    modules of the list `layers` follow, each with the output of the one before as its first argument. The head reads
    the vector of the first token. `dropouts` are the keys of config.json that set the dropout below the head.
    """

    encoder: str
    layers: str = "encoder.layer"
    below: tuple[str, ...] = ("embeddings",)
    dropouts: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")


_DEFAULT_DROPOUT = 0.1  # of every architecture below, if config.json does not set it
_LAYOUTS = {
    "bert": _Layout("bert"),
    "electra": _Layout("electra", below=("embeddings", "embeddings_project")),
    "distilbert": _Layout("distilbert", "transformer.layer", dropouts=("dropout", "attention_dropout")),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), _Layout("roberta")),
}


@dataclass(frozen=True)
class FrozenTrunk:
    """The modules below the first `n_layers` layers, and these layers. `whole`: no layer above them is left.

    The outputs of the trunk are its hidden states [n, length, width]. If the trunk is the whole stack of layers, they
    are those of the first token only, [n, 1, width], because the head reads no others.
    """

    model_type: str
    n_layers: int
    whole: bool

    def identity(self) -> dict[str, Any]:
        """Return what the outputs depend on besides the weights and the tokens."""
        return {"n_layers": self.n_layers, "first_token": self.whole}

    def names_in_classifier(self, names: Collection[str]) -> list[str]:
        """Return the names that parameters and buffers of the encoder have in the classifier."""
        return [f"{_LAYOUTS[self.model_type].encoder}.{name}" for name in names]

    def outputs(self, network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs of the trunk of a classifier for the arguments `inputs` of its forward method."""
        encoder, _, layers = self._modules(network)
        with _replaced_forwards(dict.fromkeys(layers[self.n_layers :], _first_argument)):
            hidden = encoder(**inputs).last_hidden_state
        return hidden[:, :1] if self.whole else hidden

    @contextmanager
    def serving(self, network: nn.Module, outputs: Tensor) -> Iterator[None]:
        """Let the trunk return `outputs` in forward passes made inside, without being computed."""
        _, below, layers = self._modules(network)
        passed = [*below[1:], *layers[: self.n_layers]]
        with _replaced_forwards({below[0]: lambda *_, **__: outputs, **dict.fromkeys(passed, _first_argument)}):
            yield

    def _modules(self, network: nn.Module) -> tuple[nn.Module, list[nn.Module], list[nn.Module]]:
        """Return the encoder, the modules below its layers, and its layers."""
        layout = _LAYOUTS[self.model_type]
        encoder = network.get_submodule(layout.encoder)
        below = [encoder.get_submodule(name) for name in layout.below if hasattr(encoder, name)]
        return encoder, below, list(encoder.get_submodule(layout.layers).children())


def find_trunk(model_type: str, names: Sequence[str], frozen: Collection[str]) -> FrozenTrunk:
    """Return the trunk of a classifier with the parameters `names`, of which `frozen` are not trained. Uses no torch.

    Raises ValueError saying why there is none.
    """
    layout = _layout(model_type)
    below = [name for name in names if name.startswith(tuple(f"{layout.encoder}.{part}." for part in layout.below))]
    if trained := [name for name in below if name not in frozen]:
        raise ValueError(f"{trained[0]} is trained, so that no layer above it has the same outputs in every retrain")
    numbered = re.compile(rf"{re.escape(layout.encoder)}\.{re.escape(layout.layers)}\.(\d+)\.")
    layers: dict[int, bool] = {}
    for name in names:
        if found := numbered.match(name):
            layers[int(found[1])] = layers.get(int(found[1]), True) and name in frozen
    n_layers = next((number for number in sorted(layers) if not layers[number]), len(layers))
    return FrozenTrunk(model_type, n_layers, n_layers == len(layers))


def dropout_problem(config: Mapping[str, Any], dropout: float | None) -> str:
    """Return why the outputs of the layers are random during training, or "" if they are not.

    `config` is the content of config.json; `dropout`, if not None, replaces all its probabilities. Raises ValueError for
    an unknown architecture.
    """
    keys = _layout(str(config.get("model_type"))).dropouts
    values = [config.get(key, _DEFAULT_DROPOUT) for key in keys] if dropout is None else [dropout]
    largest = max(value or 0.0 for value in values)
    return f"the frozen layers have dropout {largest:g}; set task.model.dropout to 0.0" if largest else ""


def _layout(model_type: str) -> _Layout:
    if model_type not in _LAYOUTS:
        raise ValueError(f"it is not known which modules of {model_type!r} come first; known: {', '.join(_LAYOUTS)}")
    return _LAYOUTS[model_type]


def _first_argument(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden


@contextmanager
def _replaced_forwards(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Replace the forward methods of modules inside; parameters, modules and hooks stay as they are."""
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.forward  # uncovers the method of the class
