"""The arguments of a Hugging Face sequence classifier for a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.base import Batch
from tasks.models.architectures import counts_padding

if TYPE_CHECKING:
    from torch import Tensor, nn


def classifier_inputs(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the arguments of the network's forward method, each int64 [n, length].

    `token_type_ids` of the batch are passed on if the network has embeddings of two or more types.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    config: Any = network.config
    if counts_padding(config.model_type):
        ids = _without_gaps(ids, mask, config.pad_token_id)
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    if "token_type_ids" in batch and getattr(config, "type_vocab_size", 0) >= 2:
        inputs["token_type_ids"] = batch["token_type_ids"]
    return inputs


def _without_gaps(ids: Tensor, mask: Tensor, pad_id: int) -> Tensor:
    """Return `ids` in which a hidden token before the last visible one is no padding: such networks would count it as absent.

    Attention leaves it out, so the token in its place changes no output and has a gradient of zero.
    """
    import torch

    places = torch.arange(ids.shape[1], device=ids.device)
    last = (mask * places).amax(1, keepdim=True)
    return torch.where(~mask & (places < last), 1 if pad_id == 0 else 0, ids)
