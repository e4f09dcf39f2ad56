"""A tiny BERT whose examples have different gradients."""

import torch
from small_task import SmallBert
from torch import nn


class LargeBert(SmallBert):
    """Matrices 20 times as large as at BERT's start, where all gradients of one label have nearly the same direction (cosine 0.99999)."""

    def build(self, vocabulary: int) -> nn.Module:
        network = super().build(vocabulary)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(20 if parameter.dim() == 2 else 1)
        return network
